"""Bodies and queries: JSON as people write it, YAML, and everything that is neither."""

import asyncio
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Request
from dragoman.dialects.submarine.bodies import LARGEST, document, json_object, query


def request(body: bytes = b"", kind: str = "", method: str = "POST", coding: str = "", asked: bytes = b"", step: int = 1 << 16) -> Request:
    """A request whose body comes in pieces."""
    pieces = [body[at : at + step] for at in range(0, len(body), step)] or [b""]
    headers = [(b"content-type", kind.encode())] * bool(kind) + [(b"content-encoding", coding.encode())] * bool(coding)

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    return Request({"method": method, "path": "/api/v1/serve", "headers": headers, "query_string": asked}, receive, 1 << 30)


def read(*args: Any, **fields: Any) -> Any:
    return asyncio.run(document(request(*args, **fields)))


def refused(*args: Any, **fields: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        read(*args, **fields)
    return caught.value


WANTED = {"modelName": "iris", "modelVersion": 1}
PLAIN = b'{"modelName": "iris", "modelVersion": 1}'
SEED = b'{\n    "modelName": "iris",\n    "modelVersion": 1,\n}'


@pytest.mark.parametrize("body", [PLAIN, SEED, b"\xef\xbb\xbf" + PLAIN, b" \n" + PLAIN + b"\r\n"])
@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/vnd.api+json",
        "text/json",
        "application/x-www-form-urlencoded",
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
def test_json_of_any_declaration(body: bytes, kind: str, method: str) -> None:
    """The documented example with its trailing comma too, and what curl sends without a type."""
    assert read(body, kind, method) == WANTED


@pytest.mark.parametrize("kind", ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml; charset=utf-8", "APPLICATION/YAML"])
@pytest.mark.parametrize("body", [PLAIN, SEED, b"modelName: iris\nmodelVersion: 1\n", b"---\nmodelVersion: 1 # first\nmodelName: 'iris'"])
def test_yaml(kind: str, body: bytes) -> None:
    """Block style, and flow style, which JSON is a part of."""
    assert read(body, kind) == WANTED
    assert read(body, kind, "DELETE") == WANTED


@pytest.mark.parametrize("body", [PLAIN, SEED, b"modelName: iris\nmodelVersion: 1\n"])
def test_text_is_yaml_for_delete_alone(body: bytes) -> None:
    """As in the original, whose DELETE declared nothing and whose POST did."""
    assert read(body, "text/plain", "DELETE") == WANTED
    assert refused(body, "text/plain").what == "media"


@pytest.mark.parametrize(
    "kind", ["text/html", "multipart/form-data; boundary=x", "application/octet-stream", "json", "application/jsonx", "é"]
)
def test_other_types_are_refused(kind: str) -> None:
    """With what was expected."""
    error = refused(PLAIN, kind)
    assert (error.kind, error.what) == (Kind.UNSUPPORTED, "media")
    assert "application/json" in error.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"null", "is null"),
        (b"[]", "is a list"),
        (b'[{"modelName": "iris"}]', "is a list"),
        (b'"iris"', "is a text"),
        (b"5", "is a number"),
        (b"1e300", "is a number"),
        (b"true", "is true or false"),
        (b"{", "not valid JSON"),
        (b'{"a": 1,, }', "not valid JSON"),
        (b"{,,}", "not valid JSON"),
        (b'{"a": 1} {"b": 2}', "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": Infinity}', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'{"a": "\x00"}', "not valid JSON"),
        (PLAIN.decode().encode("utf-16"), "not valid JSON"),
        (b'{"modelVersion": ' + b"9" * 4000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "not valid JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not valid JSON"),
        (b'{"a": [' + b"[," * 100_000, "not valid JSON"),
        (b'"' + b"," * 500_000, "not valid JSON"),
        (b"modelName=iris&modelVersion=1", "not valid JSON"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_no_object_in_json(body: bytes, words: str) -> None:
    """INVALID_INPUT, whatever the damage."""
    error = refused(body, "application/json")
    assert error.kind is Kind.INVALID_INPUT
    assert words in error.message


def test_an_error_has_its_place() -> None:
    """Of the text as it was sent."""
    assert refused(b'{\n  "modelName": iris\n}').message.endswith("(line 2 column 16)")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2, ], "b": {"c": 3 ,\n}\t, }', {"a": [1, 2], "b": {"c": 3}}),
        ('{"a": ",}", "b": "\\",]", }', {"a": ",}", "b": '",]'}),
        ('{"a": "x\\\\",}', {"a": "x\\"}),
        ('{"é": ["ü,]",],}', {"é": ["ü,]"]}),
    ],
)
def test_trailing_commas(text: str, value: object) -> None:
    """Anywhere, but never inside of a text."""
    assert json_object(text.encode()) == value


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12).filter(lambda t: t.isprintable()) | st.just(",]"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), _VALUES, max_size=4))
def test_commas_change_nothing(value: dict[str, Any]) -> None:
    """Whatever is written with a comma before each bracket reads as without."""

    def written(each: object) -> str:
        if isinstance(each, dict):
            return "{" + "".join(f"{json.dumps(k)}: {written(v)}, " for k, v in each.items()) + "}"
        if isinstance(each, list):
            return "[" + "".join(f"{written(v)}, " for v in each) + "]"
        return json.dumps(each)

    assert json_object(written(value).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """Are an object or INVALID_INPUT."""
    kind = Kind.INVALID_INPUT
    try:
        assert isinstance(json_object(body), dict)
    except ServingError as error:
        kind = error.kind
    assert kind is Kind.INVALID_INPUT


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    """As in the original."""
    assert json_object(b'{"modelName": "a", "modelName": "b"}') == {"modelName": "b"}


def test_compressed_bodies() -> None:
    """Are read, within the same limit; other codings are a 415."""
    assert read(gzip.compress(SEED), coding="gzip") == WANTED
    assert refused(gzip.compress(b" " * (LARGEST + 1)), coding="gzip").kind is Kind.TOO_LARGE
    assert refused(b"x", coding="br").what == "encoding"
    assert refused(b"x", coding="gzip").kind is Kind.INVALID_INPUT


def test_large_bodies_are_not_read_to_their_end() -> None:
    """A body above the limit is refused, whatever it holds; one at the limit is not."""
    assert refused(b" " * (LARGEST + 1)).kind is Kind.TOO_LARGE
    assert read(PLAIN + b" " * (LARGEST - len(PLAIN))) == WANTED


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (b"", {}),
        (b"name=iris&tag=a%20b&version=1", {"name": "iris", "tag": "a b", "version": "1"}),
        (b"name=caf%C3%A9&tag=", {"name": "café", "tag": ""}),
        (b"name=a&name=b", {"name": "a"}),
        (b"name=a+b;c", {"name": "a b;c"}),
    ],
)
def test_queries(asked: bytes, found: dict[str, str]) -> None:
    """Percent escapes and plus signs are decoded."""
    assert query(request(asked=asked)) == found


@pytest.mark.parametrize("asked", [b"name=%FF", b"name=\xff", b"a=" + b"x" * 20_000])
def test_queries_that_are_none(asked: bytes) -> None:
    """No UTF-8, or too long."""
    with pytest.raises(ServingError) as caught:
        query(request(asked=asked))
    assert caught.value.kind is Kind.INVALID_INPUT
