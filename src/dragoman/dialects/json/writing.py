"""Arrays as JSON text, straight from their buffers where orjson can. Called by the codecs through `dragoman.dialects.json`."""

from typing import Any, Literal

import numpy as np
import orjson

from dragoman.core.tensors import BF16, BYTES, Array, Datatype, widened


class NotJsonError(ValueError):
    """The array holds what JSON cannot carry, and the caller asked not to have it replaced. The message says what."""


def array_json(
    array: Array,
    datatype: Datatype,
    *,
    nested: bool,
    nonfinite: Literal["null", "tokens", "error"],
    text: Literal["replace", "error"] = "error",
) -> bytes:
    """One JSON value: lists nested as the array's shape (0-d: the bare element), or one flat list (0-d: a list of one).

    Any layout, byte order and rank is taken. Floats are the shortest text that reads back as the same float of their own width, and whole
    ones keep `.0` or an exponent; integers are exact. `nonfinite` says what NaN and infinities become: null, the bare tokens NaN,
    Infinity and -Infinity (which is not JSON), or NotJsonError. `text` says the same of BYTES that are not UTF-8: U+FFFD or NotJsonError.
    """
    if datatype is BYTES:
        return _bytes_json(array, nested, text)
    if datatype is BF16:
        array = widened(array)
    if not nested and array.ndim != 1:
        array = array.ravel()
    try:
        made = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # 0-d, not contiguous, or of the other byte order
        made = _in_order_json(array, datatype)
    if b"n" in made:  # only null has an n: one memchr, no numpy call for small arrays
        if nonfinite == "error":
            raise NotJsonError("it holds NaN or infinity, which JSON cannot carry")
        if nonfinite == "tokens":
            return _with_tokens(made, array)
    return made


def cells_json(array: Array, datatype: Datatype, *, nonfinite: Literal["null", "tokens", "error"]) -> list[bytes]:
    """`array_json` of every element along the first axis. Not for BYTES.

    Numbers are written at once and the text is cut where an element ends: no number has a bracket or a comma in it.
    """
    if not array.size:
        return [orjson.dumps(cell) for cell in array.tolist()]
    inner = array.ndim - 1
    text = array_json(array, datatype, nested=True, nonfinite=nonfinite)[1 + inner : -1 - inner]
    opening, closing = b"[" * inner, b"]" * inner
    return [opening + cell + closing for cell in text.split(closing + b"," + opening)]


def fragment(
    array: Array,
    datatype: Datatype,
    *,
    nested: bool,
    nonfinite: Literal["null", "tokens", "error"],
    text: Literal["replace", "error"] = "error",
) -> orjson.Fragment:
    """`array_json` as a value to put into an object that `orjson.dumps` writes."""
    return orjson.Fragment(array_json(array, datatype, nested=nested, nonfinite=nonfinite, text=text))


def _in_order_json(array: Array, datatype: Datatype) -> bytes:
    native: Any = np.array(array, array.dtype.newbyteorder("="), order="C")
    try:
        return orjson.dumps(native if native.ndim else native[()], option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        raise NotJsonError(f"{datatype} cannot be written in JSON") from None


def _bytes_json(array: Array, nested: bool, text: str) -> bytes:
    try:
        words = [item.decode("utf-8", "replace" if text == "replace" else "strict") for item in array.ravel().tolist()]
    except UnicodeDecodeError:
        raise NotJsonError("it holds bytes that are not UTF-8, which JSON cannot carry") from None
    if not nested or array.ndim == 1:
        return orjson.dumps(words)
    shaped: Array = np.empty(len(words), object)
    shaped[:] = words
    return orjson.dumps(shaped.reshape(array.shape).tolist())


def _with_tokens(made: bytes, array: Array) -> bytes:
    odd = array[~np.isfinite(array)].tolist()
    pieces = made.split(b"null")
    out = [pieces[0]]
    for value, piece in zip(odd, pieces[1:], strict=True):
        out.append(b"NaN" if value != value else b"Infinity" if value > 0 else b"-Infinity")
        out.append(piece)
    return b"".join(out)
