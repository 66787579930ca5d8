"""How heavy rows are, about, without encoding them: for bounds on memory, and to know what is too long for the event loop."""

import numpy as np

from dragoman.core.tensors import Blob, Value

OFF_LOOP_BYTES = 512 * 1024
"""Packing so much takes about a millisecond."""


def weigh(value: Value) -> int:
    """Bytes that a value takes in memory, within a factor of a few. What is nested too deeply counts as large; packing it will say why not."""
    try:
        return _weigh(value)
    except RecursionError:
        return OFF_LOOP_BYTES


def _weigh(value: Value) -> int:
    if isinstance(value, str | bytes):
        return 50 + len(value)
    if isinstance(value, dict):
        return 60 + sum(60 + _weigh(item) for item in value.values())
    if isinstance(value, list):
        if value and isinstance(value[0], int | float):  # a long list of numbers: the rest is not looked at
            return 60 + 40 * len(value)
        return 60 + sum(map(_weigh, value))
    if isinstance(value, Blob):
        return 100 + len(value.data)
    if isinstance(value, np.ndarray):
        return 100 + int(value.nbytes)
    return 30
