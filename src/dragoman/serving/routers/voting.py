"""How a VotingEnsemble makes one answer of its members' answers (MLRun requirement M31). Pure; called by answers.py.

Classification counts weights per label: whole numbers, truth values or texts. Of labels with equal weight the lowest wins, numbers before
texts. Regression is the weighted mean, element by element, so that members may answer vectors such as probabilities, too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.tensors import Array, TensorSpec, Value

CLASSIFICATION = "classification"
REGRESSION = "regression"
VOTE_TYPES = (CLASSIFICATION, REGRESSION)
_BY_KIND: Mapping[str, str] = {**dict.fromkeys(("bool", "uint", "int", "bytes"), CLASSIFICATION), "float": REGRESSION}
"""Kind of a declared datatype -> the type of vote."""

_MOST = 2.0**53
"""Floats beyond are no whole numbers that anybody counted."""
_CLOSE = 1e-9
"""Sums of weights that differ by less, relatively, are equal: 0.1 + 0.2 is 0.3 here."""


def normalised(given: Value, members: Sequence[str], router: str) -> dict[str, float]:
    """A weight for each member, their sum 1: equal ones for None, 0 for a member that is not in `given`.

    Raises INVALID_INPUT for weights that are no numbers from 0, that name strangers, or that are all 0.
    """
    if given is None:
        return dict.fromkeys(members, 1 / len(members))
    if not isinstance(given, Mapping):
        raise invalid(f"the weights of router '{router}' must be an object with a number for each member")
    for name, weight in given.items():
        if name not in members:
            raise invalid(f"the weights of router '{router}' name '{name}', which is none of its members {', '.join(members)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
            raise invalid(f"the weight of member '{name}' of router '{router}' is {weight!r}, expected a number from 0")
    total = math.fsum(given.values())
    if not total:
        raise invalid(f"all weights of router '{router}' are 0")
    return {name: given.get(name, 0) / total for name in members}


def declared(predictions: Sequence[TensorSpec | None]) -> str:
    """The type of vote that the members' own declarations ask for; "" where they say nothing, or not the same."""
    types = {"" if each is None or each.datatype is None else _BY_KIND.get(each.datatype.kind, "") for each in predictions}
    return types.pop() if len(types) == 1 else ""


def decided(columns: Mapping[str, Sequence[Value]]) -> str:
    """The type of vote that these answers ask for: classification when all of them are labels, "" when there are none."""
    cells = [cell for column in columns.values() for cell in column]
    if not cells:
        return ""
    return CLASSIFICATION if all(_label(cell) is not None for cell in cells) else REGRESSION


def voted(columns: Mapping[str, Sequence[Value]], weights: Mapping[str, float], vote_type: str) -> list[Value]:
    """One value per data point. `columns` are the answers by member, of equal length. Raises MODEL_FAILED for what cannot be voted on."""
    return _majority(columns, weights) if vote_type == CLASSIFICATION else _mean(columns, weights)


def _majority(columns: Mapping[str, Sequence[Value]], weights: Mapping[str, float]) -> list[Value]:
    labels = [(weights[member], _labels(column, member)) for member, column in columns.items()]
    result = []
    for index in range(len(next(iter(columns.values()), ()))):
        tally: dict[Value, float] = {}
        for weight, column in labels:
            tally[column[index]] = tally.get(column[index], 0.0) + weight
        most = max(tally.values())
        result.append(min((label for label, sum_ in tally.items() if math.isclose(sum_, most, rel_tol=_CLOSE)), key=_order))
    return result


def _order(label: Value) -> tuple[bool, Any]:
    return (isinstance(label, str), label)


def _labels(column: Sequence[Value], member: str) -> list[Value]:
    labels = []
    for cell in column:
        label = _label(cell)
        if label is None:
            raise ServingError(
                Kind.MODEL_FAILED, f"member '{member}' answered {_shown(cell)}, which is no label: expected a whole number or a text"
            )
        labels.append(label)
    return labels


def _label(cell: Value) -> Value:
    """The label that a cell holds, None for anything else."""
    cell = alone(cell)
    if isinstance(cell, bool | int | str):
        return cell
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) <= _MOST else None


def alone(cell: Value) -> Value:
    """A prediction without the list of one around it that a tensor of shape [n, 1] has."""
    while isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    return cell


def _mean(columns: Mapping[str, Sequence[Value]], weights: Mapping[str, float]) -> list[Value]:
    arrays = {member: numbers(column, member) for member, column in columns.items()}
    mean = averaged(arrays, weights)
    if mean is None:
        shapes = ", ".join(f"{list(array.shape)} of '{member}'" for member, array in arrays.items())
        raise ServingError(Kind.MODEL_FAILED, f"the members answered numbers of different shapes: {shapes}")
    result: list[Value] = mean.tolist()
    return result


def numbers(column: Value, member: str) -> Array:
    """An answer as an array of numbers. Raises MODEL_FAILED for anything else."""
    try:
        array = np.asarray(column)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise ServingError(Kind.MODEL_FAILED, f"member '{member}' answered {_shown(column)}, expected numbers of one shape")
    return array.astype(np.float64, copy=False)


def averaged(arrays: Mapping[str, Array], weights: Mapping[str, float]) -> Array | None:
    """The weighted mean, None for arrays of different shapes; [n] and [n, 1] are one."""
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1:
        arrays = {member: _squeezed(array) for member, array in arrays.items()}
        if len({array.shape for array in arrays.values()}) > 1:
            return None
    return np.asarray(sum(weights[member] * array for member, array in arrays.items() if weights[member]))


def _squeezed(array: Array) -> Array:
    while array.ndim > 1 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def _shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
