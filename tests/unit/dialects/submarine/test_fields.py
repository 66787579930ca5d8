"""Fields of bodies: what each takes, and that errors name it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects.submarine import fields
from dragoman.dialects.submarine.bodies import json_object
from dragoman.serving.words import version_digits

HIGHEST = 2**31 - 1


@pytest.mark.parametrize(
    ("value", "digits"), [(1, "1"), ("1", "1"), ("01", "1"), (HIGHEST, str(HIGHEST)), (str(HIGHEST), str(HIGHEST)), ("0" * 19 + "7", "7")]
)
def test_versions(value: object, digits: str) -> None:
    """A number and its digits mean the same (S2)."""
    assert fields.version({"modelVersion": value}, "modelVersion") == digits


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1.0",
        "1.5",
        "1e0",
        str(HIGHEST + 1),
        str(2**63),
        "9" * 300,
        '""',
        '" 1"',
        '"1.0"',
        '"+1"',
        '"-1"',
        '"0"',
        '"abc"',
        '"1e3"',
        '"1_0"',
        '"\u0661"',
        '"\u00b2"',
        f'"{HIGHEST + 1}"',
        f'"{"0" * 5000}1"',
        "[1]",
        "[]",
        "{}",
        '{"version": 1}',
    ],
)
def test_what_is_no_version(text: str) -> None:
    """Fractions, booleans, null, lists and numbers out of range (R6); the message names the field and stays short."""
    body = json_object(f'{{"modelVersion": {text}}}'.encode())
    with pytest.raises(ServingError) as caught:
        fields.version(body, "modelVersion")
    assert caught.value.kind is Kind.INVALID_INPUT
    assert caught.value.message.startswith("modelVersion is ")
    assert len(caught.value.message) < 200


@given(st.text(max_size=12))
def test_texts_as_versions(text: str) -> None:
    """Only ASCII digits within the range are one."""
    fits = text.isascii() and text.isdigit() and 1 <= int(text) <= HIGHEST
    assert version_digits(text) == (str(int(text)) if fits else "")


@pytest.mark.parametrize("value", [None, 5, True, 1.5, [], ["iris"], {}, ""])
def test_what_is_no_name(value: object) -> None:
    """A name is a text that is not empty (R6)."""
    with pytest.raises(ServingError, match=r"^modelName is ") as caught:
        fields.name({"modelName": value}, "modelName")
    assert caught.value.kind is Kind.INVALID_INPUT


def test_missing_fields() -> None:
    """Are named (S3)."""
    for check in (fields.name, fields.version):
        with pytest.raises(ServingError, match=r"^field is missing"):
            check({}, "field")
    with pytest.raises(ServingError, match=r"^userId is missing"):
        fields.text({}, "userId", needed=True)
    with pytest.raises(ServingError, match=r"^userId is null"):
        fields.text({"userId": None}, "userId", needed=True)


def test_overlong_names() -> None:
    """Have at most 256 characters (R7)."""
    assert fields.name({"name": "x" * 256}, "name") == "x" * 256
    with pytest.raises(ServingError, match="257 characters"):
        fields.name({"name": "x" * 257}, "name")


def test_texts() -> None:
    """Missing and null are no text, "" is one."""
    assert fields.text({}, "a") is None
    assert fields.text({"a": None}, "a") is None
    assert fields.text({"a": ""}, "a", needed=True) == ""
    with pytest.raises(ServingError, match=r"^a is a list of 2, expected a text"):
        fields.text({"a": [1, 2]}, "a")


def test_tags() -> None:
    """A list of words."""
    assert fields.tags({}) == fields.tags({"tags": None}) == fields.tags({"tags": []}) == {}
    assert fields.tags({"tags": ["a", "b", "a"]}) == {"a": "", "b": ""}


@pytest.mark.parametrize(
    ("value", "words"), [("a", "tags is 'a'"), ({"a": 1}, "tags is an object"), (["a", 1], "tags[1] is 1"), ([" "], "tags[0] is ' '")]
)
def test_what_are_no_tags(value: Any, words: str) -> None:
    """The place in the list is named."""
    with pytest.raises(ServingError) as caught:
        fields.tags({"tags": value})
    assert caught.value.message.startswith(words)


def test_a_version_in_a_path_that_is_none_is_not_found() -> None:
    """Nothing is there."""
    assert fields.in_path("iris", "07") == "7"
    with pytest.raises(ServingError) as caught:
        fields.in_path("iris", "x" * 1000)
    assert caught.value.kind is Kind.NOT_FOUND
    assert len(caught.value.message) < 200
