"""What can be wrong with numeric JSON. Raised by this folder only; each codec turns these into its own protocol's words.

The attributes carry everything that a message needs; `str(error)` is a plain sentence for codecs that have no wording to match.
"""

import math
from enum import Enum, unique

import orjson

from dragoman.core.tensors import Datatype

VALUE_LIMIT = 256
"""Values quoted in messages are cut to this many characters."""


class JsonSyntaxError(ValueError):
    """The text is not JSON. `offset` counts bytes from the start of the text; `reason` is a short phrase in lower case."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"{reason} at offset {offset}")
        self.offset = offset
        self.reason = reason


def syntax_error(exc: orjson.JSONDecodeError, text: bytes) -> JsonSyntaxError:
    """orjson's error for `text`, with an offset in bytes: it counts characters, and does not say where UTF-8 is invalid."""
    if not text:
        return JsonSyntaxError(0, "the document is empty")
    if exc.doc:
        return JsonSyntaxError(len(exc.doc[: exc.pos].encode()), exc.msg)
    try:
        text.decode()
    except UnicodeDecodeError as fault:
        return JsonSyntaxError(fault.start, "invalid UTF-8")
    return JsonSyntaxError(exc.pos, exc.msg)


@unique
class Fault(Enum):
    """Why a JSON value cannot become an array."""

    LENGTH = "length"
    """A list has another length than the first list at its level."""
    LIST = "list"
    """A list stands where the first path has an element."""
    ELEMENT = "element"
    """An element stands where the first path has a list."""
    TYPE = "type"
    """An element is not of the JSON type that the datatype takes."""
    RANGE = "range"
    """An element is of the right type but the datatype cannot hold it."""
    DEPTH = "depth"
    """Lists are nested deeper than `expected`."""
    DATATYPE = "datatype"
    """JSON cannot carry this datatype at all."""


RAGGED = frozenset({Fault.LENGTH, Fault.LIST, Fault.ELEMENT})
"""The faults of nesting: lists that do not form a box."""

_JSON_TYPES = {type(None): "Null", bool: "", int: "Number", float: "Number", str: "String", bytes: "String", dict: "Object"}

EXPECTED = {
    "bool": "true or false",
    "uint": "non-negative integers",
    "int": "integers",
    "float": "numbers",
    "bytes": "strings",
}
"""What each kind of datatype takes in JSON, for messages."""


class NumbersError(ValueError):
    """A JSON value that does not make an array of the wanted datatype. It names the first offender in the order of the text.

    `path`      indexes from the outermost list to the offender; `level` is how many there are (0: the value itself)
    `value`     the offender as JSON text, cut to 256 characters
    `json_type` Null, False, True, Object, Array, String or Number
    `expected`  LENGTH: elements that the list should have; LIST, ELEMENT: levels of lists in the first path; DEPTH: the limit; else 0
    `got`       LENGTH: elements that the list has; else 0
    """

    def __init__(self, fault: Fault, datatype: Datatype, path: tuple[int, ...], value: object, *, expected: int = 0, got: int = 0) -> None:
        super().__init__()
        self.fault = fault
        self.datatype = datatype
        self.path = path
        self.value = _text(value)
        self.json_type = json_type(value)
        self.expected = expected
        self.got = got

    @property
    def level(self) -> int:
        return len(self.path)

    def __str__(self) -> str:
        place = "".join(f"[{index}]" for index in self.path) if len(self.path) < 8 else f"[{self.path[0]}]...[{self.path[-1]}]"
        match self.fault:
            case Fault.DATATYPE:
                return f"{self.datatype} cannot be written in JSON: send it as binary data"
            case Fault.DEPTH:
                return f"lists are nested deeper than {self.expected} levels"
            case Fault.LENGTH:
                return f"the list at {place} has {self.got} elements but the first one at that level has {self.expected}"
            case Fault.LIST:
                return f"there is a list at {place} where an element belongs"
            case Fault.ELEMENT:
                return f"there is {self.value} at {place} where a list belongs"
            case Fault.RANGE:
                return f"{self.value}{' at ' if place else ''}{place} is out of range for {self.datatype}"
        return f"{self.value}{' at ' if place else ''}{place} is not valid for {self.datatype}, which takes {EXPECTED[self.datatype.kind]}"


def json_type(value: object) -> str:
    """What a value is in JSON: Null, False, True, Object, Array, String or Number."""
    if isinstance(value, bool):
        return "True" if value else "False"
    return _JSON_TYPES.get(type(value), "Array")


def _text(value: object) -> str:
    """JSON text of anything that a parsed document can hold, and of what codecs put into one (bytes)."""
    if type(value) is float and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    try:
        text = orjson.dumps(value, default=_stand_in)[: 4 * VALUE_LIMIT + 4].decode("utf-8", "ignore")
    except (TypeError, ValueError):  # an int over 64 bits, a lone surrogate, nesting beyond orjson's limit
        text = repr(value) if isinstance(value, int | str) else type(value).__name__
    return text if len(text) <= VALUE_LIMIT else text[: VALUE_LIMIT - 3] + "..."


def _stand_in(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return list(value) if hasattr(value, "__iter__") else str(type(value).__name__)
