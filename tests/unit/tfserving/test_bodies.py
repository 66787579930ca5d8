"""The body before it is a document: compression, limits, and the liberties of the parser."""

import gzip
import json
import zlib
from typing import Any

import pytest

from dragoman.core import tensors as t
from tests.fakes_tfs import Client, echo, half_plus

BODY = b'{"instances": [1.0, 2.0, 5.0]}'
PATH = "/v1/models/half:predict"
ANSWER = {"predictions": [2.5, 3.0, 4.5]}


def client(**options: Any) -> Client:
    return Client({"half": half_plus(2), "float": echo(t.FP32)}, **options)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "gzip, identity", " gzip "])
def test_gzip(encoding: str) -> None:
    """A body is inflated when the encoding has gzip in it."""
    assert client().send("POST", PATH, gzip.compress(BODY), {"Content-Encoding": encoding}).json == ANSWER


@pytest.mark.parametrize("encoding", ["identity", "", "utf-8", "chunked"])
def test_other_encodings_are_not_looked_at(encoding: str) -> None:
    """What is not gzip is taken as it came."""
    assert client().send("POST", PATH, BODY, {"Content-Encoding": encoding}).json == ANSWER


@pytest.mark.parametrize(
    "body",
    [b"", BODY, gzip.compress(BODY)[:-4], gzip.compress(BODY)[:8], gzip.compress(BODY) + b"more", zlib.compress(BODY), gzip.compress(b"")],
    ids=["empty", "plain", "truncated", "header-only", "trailing", "zlib", "of-nothing"],
)
def test_what_does_not_inflate_is_empty(body: bytes) -> None:
    """A body that is not the gzip it claims to be counts as empty, and the text says why."""
    reply = client().send("POST", PATH, body, {"Content-Encoding": "gzip"})
    assert reply.status == 400
    assert reply.error.startswith("JSON Parse error: The document is empty")


def test_members_of_gzip_are_joined() -> None:
    """gzip files may be concatenated."""
    body = gzip.compress(BODY[:10]) + gzip.compress(BODY[10:])
    assert client().send("POST", PATH, body, {"Content-Encoding": "gzip"}).json == ANSWER


def test_bomb() -> None:
    """A body that inflates beyond the limit of 100 MiB is 413."""
    reply = client().send("POST", PATH, gzip.compress(bytes(101 << 20), 1), {"Content-Encoding": "gzip"})
    assert reply.status == 413
    assert "limit" in reply.error


def test_large_body() -> None:
    """A body above the server's limit is 413."""
    reply = client(max_body=20).predict("half", BODY)
    assert reply.status == 413
    assert "20 bytes" in reply.error


@pytest.mark.parametrize("media", ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=latin-1", ""])
def test_content_type_is_not_looked_at(media: str) -> None:
    """curl's default of a form works as well as anything."""
    assert client().send("POST", PATH, BODY, {"Content-Type": media}).json == ANSWER


@pytest.mark.parametrize("tail", [b"}", b" garbage", b"\n\n", b"\x00", b'{"instances": 1}', b"\xff"])
def test_text_after_the_document_is_ignored(tail: bytes) -> None:
    """The document ends at its brace."""
    assert client().predict("half", BODY + tail).json == ANSWER


def test_text_after_a_long_document_is_ignored() -> None:
    """Also when the numbers are kept packed."""
    numbers = [0.5] * 30_000
    reply = client().predict("float", json.dumps({"instances": numbers}).encode() + b" x")
    assert reply.json == {"predictions": numbers}


@pytest.mark.parametrize("space", [" ", "\n", "\t", "\r\n"])
def test_white_space(space: str) -> None:
    """JSON's white space may stand anywhere between the tokens."""
    body = space.join(["", "{", '"instances"', ":", "[", "1.0", ",", "2.0", ",", "5.0", "]", "}", ""])
    assert client().predict("half", body).json == ANSWER


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"instances": [1]}',
        b"{'instances': [1]}",
        b'{"instances": [1.]}',
        b'{"instances": [.5]}',
        b'{"instances": [01]}',
        b'{"instances": [+1]}',
        b'{"instances": [1],}',
        b"{instances: [1]}",
        b'{"instances": [1]',
        b'{"instances": [nan]}',
        b'{"instances": [infinity]}',
        b'{"instances": [-NaNs]}',
        b'{"instances": ["\\ud800"]}',
        b'{"instances": ["\\x"]}',
        b'{"instances": ["\x01"]}',
        b"instances=1",
        b"\x00",
    ],
)
def test_not_json(body: bytes) -> None:
    """What no JSON parser takes is 400 and says where it went wrong."""
    reply = client().predict("half", body)
    assert reply.status == 400
    assert reply.error.startswith("JSON Parse error: ")
    assert " at offset: " in reply.error


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ('{"instances": [1.0], "instances": [4.0], "instances": []}', {"predictions": [2.5]}),
        ('{"inputs": [1.0], "u": {"inputs": 3}, "inputs": [4.0]}', {"outputs": [2.5]}),
        ('{"u": {"inputs": 3}, "inputs": [NaN, 1.0][0], "inputs": [4.0]}', None),
        ('{"u": [{"inputs": 3}, "inputs"], "inputs": [1.0], "inputs": "inputs"} and more', {"outputs": [2.5]}),
        ('{"signature_name": "", "inputs": [1.0], "signature_name": "nothing"}', {"outputs": [2.5]}),
        ('{"signature_name": "serving_default", "instances": [{"x": 1.0}], "u": "instances"}', {"predictions": [2.5]}),
        ('{"inputs": {"x": [1.0], "inputs": 1}, "inputs": 4.0}', {"outputs": [2.5]}),
        ('{"inputs": 1.0, "inputs": 4.0, "instances": [1.0]}', None),
    ],
)
def test_of_equal_keys_the_first_counts(body: str, answer: Any) -> None:
    """Of those of the document, that is, wherever else the word stands; all else holds for what is left."""
    reply = client().predict("half", body.encode())
    assert (reply.status, reply.json) == (200, answer) if answer else reply.status == 400


def test_long_rows_keep_their_nesting() -> None:
    """A batch of images goes through as it is, and a ragged one is refused with its row."""
    ours = client()
    images = [[[0.25, 1.0]] * 40] * 100
    assert ours.predict("float", {"instances": images}).json == {"predictions": images}
    ragged = [*images, [[0.25, 1.0]] * 39]
    assert ours.predict("float", {"instances": ragged}).error == (
        "Failed to process element: 100 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 80 but got: 78"
    )
    named = [{"x": image * 20} for image in images[:3]]
    assert ours.predict("float", {"instances": named}).json == {"predictions": [image * 20 for image in images[:3]]}
    named.append({"x": images[0]})
    assert "element: 3 key: x of" in ours.predict("float", {"instances": named}).error
