"""One JSON value to one array, by TensorFlow Serving's rules: which datatypes JSON can carry, and base64 objects.

Called by decode.py; the arrays themselves are built by dialects/json.
"""

import binascii
from typing import Any

from dragoman.core import tensors
from dragoman.core.tensors import Array, Datatype
from dragoman.dialects.json import MAX_DEPTH, Fault, NumberList, NumbersError, array_of, is_list
from dragoman.dialects.tfserving.messages import is_b64

NOT_IN_JSON = frozenset({tensors.FP16, tensors.BF16, tensors.UINT16, tensors.COMPLEX64, tensors.COMPLEX128})
"""Datatypes that TensorFlow Serving reads from no JSON value."""


def tensor_of(value: object, datatype: Datatype) -> Array:
    """An array with the nesting of `value` as its shape. Raises NumbersError, whose path leads through `value`."""
    if datatype in NOT_IN_JSON:
        raise NumbersError(Fault.DATATYPE, datatype, *_first(value))
    if datatype is tensors.BYTES:
        value = with_bytes(value)
    return array_of(value, datatype)


def offender(value: object, path: tuple[int, ...]) -> object:
    """What stands at the path of a NumbersError."""
    node: Any = value
    for index in path:
        node = node.tolist()[index] if type(node) is NumberList else node[index]
    return node


def with_bytes(value: object, depth: int = 0) -> object:
    """`value` with bytes in the place of every base64 object. One that cannot be decoded stays, and is then refused as an object."""
    if type(value) is dict:
        decoded = _decoded(value) if is_b64(value) else None
        return value if decoded is None else decoded
    if type(value) is list and depth <= MAX_DEPTH and not {dict, list}.isdisjoint(map(type, value)):
        return [with_bytes(item, depth + 1) for item in value]
    return value


def _decoded(value: dict[str, str]) -> bytes | None:
    """Standard alphabet only; padding may be left out, and white space may stand anywhere."""
    text = value["b64"]
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        text = "".join(text.split())
    if not text.endswith("="):
        text += "=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return None


def _first(value: object) -> tuple[tuple[int, ...], object]:
    """Where the first element of a value is, and what it is."""
    path: tuple[int, ...] = ()
    node: Any = value
    while is_list(node) and len(node):
        node = offender(node, (0,))
        path += (0,)
    return path, node
