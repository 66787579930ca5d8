"""How the Open Inference Protocol says no: `{"error": text}` and a status per kind. Called by the router for every error of this dialect.

Statuses follow Triton where clients may look at them; its 500 for wrong input and KServe's 422 are 400 here.
"""

from collections.abc import Mapping

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer, check_table

STATUS: Mapping[Kind, int] = {
    Kind.INVALID_INPUT: 400,
    Kind.NOT_FOUND: 404,
    Kind.NOT_READY: 503,
    Kind.CONFLICT: 400,
    Kind.OVERLOADED: 503,
    Kind.TIMEOUT: 503,
    Kind.CANCELLED: 400,
    Kind.MODEL_FAILED: 500,
    Kind.UNSUPPORTED: 501,
    Kind.UNAVAILABLE: 503,
    Kind.TOO_LARGE: 413,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.INTERNAL: 500,
}
check_table(STATUS)

_TEXT_LIMIT = 2_000
_UNSUPPORTED = {"method": 405, "encoding": 415}
"""By what is not supported; everything else that is not is 501."""


def refusal(error: ServingError) -> Answer:
    """The answer to an error. KServe's client reads `error` only if the content type is exactly application/json.

    Headers that mean the same in every dialect (Retry-After, WWW-Authenticate) are the server's to add.
    """
    status = STATUS[error.kind]
    headers: list[tuple[bytes, bytes]] = []
    if error.kind is Kind.UNSUPPORTED:
        status = _UNSUPPORTED.get(error.what, status)
        if error.what == "encoding":
            headers.append((b"accept-encoding", b"gzip, deflate"))
    return Answer(status, error_body(error.message), headers=headers)


def error_body(text: str) -> bytes:
    """The body of every error. What UTF-8 cannot carry (a path may hold it) is replaced, and a text that quotes too much is cut."""
    return orjson.dumps({"error": text[:_TEXT_LIMIT].encode("utf-8", "replace").decode()})
