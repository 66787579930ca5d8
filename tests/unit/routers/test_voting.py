"""Votes of a VotingEnsemble: weights, ties, what is a label and what is a number (MLRun requirement M31)."""

import math
import random
from collections.abc import Mapping

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import BYTES, FP32, INT64, TensorSpec, Value
from dragoman.serving.routers.voting import decided, declared, normalised, voted

THIRDS = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}


def weighted(**weights: float) -> dict[str, float]:
    return normalised(weights, list(weights), "r")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"a": 0.5, "b": 0.5}),
        ({"a": 3, "b": 1}, {"a": 0.75, "b": 0.25}),
        ({"a": 0.2, "b": 0.2}, {"a": 0.5, "b": 0.5}),
        ({"b": 7}, {"a": 0.0, "b": 1.0}),
    ],
)
def test_weights_are_normalised(given: Mapping[str, float] | None, expected: dict[str, float]) -> None:
    """Whatever their sum is: below 1, above 1, or with members left out, which count nothing."""
    assert normalised(given, ["a", "b"], "r") == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"a": -1}, "the weight of member 'a' of router 'r' is -1, expected a number from 0"),
        ({"a": True}, "is True"),
        ({"a": "1"}, "is '1'"),
        ({"a": math.nan}, "is nan"),
        ({"a": math.inf}, "is inf"),
        ({"z": 1}, "name 'z', which is none of its members a, b"),
        ({"a": 0, "b": 0}, "all weights of router 'r' are 0"),
        ({}, "all weights of router 'r' are 0"),
        ([1, 2], "must be an object"),
    ],
)
def test_weights_that_are_none(given: Value, words: str) -> None:
    """Refused when the router is made, naming router and member."""
    with pytest.raises(ServingError) as caught:
        normalised(given, ["a", "b"], "r")
    assert caught.value.kind is Kind.INVALID_INPUT
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"a": [0, 1], "b": [0, 2], "c": [1, 2]}, [0, 2]),
        ({"a": [3], "b": [2], "c": [1]}, [1]),  # a tie: the lowest label
        ({"a": ["dog"], "b": ["cat"], "c": ["ant"]}, ["ant"]),
        ({"a": ["1"], "b": [7], "c": ["1"]}, ["1"]),
        ({"a": ["1"], "b": [7], "c": [8]}, [7]),  # numbers before texts
        ({"a": [-5], "b": [-5], "c": [4]}, [-5]),
        ({"a": [True], "b": [True], "c": [False]}, [True]),
        ({"a": [1.0], "b": [1], "c": [0]}, [1]),
        ({"a": [[2]], "b": [[[2]]], "c": [1]}, [2]),  # tensors of shape [n, 1]
        ({"a": [], "b": [], "c": []}, []),
    ],
)
def test_the_label_with_most_weight_wins(columns: dict[str, list[Value]], expected: list[Value]) -> None:
    """Labels are whole numbers, truth values and texts."""
    assert voted(columns, THIRDS, "classification") == expected


def test_weights_decide() -> None:
    """One heavy member outvotes two light ones; sums that differ only by rounding are a tie."""
    assert voted({"a": [1], "b": [0], "c": [0]}, weighted(a=3, b=1, c=1), "classification") == [1]
    assert voted({"a": [5], "b": [5], "c": [4]}, weighted(a=0.1, b=0.2, c=0.3), "classification") == [4]


@pytest.mark.parametrize("cell", [0.5, None, [1, 2], {"a": 1}, math.nan, math.inf, 1e300])
def test_what_is_no_label(cell: Value) -> None:
    """The member that answered it is named."""
    with pytest.raises(ServingError) as caught:
        voted({"a": [1], "b": [cell]}, weighted(a=1, b=1), "classification")
    assert caught.value.kind is Kind.MODEL_FAILED
    assert caught.value.message.startswith("member 'b' answered ")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"a": [1.0, 2], "b": [3.0, 4]}, [2.5, 3.5]),
        ({"a": [[1.0, 0]], "b": [[0, 1]]}, [[0.25, 0.75]]),
        ({"a": [[1.0], [2.0]], "b": [[3], [4]]}, [[2.5], [3.5]]),
        ({"a": [[1.0], [2.0]], "b": [3, 4]}, [2.5, 3.5]),
        ({"a": [True], "b": [False]}, [0.25]),
        ({"a": [], "b": []}, []),
    ],
)
def test_the_weighted_mean(columns: dict[str, list[Value]], expected: list[Value]) -> None:
    """Element by element; [n] and [n, 1] are one shape."""
    assert voted(columns, weighted(a=1, b=3), "regression") == expected


@pytest.mark.parametrize("column", [["x"], [None], [[1], [1, 2]], [{"a": 1}], [2**70]])
def test_what_is_no_number(column: list[Value]) -> None:
    """Texts, nulls, ragged lists: the member that answered them is named."""
    with pytest.raises(ServingError) as caught:
        voted({"a": [1.5] * len(column), "b": column}, weighted(a=1, b=1), "regression")
    assert caught.value.kind is Kind.MODEL_FAILED
    assert caught.value.message.startswith("member 'b' answered ")


def test_numbers_of_different_shapes() -> None:
    """No mean of a number and a vector is made up."""
    with pytest.raises(ServingError, match=r"\[1\] of 'a', \[1, 2\] of 'b'"):
        voted({"a": [1.5], "b": [[1.5, 2]]}, weighted(a=1, b=1), "regression")


def test_a_member_without_weight_does_not_count() -> None:
    """Not even by an answer that is no number."""
    assert voted({"a": [1.5], "b": [math.nan]}, weighted(a=1, b=0), "regression") == [1.5]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"a": [1, 2], "b": [2.0, 3]}, "classification"),
        ({"a": ["x"], "b": ["y"]}, "classification"),
        ({"a": [1, 2.5], "b": [2, 3]}, "regression"),
        ({"a": [[0.1, 0.9]]}, "regression"),
        ({"a": [], "b": []}, ""),
    ],
)
def test_the_type_is_told_by_the_answers(columns: dict[str, list[Value]], expected: str) -> None:
    """All labels: classification. No answers decide nothing."""
    assert decided(columns) == expected


def test_the_type_is_told_by_declarations() -> None:
    """Where all members declare the same; a float of 2.0 is then no label."""
    whole, text, number = TensorSpec("y", INT64, None), TensorSpec("y", BYTES, None), TensorSpec("y", FP32, None)
    assert declared([whole, text]) == "classification"
    assert declared([number, number]) == "regression"
    assert declared([whole, number]) == ""
    assert declared([number, None]) == ""
    assert declared([number, TensorSpec("y", None, None)]) == ""


def test_against_a_second_opinion() -> None:
    """Random votes against numpy: bincount for labels, average for numbers."""
    random.seed(31)
    for _ in range(200):
        members = [f"m{i}" for i in range(random.randint(1, 6))]
        rows = random.randint(1, 5)
        raw = [random.randint(0, 7) + 0.25 for _ in members]
        weights = normalised(dict(zip(members, raw, strict=True)), members, "r")
        labels = {m: [random.randint(0, 3) for _ in range(rows)] for m in members}
        expected = [int(np.argmax(np.bincount([labels[m][row] for m in members], raw))) for row in range(rows)]
        assert voted(labels, weights, "classification") == expected
        values = {m: [random.random() for _ in range(rows)] for m in members}
        mean = np.average([values[m] for m in members], axis=0, weights=raw)
        assert np.allclose(voted(values, weights, "regression"), mean)
