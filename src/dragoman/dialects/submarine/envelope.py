"""The envelope that every answer of this dialect is: six keys in one order, nulls written. Called by every module of this folder.

Requirements R1 and R2 are this module. The original answered some bad requests with 200 and some with the container's HTML; here every error
is an envelope whose `code` is the HTTP status.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer, check_table
from dragoman.dialects.refusals import headers, words

MEDIA_TYPE = b"application/json; charset=utf-8"

STATUS: Mapping[Kind, int] = {
    Kind.INVALID_INPUT: 400,
    Kind.NOT_FOUND: 404,
    Kind.NOT_READY: 503,
    Kind.CONFLICT: 409,
    Kind.OVERLOADED: 503,
    Kind.TIMEOUT: 504,
    Kind.CANCELLED: 400,
    Kind.MODEL_FAILED: 409,
    Kind.UNSUPPORTED: 400,
    Kind.UNAVAILABLE: 503,
    Kind.TOO_LARGE: 413,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.INTERNAL: 500,
}
"""A model that cannot be served is a 409, not a 5xx: clients send 5xx again, and the same files will not load the next time either."""
check_table(STATUS)

_REFINED: Mapping[tuple[Kind, str], int] = {
    (Kind.UNAVAILABLE, "load"): 409,
    (Kind.CONFLICT, "serving"): 406,
    (Kind.UNSUPPORTED, "method"): 405,
    (Kind.UNSUPPORTED, "media"): 415,
    (Kind.UNSUPPORTED, "encoding"): 415,
}

_NAMES: Mapping[int, str] = {
    200: "OK",
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    408: "REQUEST_TIMEOUT",
    409: "CONFLICT",
    413: "REQUEST_ENTITY_TOO_LARGE",
    414: "REQUEST_URI_TOO_LONG",
    415: "UNSUPPORTED_MEDIA_TYPE",
    417: "EXPECTATION_FAILED",
    431: "REQUEST_HEADER_FIELDS_TOO_LARGE",
    500: "INTERNAL_SERVER_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "SERVICE_UNAVAILABLE",
    504: "GATEWAY_TIMEOUT",
    505: "HTTP_VERSION_NOT_SUPPORTED",
}
"""As the Java enum of statuses spells them."""


def success(message: str | None, result: Any) -> Answer:
    """A 200. `result` is anything that orjson writes."""
    return Answer(200, _written(200, True, message, result), MEDIA_TYPE)


def refusal(error: ServingError, allowed: Iterable[str] = ()) -> Answer:
    """The answer to any error; `allowed` are the methods that the path has, for a wrong one."""
    code = error.status if error.status in _NAMES else None  # what the HTTP server found itself has a status
    code = code or _REFINED.get((error.kind, error.what), STATUS[error.kind])
    return Answer(code, _written(code, False, words(error, None), None), MEDIA_TYPE, headers(code, error, allowed))


def _written(code: int, succeeded: bool, message: str | None, result: Any) -> bytes:
    return orjson.dumps(
        {"status": _NAMES[code], "code": code, "success": succeeded, "message": message, "result": result, "attributes": {}}
    )
