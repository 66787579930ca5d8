"""Request bodies that are one JSON object and hold no tensors. Shared by the protocols that have such requests, and the console.

What types of bodies a protocol takes, how large they may be and what an empty one means are its own; so are the words around these errors.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from dragoman.core.errors import invalid
from dragoman.dialects import Request
from dragoman.dialects.compression import inflated

_LONGEST = 60
_KINDS = {type(None): "null", list: "a list", str: "a text", bool: "true or false"}


async def json_object(request: Request, limit: int) -> dict[str, Any]:
    """The object that a body is, inflated to `limit` bytes at most; {} for an empty one. Raises as `object_of` and `inflated`."""
    body = await inflated(await request.body(), request.header(b"content-encoding"), limit)
    return object_of(body) if body.strip() else {}


def object_of(body: bytes, called: str = "the body") -> dict[str, Any]:
    """Raises INVALID_INPUT (what="body") with line and column for what is no JSON, and for JSON that is no object."""
    return as_object(parsed(body, called), called)


def parsed(body: bytes, called: str = "the body") -> Any:
    """The JSON of a body. Raises INVALID_INPUT (what="body")."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        place = f" (line {fault.lineno} column {fault.colno})" if fault.doc else ""
        raise invalid(f"{called} is not valid JSON: {fault.msg}{place}", "body") from None


def as_object(value: object, called: str = "the body") -> dict[str, Any]:
    """The value again. Raises INVALID_INPUT (what="body") for one that is no object."""
    if not isinstance(value, dict):
        kind = _KINDS.get(type(value), "a number")
        raise invalid(f"{called} is {kind}, expected a JSON object", "body")
    return value


def shown(value: object) -> str:
    """A JSON value in an error. Lists and objects are not looked into: they may be large, or deeper than Python can print."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "an object"
    written = repr(value)
    return written if len(written) <= _LONGEST else f"{written[:_LONGEST]}..."
