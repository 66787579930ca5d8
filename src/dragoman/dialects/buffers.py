"""Arrays out of the raw bytes of a request, and the raw bytes of an array for an answer. Called by the codecs of binary tensors."""

from typing import Any

import numpy as np

from dragoman.core.tensors import Array, Datatype

_ALIGNMENT = 64
_ALIGN_FROM = 1 << 12
"""Bytes from which a cache line of alignment is worth the 2 us that it costs; below, malloc's 16 bytes do."""


def owned(part: memoryview | bytes, datatype: Datatype) -> Array:
    """A flat array of its own memory, native, aligned and writable, holding the elements that `part` is made of.

    Any byte but 0 is true of BOOL: a numpy bool must not hold anything but 0 and 1. Raises ValueError for half an element, and for BYTES.
    """
    if datatype.kind == "bool":
        truth: Array = np.frombuffer(part, np.uint8) != 0
        return truth
    size = len(part)
    if size < _ALIGN_FROM:
        return np.frombuffer(part, datatype.numpy).copy()
    store = np.empty(size + _ALIGNMENT, np.uint8)
    start = -store.__array_interface__["data"][0] % _ALIGNMENT
    target = store[start : start + size]
    target[:] = np.frombuffer(part, np.uint8)
    array: np.ndarray[Any, Any] = target.view(datatype.numpy)
    return array


def raw(array: Array, datatype: Datatype) -> memoryview:
    """The bytes of an array in C order, little-endian: a view where it is laid out so. `len` counts bytes. Not for BYTES."""
    return np.ascontiguousarray(array, datatype.numpy).reshape(-1).view(np.uint8).data
