"""JSON examples to serialized Examples: what each JSON value becomes, the context, and every row of the protocol's table of errors."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects.tfserving import decode, examples
from dragoman.dialects.tfserving.room import Room


def asked(document: Any) -> list[bytes]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return examples.asked(decode.document(body), body, Room(1 << 20))


def read(document: Any) -> list[dict[str, Any]]:
    """Every Example of a document, by its features."""
    return [dict(examples.features(each)) for each in asked(document)]


def refused(document: Any) -> str:
    with pytest.raises(ServingError) as caught:
        asked(document)
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value.message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("80.0", [80.0]),
        ("80", [80]),
        ("8e1", [80.0]),
        ("-0.0", [-0.0]),
        ("[1, 2, 3]", [1, 2, 3]),
        ("[1.5, 2.0]", [1.5, 2.0]),
        ("true", [1]),
        ("[true, 7, false]", [1, 7, 0]),
        ('"caf\\u00e9"', ["café".encode()]),
        ('["a", {"b64": "AAE="}, ""]', [b"a", b"\x00\x01", b""]),
        ('{"b64": "_no_"}', None),
        ("[Infinity, -Infinity]", [math.inf, -math.inf]),
        ("1e39", [math.inf]),
        ("9223372036854775807", [2**63 - 1]),
        ("-9223372036854775808", [-(2**63)]),
        ("9223372036854775808", None),
    ],
)
def test_g8_values(value: str, expected: list[Any] | None) -> None:
    """G8: a point or an exponent makes a float, true and false are integers, texts and base64 are bytes; single values are lists of one."""
    document = b'{"examples": [{"f": %s}]}' % value.encode()
    if expected is None:
        refused(document)
        return
    (example,) = read(document)
    assert example == {"f": expected}
    assert [type(each) for each in example["f"]] == [type(each) for each in expected]


def test_nan() -> None:
    """NaN is a float."""
    (example,) = read(b'{"examples": [{"f": [NaN]}]}')
    assert math.isnan(example["f"][0])


def test_floats_are_rounded_to_their_width() -> None:
    """An Example holds float32."""
    assert read({"examples": [{"f": 0.1}]}) == [{"f": [pytest.approx(0.1, rel=1e-7)]}]


def test_a_feature_without_values() -> None:
    """An empty list is a feature without a value: whoever reads it takes the default."""
    (example,) = asked({"examples": [{"f": []}]})
    assert b"f" in example
    assert examples.features(example) == {}


def test_no_features() -> None:
    """An example may be empty: every feature takes its default."""
    assert read({"examples": [{}, {}]}) == [{}, {}]


def test_long_lists() -> None:
    """Long lists come from the reader in a packed form."""
    numbers = [float(number) for number in range(20_000)]
    assert read({"examples": [{"f": numbers}, {"f": list(range(20_000))}]}) == [{"f": numbers}, {"f": list(range(20_000))}]


def test_g7_context_reaches_every_example() -> None:
    """G7: features of the context are in every example; where an example has one of the same name, its own value holds."""
    document = {"context": {"a": 1, "b": ["x", "y"]}, "examples": [{}, {"c": 2.5}, {"a": [3, 4]}]}
    shared = {"b": [b"x", b"y"]}
    assert read(document) == [{"a": [1], **shared}, {"a": [1], "c": [2.5], **shared}, {"a": [3, 4], **shared}]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": {"x": 1}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": None}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [[1.0]]}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{}, 1.0]}, "Example must be JSON object but got JSON Number"),
        ({"examples": ["x"]}, "Example must be JSON object but got JSON String"),
        ({"examples": [True]}, "Example must be JSON object but got JSON True"),
        ({"examples": [float(i) for i in range(9000)]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{}], "context": [1]}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{}], "context": None}, "Example must be JSON object but got JSON Null"),
        ({"examples": [{"f": None}]}, "Feature: f has element with unexpected JSON type: Null"),
        ({"examples": [{"f": [1, None]}]}, "Feature: f has element with unexpected JSON type: Null"),
        ({"examples": [{"f": [[1]]}]}, "Feature: f has element with unexpected JSON type: Array"),
        ({"examples": [{"f": {"g": 1}}]}, "Feature: f has element with unexpected JSON type: Object"),
        ({"examples": [{"f": {"b64": 1}}]}, "Feature: f has element with unexpected JSON type: Object"),
        ({"examples": [{"f": ["a", {"b64": "*"}]}]}, "Unable to base64 decode"),
        ({"examples": [{"f": [1, 2.5]}]}, "Unexpected element type in feature: f expecting type: int64"),
        ({"examples": [{"f": [1.5, 2]}]}, "Unexpected element type in feature: f expecting type: float"),
        ({"examples": [{"f": ["a", True]}]}, "Unexpected element type in feature: f expecting type: bytes"),
        ({"examples": [{"f": [True, "a"]}]}, "Unexpected element type in feature: f expecting type: int64"),
        ({"examples": [{"f": 2**63}]}, "Feature: f has uint64_t element. Only int64_t is supported."),
        ({"examples": [{"f": [1.5, "a", None]}]}, "Unexpected element type in feature: f expecting type: float"),
        ({"examples": [{"f": 1.5}], "context": {"g": [None]}}, "Feature: g has element with unexpected JSON type: Null"),
    ],
)
def test_refusals(document: Any, text: str) -> None:
    """Section 6's table: the first fault in the order of the text is told, in TensorFlow Serving's words."""
    assert text in refused(document)


def test_long_names_are_cut() -> None:
    """What a message quotes has an end."""
    assert len(refused({"examples": [{"f" * 10_000: None}]})) < 400


@pytest.mark.parametrize("hostile", [b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"\xff", b"\x0a\x02\x0a\x05", b"\x0b" * 200])
def test_bytes_that_are_no_example(hostile: bytes) -> None:
    """Truncated, or with lengths beyond the end: INVALID_INPUT."""
    with pytest.raises(ServingError, match="Could not parse example input") as caught:
        examples.features(hostile)
    assert caught.value.kind is Kind.INVALID_INPUT


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Bytes are an Example or are refused; nothing else happens."""
    with contextlib.suppress(ServingError):
        examples.features(data)


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.booleans()
LISTS = st.lists(NUMBERS, min_size=1) | st.lists(st.floats(width=32, allow_nan=False), min_size=1) | st.lists(st.text(), min_size=1)


@given(st.lists(st.dictionaries(st.text(), LISTS, max_size=4), min_size=1, max_size=3))
def test_what_is_sent_is_read(sent: list[dict[str, list[Any]]]) -> None:
    """Every list of one type comes out as it went in, texts as UTF-8."""
    expected = [
        {name: [each.encode() if isinstance(each, str) else each for each in values] for name, values in row.items()} for row in sent
    ]
    body = json.dumps({"examples": sent}, allow_nan=True).encode()
    assert [dict(examples.features(each)) for each in asked(body)] == expected


def test_a_context_cannot_be_multiplied_without_end() -> None:
    """What it takes in all examples together has a limit: a megabyte of context times a million empty examples would be a terabyte."""
    body = json.dumps({"context": {"text": "x" * 1000}, "examples": [{}] * 2000}).encode()
    with pytest.raises(ServingError) as caught:
        examples.asked(decode.document(body), body, Room(1 << 20))
    assert caught.value.kind is Kind.TOO_LARGE
