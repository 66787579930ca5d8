"""Bodies that are one JSON object: what is read, and what is said of everything else."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Request
from dragoman.dialects.documents import json_object, object_of, shown


def read(body: bytes, encoding: str = "", limit: int = 1000) -> dict[str, Any]:
    """The object of a request with this body."""
    headers = [(b"content-encoding", encoding.encode())] if encoding else []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return asyncio.run(json_object(Request({"method": "POST", "path": "/", "headers": headers}, receive, 1 << 20), limit))


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_no_body_is_an_empty_object(body: bytes) -> None:
    """Nothing was asked for beyond what the path says."""
    assert read(body) == {}


def test_an_object_is_read_and_inflated() -> None:
    """As its sender meant it."""
    assert read(b'{"a": [1]}') == {"a": [1]}
    assert read(gzip.compress(b'{"a": null}'), "gzip") == {"a": None}


def test_a_bomb_is_too_large() -> None:
    """The limit counts what is inflated."""
    with pytest.raises(ServingError) as caught:
        read(gzip.compress(json.dumps({"a": "x" * 2000}).encode()), "gzip")
    assert caught.value.kind is Kind.TOO_LARGE


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the text is not valid JSON: "),
        (b"\xff", "the text is not valid JSON: "),
        (b'{"a":\n x}', "(line 2 column 2)"),
        (b"[1]", "the text is a list, expected a JSON object"),
        (b"true", "the text is true or false, expected"),
        (b"7", "the text is a number, expected"),
        (b'"{}"', "the text is a text, expected"),
        (b"null", "the text is null, expected"),
    ],
)
def test_what_is_no_object(body: bytes, words: str) -> None:
    """INVALID_INPUT about the body, with the place where it stops being JSON."""
    with pytest.raises(ServingError) as caught:
        object_of(body, "the text")
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "body")
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        ([1, 2], "a list of 2"),
        ({"a": 1}, "an object"),
        (1.5, "1.5"),
        ("it's", '"it\'s"'),
        ("\ud800", "'\\ud800'"),
        ("x" * 100, "'" + "x" * 59 + "..."),
    ],
)
def test_values_in_messages(value: object, text: str) -> None:
    """What it is rather than all of it, and nothing that a message cannot carry."""
    assert shown(value) == text
