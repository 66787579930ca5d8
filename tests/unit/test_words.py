"""What people may write into the registry."""

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.words import (
    HIGHEST,
    check_alias,
    check_description,
    check_new_name,
    check_tags,
    check_text,
    check_version,
    storable,
)


@pytest.mark.parametrize("name", ["iris", "A-1_b", "ein modell", "模型", "a.b", "x" * 256])
def test_names(name: str) -> None:
    """Requirement R7, and wider."""
    check_new_name(name)


@pytest.mark.parametrize(
    "name", ["", " ", "\u3000", "a/b", "a:b", "a\\b", "..", "a..b", "a\0", "a\x85b", "\ud800", "x" * 257, "stats", "Models"]
)
def test_names_that_are_refused(name: str) -> None:
    """What would build a path, hide a route or break a database; as bad input, since the name is not taken."""
    with pytest.raises(ServingError) as caught:
        check_new_name(name)
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "model")
    caught.value.message.encode()


@pytest.mark.parametrize(("text", "number"), [("1", "1"), ("01", "1"), (str(HIGHEST), "2147483647")])
def test_versions(text: str, number: str) -> None:
    """Whole numbers up to 2^31-1; zeros in front say nothing (requirement R6)."""
    assert check_version(text) == number


@pytest.mark.parametrize("text", ["", "0", "00", "-1", "+1", "1.0", "1e3", "a", "²", "١", " 1", "2147483648", "9" * 5000])
def test_versions_that_are_none(text: str) -> None:
    """Also digits of other scripts, and numbers that no conversion should be asked for."""
    with pytest.raises(ServingError, match="expected a whole number from 1 to 2147483647") as caught:
        check_version(text)
    assert caught.value.what == "version"


@pytest.mark.parametrize("alias", ["champion", "a-b_1", "vx", "7", "é"])
def test_aliases(alias: str) -> None:
    """Word characters and "-"."""
    check_alias(alias)


@pytest.mark.parametrize("alias", ["", "latest", "LATEST", "v1", "V20", "a b", "a/b", "a@b", "a.b", "x" * 257, "\ud800"])
def test_aliases_that_mean_something_else(alias: str) -> None:
    """`latest` and `v1` are words of their own in `models:/` URIs."""
    with pytest.raises(ServingError) as caught:
        check_alias(alias)
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "alias")


def test_texts() -> None:
    """Bounds, and what no database keeps."""
    assert check_description("ä\n" * 50_000)
    assert check_tags({"k" * 256: "v" * 5000, "empty": ""})
    assert storable("a\n")
    for wrong in (
        {"": "x"},
        {" ": "x"},
        {"k" * 257: ""},
        {"k": "v" * 5001},
        {"k": "\0"},
        {"\ud800": ""},
        {str(n): "" for n in range(1001)},
    ):
        with pytest.raises(ServingError) as caught:
            check_tags(wrong)
        assert caught.value.kind is Kind.INVALID_INPUT
        caught.value.message.encode()
    with pytest.raises(ServingError, match="the description has 100001 characters, expected at most 100000"):
        check_description("x" * 100_001)
    with pytest.raises(ServingError, match="the stage has 257 characters"):
        check_text("x" * 257, "the stage")
