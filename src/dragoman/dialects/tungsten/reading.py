"""Request bodies and queries of Tungsten's routes, read as the original reads them. Called by rest.py, demo.py and files.py."""

import json
import math
import re
from typing import Any
from urllib.parse import parse_qs

import orjson

from dragoman.core.errors import ServingError
from dragoman.dialects import Request
from dragoman.dialects.compression import inflated
from dragoman.dialects.tungsten.errors import ROOT, faulty

LONGEST_WAIT_S = 60.0
"""A long poll is answered after this time whatever it asked for: proxies cut longer silences."""

_JSON = re.compile(rb"application/([A-Za-z0-9!#$&^_.+-]+\+)?json\s*(;|\Z)", re.IGNORECASE)
_REREAD = 1 << 20
_QUERY_LIMIT = 16 << 10


async def document(request: Request, max_inflated: int) -> Any:
    """The JSON of a body. INVALID_INPUT for none, for null, for what is no JSON, and for what is not declared to be any.

    As in the original a request without Content-Type is JSON, and one of another type is not looked at: it is not a list.
    """
    body = await content(request, max_inflated)
    if not body:
        raise _missing()
    declared = request.header(b"content-type")
    if declared and not _JSON.match(declared.strip()):
        context: dict[str, object] = {"expected": "application/json", "content_type": declared[:100].decode("latin-1")}
        raise faulty(*ROOT, msg="value is not a valid list", code="type_error.list", context=context)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise _no_json(body, exc) from None
    if value is None:
        raise _missing()
    return value


async def content(request: Request, max_inflated: int) -> bytes:
    """The body as it was before it was compressed."""
    body = await request.body()
    encoding = request.header(b"content-encoding")
    return body if encoding is None else await inflated(body, encoding, max_inflated)


def query(request: Request) -> dict[str, str]:
    """The query's parameters; of one that comes twice the first. INVALID_INPUT for an overlong one."""
    if not request.query:
        return {}
    if len(request.query) > _QUERY_LIMIT:
        raise faulty("query", msg=f"the query is longer than {_QUERY_LIMIT} bytes", code="value_error")
    found = parse_qs(request.query.decode("latin-1"), keep_blank_values=True, max_num_fields=None)
    return {name: values[0] for name, values in found.items()}


def wait_s(parameters: dict[str, str]) -> float:
    """How long `?wait=` asks to wait, at most LONGEST_WAIT_S; 0 where it does not ask."""
    asked = parameters.get("wait", "")
    if not asked:
        return 0.0
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise faulty("query", "wait", msg="value is not a valid number of seconds", code="type_error.float")
    return min(seconds, LONGEST_WAIT_S)


def flag(parameters: dict[str, str], name: str) -> bool:
    """Whether a parameter is there and not plainly off."""
    return parameters.get(name, "0").lower() not in ("0", "false", "no", "off")


def _no_json(body: bytes, fault: json.JSONDecodeError) -> ServingError:
    """The original reads with the standard library, so its places and words are that library's."""
    if len(body) <= _REREAD:
        try:
            json.loads(body)
        except json.JSONDecodeError as exc:
            fault = exc
        except (ValueError, RecursionError):  # no UTF-8, or too deep
            pass
    return faulty("body", fault.pos, msg="JSON decode error", code="json_invalid", context={"error": fault.msg})


def _missing() -> ServingError:
    return faulty("body", msg="field required", code="value_error.missing")
