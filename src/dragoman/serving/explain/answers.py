"""The numbers in a model's answer that are explained. Pure; called by explained.py."""

from typing import Any

import numpy as np

from dragoman.core.convert import UNNAMED
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.tensors import BF16, Array, Failure, Rows, Tensors, Value, widened

_MOST_NUMBERS = 1000
"""Per data point: classes of a classifier."""


def chosen_output(answer: Tensors | Rows, wanted: str, model: str) -> str:
    """The name of the output: the wanted one, else the first of fractions (probabilities rather than labels), else the first of numbers.

    Raises INVALID_INPUT where there is none of these.
    """
    found = _columns(answer, model)
    if wanted:
        if wanted not in found:
            raise invalid(f"model '{model}' has no output '{wanted}' to be explained; it answers {', '.join(found) or 'nothing'}")
        return wanted
    kinds = {name: _array(value).dtype.kind for name, value in found.items()}
    for suitable in ("f", "iub"):
        for name, kind in kinds.items():
            if kind in suitable:
                return name
    raise invalid(f"model '{model}' cannot be explained: none of its outputs {', '.join(found)} is a number")


def numbers(answer: Tensors | Rows, output: str, expected: int, model: str) -> Array:
    """One number, or one list of them, per data point. Raises MODEL_FAILED for any other answer."""
    found = _columns(answer, model)
    array: Array = _array(found[output]) if output in found else np.empty(0)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or len(array) != expected or array.dtype.kind not in "fiub" or array[:1].size > _MOST_NUMBERS:
        raise ServingError(
            Kind.MODEL_FAILED,
            f"output '{output}' of model '{model}' cannot be explained: expected a number or a list of at most {_MOST_NUMBERS} per data point",
        )
    return array.astype(np.float64)


def _columns(answer: Tensors | Rows, model: str) -> dict[str, Value]:
    if isinstance(answer, Tensors):
        return {t.name: widened(t.array) if t.datatype is BF16 else t.array for t in answer.items}
    for row in answer.items:
        if isinstance(row, Failure):
            raise ServingError(Kind.MODEL_FAILED, row.message, trace=row.trace)
    rows = [row if isinstance(row, dict) else {UNNAMED: row} for row in answer.items]
    return {name: [row.get(name) for row in rows] for name in (rows[0] if rows else ())}


def _array(value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError:  # lists of different lengths
        return np.empty(0, object)


__all__ = ["chosen_output", "numbers"]
