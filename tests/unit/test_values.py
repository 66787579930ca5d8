"""What user code returned, as the values that rows may hold."""

import enum
import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Blob
from dragoman.core.values import jsonable, normalise


class Colour(enum.Enum):
    RED = "red"


class Name(str):
    __slots__ = ()


class Level(enum.IntEnum):
    HIGH = 3


class Pair(NamedTuple):
    left: int
    right: int


@dataclass
class Point:
    x: float
    tags: tuple[str, ...]


ALLOWED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.builds(Blob, st.binary()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(ALLOWED)
def test_allowed_values_stay(value: Any) -> None:
    """What rows may hold already comes back equal, of the same types all the way down."""
    made = normalise(value, "output")
    assert made == value
    assert repr(made) == repr(value)


CASES: list[tuple[Any, Any]] = [
    (np.float64(1.5), 1.5),
    (np.float32(0.5), 0.5),
    (np.int8(-3), -3),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.bytes_(b"a\0b"), b"a\0b"),
    (np.array(7), 7),
    (np.array(["a", "b"]), ["a", "b"]),
    (np.array([{"a": (1,)}], object), [{"a": [1]}]),
    ((1, (2, 3)), [1, [2, 3]]),
    (Pair(1, 2), [1, 2]),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    (Name("n"), "n"),
    (bytearray(b"x"), b"x"),
    (memoryview(b"x"), b"x"),
    (OrderedDict(a=1), {"a": 1}),
    ({1: "one", True + 1: "two", np.int64(3): "three"}, {"1": "one", "2": "two", "3": "three"}),
    ({True: 1, False: 0}, {"true": 1, "false": 0}),
    ({Colour.RED: 1, Name("n"): 2}, {"red": 1, "n": 2}),
    (Point(1.0, ("a",)), {"x": 1.0, "tags": ["a"]}),
]


@pytest.mark.parametrize(("value", "expected"), CASES, ids=range(len(CASES)))
def test_near_values_are_turned(value: Any, expected: Any) -> None:
    """Whatever has one obvious plain form gets it, with exactly plain types."""
    made = normalise(value, "output")
    assert made == expected
    assert type(made) is type(expected)
    assert repr(made) == repr(expected)


def test_number_arrays_stay_arrays() -> None:
    """Of native order and C layout, whatever they were."""
    made = normalise({"a": np.arange(6, dtype=">i4").reshape(2, 3).T}, "output")["a"]
    assert isinstance(made, np.ndarray)
    assert made.dtype == np.dtype("<i4")
    assert made.flags.c_contiguous
    assert made.tolist() == [[0, 3], [1, 4], [2, 5]]


REFUSED: list[tuple[Any, str]] = [
    ({1, 2}, "output is of type set"),
    (datetime(2020, 1, 1, tzinfo=UTC), "datetime.datetime"),
    (object(), "of type object"),
    ([{"a": 1}, {"b": 1j}], "output[1].b is of type complex"),
    ({1: 1, "1": 2}, "two keys that are both written as '1'"),
    ({None: 1}, "a key of type NoneType"),
    ({1.5: 1}, "a key of type float"),
    (np.array([1j]), "an array of complex128"),
    (np.array(["2020"], "M8[D]"), "an array of datetime64[D]"),
    (int, "of type type"),
    (np.datetime64("2020"), "datetime64"),
]


@pytest.mark.parametrize(("value", "words"), REFUSED, ids=range(len(REFUSED)))
def test_other_values_are_the_models_failure(value: Any, words: str) -> None:
    """The message says where, what came, and what was expected."""
    with pytest.raises(ServingError) as caught:
        normalise(value, "output")
    assert caught.value.kind is Kind.MODEL_FAILED
    assert words in caught.value.message


def test_a_circle_is_refused() -> None:
    """A list that holds itself ends in a message, not in the end of the stack."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ServingError, match="nested deeper"):
        normalise(circle, "output")


def test_json_types() -> None:
    """Files are data URIs, bytes base64, what is not finite null."""
    value = {"f": Blob(b"abc", "image/png"), "b": b"\xff", "n": [math.nan, math.inf, 1.5], "a": np.array([1, 2]), "t": "x", "z": None}
    assert jsonable(value) == {"f": "data:image/png;base64,YWJj", "b": "/w==", "n": [None, None, 1.5], "a": [1, 2], "t": "x", "z": None}
