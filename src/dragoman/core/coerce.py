"""Single values as pydantic 1 would read them: "7" is an integer, 2.7 is 2, a number is a text. Called by rows.py, which knows where they stand.

Also whether a text can be a file: `data:`, bare base64, or something to fetch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from dragoman.core.errors import Problem
from dragoman.core.tensors import Blob, Value

Path: TypeAlias = tuple[str | int, ...]
Check: TypeAlias = Callable[[Any], Value]
"""Returns the coerced value or raises RefusedError."""

_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]+={0,2}\s*")
_FETCHED = frozenset({"http", "https"})


class RefusedError(Exception):
    """What is wrong with one value; paths are relative to it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__()
        self.problems = problems


def refuse(code: str, message: str, path: Path = (), **context: object) -> RefusedError:
    """One problem, to raise."""
    return RefusedError([Problem(path, code, message, context)])


def anything(value: Any) -> Value:
    """For fields that declare no type."""
    return value


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, int | float | str):
        try:
            return int(value)
        except (ValueError, OverflowError):  # no number, not finite, or more digits than Python reads
            pass
    raise refuse("type_error.integer", "value is not a valid integer")


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, int | float | str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise refuse("type_error.float", "value is not a valid float")


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError:  # more digits than Python writes
            pass
    elif isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    raise refuse("type_error.str", "str type expected")


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    if isinstance(value, str):
        word = value.lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    elif isinstance(value, int | float) and value in (0, 1):
        return value == 1
    raise refuse("type_error.bool", "value could not be parsed to a boolean")


SCALARS: Mapping[Any, Check] = {"integer": _integer, "number": _float, "string": _text, "boolean": _boolean}


def file(value: Any) -> Value:
    """A file as it was sent: content, or the text that says where it is. What the text brings is decoded or fetched later."""
    if isinstance(value, Blob):
        return value
    if isinstance(value, bytes):
        return Blob(value)
    if not isinstance(value, str):
        raise _bad_file("Invalid file input")
    found = _SCHEME.match(value)
    if found is None:
        if _BASE64.fullmatch(value) is None:
            raise _bad_file("Invalid file input")
        return value
    scheme = found[1].lower()
    if scheme in _FETCHED:
        return value
    if scheme == "data":
        if "," not in value:
            raise _bad_file("Invalid file input")
        return value
    if scheme == "file" and not value[5:].startswith("///") and value[5:].startswith("//"):
        raise _bad_file("Remote files are not supported")
    raise _bad_file("Unsupported URI scheme")


def _bad_file(message: str) -> RefusedError:
    return refuse("value_error", message, ("__root__",))
