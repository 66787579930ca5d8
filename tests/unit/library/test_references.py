"""Names of stored models."""

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.library.references import Reference, default_repository, default_tag, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iris", Reference("iris")),
        ("iris:1", Reference("iris", "1")),
        ("team/iris:v1.2-rc_3", Reference("team/iris", "v1.2-rc_3")),
        ("a.b/c_d/e__f/g---h", Reference("a.b/c_d/e__f/g---h")),
        ("localhost/iris", Reference("localhost/iris")),
        ("localhost:5000/iris", Reference("localhost:5000/iris")),
        ("Host.example:5000/team/iris:x", Reference("Host.example:5000/team/iris", "x")),
        ("0", Reference("0")),
        ("x:" + "t" * 128, Reference("x", "t" * 128)),
        ("a" * 255, Reference("a" * 255)),
    ],
)
def test_names(text: str, expected: Reference) -> None:
    """A repository, perhaps with a host and a port, and perhaps a tag; as text it is what was given."""
    assert parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "iris:", ":1", "Iris", "iris/", "/iris", "a//b", "a..b", "-a", "a-", "a_", "a___b", ".", "..", "../iris", "a/../b",
        "iris:-1", "iris:a/b",
        "iris:a b", "iris:" + "t" * 129, "a" * 256, "café", "iris:é", "a b", "a\n", "iris:1\n", "host:port/iris", "UPPER/iris",
        "a\x00", "iris@sha256:ab",
    ],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    """Refused with the kind that commands call InvalidName."""
    with pytest.raises(ServingError) as caught:
        parse(text)
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "name")


@pytest.mark.parametrize(("text", "name"), [("iris:1", "iris"), ("team/iris", "iris"), ("localhost:5000/a/b", "b")])
def test_the_name_in_urls(text: str, name: str) -> None:
    """The last part of the repository."""
    assert parse(text).served_name == name


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("text", "tungsten-text"),
        ("My_Model", "tungsten-my-model"),
        ("a.b", "tungsten-a.b"),
        ("..x..y..", "tungsten-x.y"),
        ("  ", "tungsten-model"),
        ("été", "tungsten-t"),
        ("x" * 300, "tungsten-" + "x" * 100),
        ("a-.-b", "tungsten-a.b"),
    ],
)
def test_the_name_of_a_project_without_one(folder: str, name: str) -> None:
    """Made of its folder's, and always a name that is allowed."""
    assert default_repository(folder) == name
    assert parse(name).repository == name


def test_the_default_tag() -> None:
    """The first seven digits of the digest."""
    assert default_tag("0123456789abcdef") == "0123456"
