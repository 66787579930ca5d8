"""Request bodies and queries: small objects, in JSON as people write it, or in YAML. Called by the handlers of this folder.

The documented example ends in a trailing comma, which a strict reader refuses; here it is read (requirement R5).
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects import Request
from dragoman.dialects.compression import inflated
from dragoman.dialects.documents import as_object, parsed
from dragoman.serving import yaml_text

LARGEST = 1 << 20
"""Bytes of a body, also when it is inflated: what is told here is a few names and texts."""
_LONGEST_QUERY = 16 << 10

_JSON = re.compile(rb"(?:(?:application|text)/(?:[a-z0-9!#$&^_.+-]+\+)?json|application/x-www-form-urlencoded)\s*(?:;|\Z)", re.IGNORECASE)
"""curl says that -d is a form where nobody tells it otherwise; what it sends is the JSON all the same."""
_YAML = re.compile(rb"(?:application|text)/(?:[a-z0-9!#$&^_.+-]+\+|x-)?yaml\s*(?:;|\Z)", re.IGNORECASE)

_STRING_OR_COMMA = re.compile(rb'("(?:[^"\\]++|\\.)*+"?)|,(?=[ \t\r\n]*+[}\]])', re.DOTALL)
"""Strings first, so that a comma inside one is passed over; possessive, so that a string without an end costs one pass."""

_MARK = b"\xef\xbb\xbf"
_WHAT = "the request body"


async def document(request: Request) -> Mapping[str, Any]:
    """The object that a body is.

    Raises UNSUPPORTED what="media" (415) for a type that is neither JSON nor YAML, UNSUPPORTED what="encoding", TOO_LARGE above LARGEST, and
    INVALID_INPUT with line and column for what cannot be read. A body whose type is not said is JSON. DELETE never declared what it takes:
    there any other text is YAML, as in the original.
    """
    declared = (request.header(b"content-type") or b"").strip()
    yaml = _YAML.match(declared) is not None
    if declared and not yaml and not _JSON.match(declared):
        yaml = request.method == "DELETE" and declared.lower().startswith(b"text/")
        if not yaml:
            shown = declared[:100].decode("latin-1")
            raise ServingError(Kind.UNSUPPORTED, f"Content-Type is {shown!r}, expected application/json or application/yaml", what="media")
    body = await _read(request)
    return yaml_text.mapping(body, _WHAT) if yaml else json_object(body)


def json_object(body: bytes) -> Mapping[str, Any]:
    """An object in JSON; commas before a closing bracket do not matter. Raises INVALID_INPUT."""
    body = body.removeprefix(_MARK)
    if not body.strip():
        raise invalid(f"{_WHAT} is empty, expected a JSON object", "body")
    try:
        value = parsed(body, _WHAT)
    except ServingError as first:
        try:
            value = parsed(_STRING_OR_COMMA.sub(rb"\1", body), _WHAT)
        except ServingError:
            raise first from None
    return as_object(value, _WHAT)


def query(request: Request) -> Mapping[str, str]:
    """The parameters behind the question mark; of one that comes twice the first. Raises INVALID_INPUT for an overlong query or no UTF-8."""
    if len(request.query) > _LONGEST_QUERY:
        raise invalid(f"the query is longer than {_LONGEST_QUERY} bytes", "query")
    try:
        found = parse_qs(request.query.decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise invalid("the query is not UTF-8", "query") from None
    return {name: values[0] for name, values in found.items()}


async def _read(request: Request) -> bytes:
    parts, size = [], 0
    while part := await request.read():
        size += len(part)
        if size > LARGEST:
            raise ServingError(Kind.TOO_LARGE, f"{_WHAT} is larger than the limit of {LARGEST} bytes", what="body")
        parts.append(part)
    return await inflated(b"".join(parts), request.header(b"content-encoding"), LARGEST)
