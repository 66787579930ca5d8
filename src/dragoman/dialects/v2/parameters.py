"""Reading a request's JSON, and its parameters: which steer the server (time-out, priority, binary output), which go to the model.

Called by the codecs of both protocols of this folder, and by generate.

Values are strings, numbers and booleans. Null counts as not given, because clients made from data classes send their empty fields so.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.core.errors import invalid
from dragoman.core.model import EMPTY
from dragoman.dialects.json import JsonSyntaxError, loads

_SHARED_MEMORY = frozenset({"shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"})

_SCALARS = frozenset({str, int, float, bool})
_RESERVED = "triton_"
_UINT64 = 1 << 64


def _unsigned(value: Any) -> bool:
    return type(value) is int and 0 <= value < _UINT64


def _flag(value: Any) -> bool:
    return type(value) is bool


_KNOWN: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "timeout": (_unsigned, "a non-negative integer (microseconds)"),
    "priority": (_unsigned, "a non-negative integer"),
    "binary_data_output": (_flag, "true or false"),
    "sequence_id": (lambda value: _unsigned(value) or type(value) is str, "a non-negative integer or a string"),
    "sequence_start": (_flag, "true or false"),
    "sequence_end": (_flag, "true or false"),
}
_OURS = frozenset({"timeout", "priority", "binary_data_output", "content_type"})
"""What the model does not get to see."""


@dataclass(slots=True)
class Steering:
    """What the parameters of one request say. `parameters` is what is left for the model."""

    parameters: Mapping[str, Any] = EMPTY
    deadline: float = math.inf
    priority: int = 0
    binary: bool = False
    """Outputs that the request does not name come back as binary data."""


def steer(given: object, model: str) -> Steering:
    """Check and sort the parameters of a request. Raises INVALID_INPUT for a bad value and for reserved names."""
    if type(given) is not dict:
        raise invalid(f"the parameters of the request to model '{model}' must be an object, not {kind(given)}")
    kept: dict[str, Any] = {}
    for key, value in given.items():
        if value is None:
            continue
        if type(value) not in _SCALARS:
            raise invalid(f"parameter '{key}' of the request to model '{model}' must be a string, number or boolean, not {kind(value)}")
        if key.startswith(_RESERVED):
            raise invalid(
                f"parameter '{key}' of the request to model '{model}' is refused: names that begin with '{_RESERVED}' are reserved"
            )
        known = _KNOWN.get(key)
        if known is not None and not known[0](value):
            raise invalid(f"parameter '{key}' of the request to model '{model}' must be {known[1]}, not {text(value)}")
        kept[key] = value
    if not kept:
        return Steering()
    timeout_us = kept.get("timeout", 0)
    return Steering(
        {k: v for k, v in kept.items() if k not in _OURS},
        time.monotonic() + timeout_us / 1e6 if timeout_us else math.inf,
        kept.get("priority", 0),
        kept.get("binary_data_output", False),
    )


def tensor_parameters(given: object, where: str) -> dict[str, Any]:
    """The parameters of one input or requested output. Raises INVALID_INPUT for a bad value and for shared memory regions."""
    if type(given) is not dict:
        raise invalid(f"the parameters of {where} must be an object, not {kind(given)}")
    for key, value in given.items():
        if value is not None and type(value) not in _SCALARS:
            raise invalid(f"parameter '{key}' of {where} must be a string, number or boolean, not {kind(value)}")
    if not _SHARED_MEMORY.isdisjoint(given):
        raise invalid(f"{where} asks for shared memory, which this server does not offer; send and receive the data in the request itself")
    return given


_KINDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", dict: "an object"}


def parsed(document: bytes | memoryview, called: str) -> dict[str, Any]:
    """The JSON object that a body is, with NumberList for long lists. Raises INVALID_INPUT (what="body") for anything else."""
    try:
        found = loads(document)
    except JsonSyntaxError as error:
        raise invalid(f"{called} is not valid JSON: {error}", "body") from None
    if type(found) is not dict:
        raise invalid(f"{called} must be a JSON object, not {kind(found)}", "body")
    return found


def kind(value: object) -> str:
    """What a parsed JSON value is, for messages."""
    return _KINDS.get(type(value), "a list")


def text(value: object) -> str:
    """A value as it is quoted in messages: short, whatever came. Lists and objects may be large, or deeper than Python can print."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            shown = repr(value[:80])
        case int() | float():
            shown = repr(value)
        case _:
            return kind(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
