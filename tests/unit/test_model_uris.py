"""`models:/` URIs: what they name, and which name nothing."""

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.model_uris import ModelUri, is_model_uri, parse_uri


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("models:/n/3", ("n", "3", "")),
        ("models:/n/Production", ("n", "Production", "")),
        ("models:/n@champion", ("n", "", "champion")),
        ("models:///n/3", ("n", "3", "")),
        ("models:/a@b/3", ("a@b", "3", "")),
        ("models:/a@b@c", ("a@b", "", "c")),
    ],
)
def test_uris(uri: str, parts: tuple[str, str, str]) -> None:
    """A name with a version or stage, or with an alias."""
    assert parse_uri(uri) == ModelUri(*parts)


@pytest.mark.parametrize(
    "uri",
    ["", "models:", "models:/", "models:/n", "models:/n/", "models:/n@", "models:/@x", "models:/n/3/x", "runs:/n/3", "n/3", "models:/n/\0"],
)
def test_uris_that_are_none(uri: str) -> None:
    """Each is bad input, whatever is missing."""
    with pytest.raises(ServingError) as caught:
        parse_uri(uri)
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "source")


def test_logged_models() -> None:
    """An id is no name; a registered model may be called like one."""
    logged = "m-" + "0a" * 16
    assert parse_uri(f"models:/{logged}") == ModelUri(logged=logged)
    assert parse_uri(f"models:/{logged}/3") == ModelUri(logged, "3")


@pytest.mark.parametrize(
    ("uri", "pinned"),
    [
        ("models:/n/3", True),
        ("models:/n/latest", False),
        ("models:/n/Production", False),
        ("models:/n@a", False),
        ("models:/m-" + "a" * 32, True),
    ],
)
def test_what_never_changes(uri: str, pinned: bool) -> None:
    """A number and a logged model mean the same files for ever; a stage and an alias do not."""
    assert parse_uri(uri).pinned is pinned


def test_which_texts_are_such_uris() -> None:
    """By the scheme alone, in any case."""
    assert [is_model_uri(text) for text in ("models:/n", "MODELS:/n/3", "models:")] == [True] * 3
    assert [is_model_uri(text) for text in ("models", "/models:/n", "s3://models:/n")] == [False] * 3
