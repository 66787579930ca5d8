"""Bodies of Seldon's protocol: `data` as ndarray or tensor, `strData`, `binData` and `jsonData`. Called by rest.py."""

import binascii
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dragoman.core.errors import ServingError, invalid
from dragoman.core.tensors import element_count
from dragoman.dialects.given import Given
from dragoman.dialects.json import MAX_DEPTH, JsonSyntaxError, is_list, loads
from dragoman.dialects.rows import plain
from dragoman.dialects.tables import Bare, Table


class Form(Enum):
    """How a request was written, and so how its answer is."""

    NDARRAY = "ndarray"
    TENSOR = "tensor"
    TEXT = "strData"
    BINARY = "binData"
    JSON = "jsonData"


@dataclass(slots=True)
class Asked:
    given: Given
    form: Form
    single: bool = False
    """Whether a value came that stands for one row by itself, and not a list of rows."""


def asked(body: bytes) -> Asked:
    """Raises INVALID_INPUT (what="body") for what cannot be read."""
    try:
        return _asked(body)
    except ServingError as error:
        error.what = "body"
        raise


def _asked(body: bytes) -> Asked:
    try:
        tree = loads(body, nonfinite=True)
    except JsonSyntaxError as error:
        raise invalid(f"the body is not JSON: {error}") from None
    if type(tree) is not dict:
        raise invalid("the body must be a JSON object with 'data', 'strData', 'binData' or 'jsonData'")
    found = [key for key in ("data", "strData", "binData", "jsonData") if key in tree]
    if len(found) != 1:
        came = f"it has {' and '.join(found)}" if found else "it has none"
        raise invalid(f"the body must have exactly one of 'data', 'strData', 'binData' and 'jsonData'; {came}")
    value = tree[found[0]]
    match found[0]:
        case "data":
            return _data(value)
        case "strData":
            if type(value) is not str:
                raise invalid("'strData' must be a text")
            return Asked(Bare([value]), Form.TEXT, single=True)
        case "binData":
            return Asked(Bare([_decoded(value)]), Form.BINARY, single=True)
    return _json(value)


def _data(value: Any) -> Asked:
    if type(value) is not dict:
        raise invalid("'data' must be an object with 'ndarray' or 'tensor'")
    names = value.get("names")
    if names is not None:
        if type(names) is not list or not all(type(name) is str for name in names):
            raise invalid("the names of 'data' must be a list of texts")
        names = names or None
    if "ndarray" in value and "tensor" not in value:
        rows = value["ndarray"]
        if not is_list(rows):
            raise invalid("'ndarray' must be a list")
        return Asked(_rows(names, rows, "the ndarray"), Form.NDARRAY)
    if "tensor" in value and "ndarray" not in value:
        return Asked(_rows(names, _nested(value["tensor"]), "the tensor"), Form.TENSOR)
    raise invalid("'data' must have either 'ndarray' or 'tensor'; no other form of it is read here")


def _rows(names: list[str] | None, rows: Any, where: str) -> Given:
    """A table where there are rows of cells; a plain list is one cell per row."""
    if names is None and not _of_lists(rows):
        return Bare(rows)
    return Table.of_rows(names, rows if _of_lists(rows) or not len(rows) else [[cell] for cell in plain(rows)], where)


def _of_lists(rows: Any) -> bool:
    shape = getattr(rows, "shape", None)
    return len(shape) > 1 if shape is not None else bool(rows) and is_list(rows[0])


def _nested(tensor: Any) -> list[Any]:
    """The values of a tensor in lists as its shape says, where one -1 stands for whatever is left."""
    values: Any = tensor.get("values") if type(tensor) is dict else None
    if not is_list(values):
        raise invalid("'tensor' must be an object with 'shape' and 'values', a list")
    shape, flat = tensor.get("shape"), list(values)
    if shape is None:
        shape = [len(flat)]
    if type(shape) is not list or not shape or len(shape) > MAX_DEPTH or not all(type(size) is int and size >= -1 for size in shape):
        raise invalid("the shape of the tensor must be a list of sizes, of which one may be -1")
    known = element_count(size for size in shape if size != -1)
    if shape.count(-1) == 1 and known and not len(flat) % known:
        shape[shape.index(-1)] = len(flat) // known
    if -1 in shape or element_count(shape) != len(flat):
        raise invalid(f"{len(flat)} values do not make a tensor of the shape {shape}")
    if not flat:
        return []
    for size in reversed(shape[1:]):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)]
    return flat


def _decoded(value: Any) -> bytes:
    if type(value) is not str:
        raise invalid("'binData' must be base64 in a text")
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise invalid("'binData' is not base64") from None


def _json(value: Any) -> Asked:
    if type(value) is dict:
        return Asked(Table.of_records([value], "'jsonData'"), Form.JSON, single=True)
    if type(value) is list and value and type(value[0]) is dict:
        return Asked(Table.of_records(value, "'jsonData'"), Form.JSON)
    return Asked(Bare(value if is_list(value) else [value]), Form.JSON, single=not is_list(value))
