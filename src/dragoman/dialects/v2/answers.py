"""How the Open Inference Protocol says no: `{"error": text}` and a status per kind. Called by the router for every error of this dialect.

Statuses follow Triton where clients may look at them; its 500 for wrong input and KServe's 422 are 400 here.
"""

from collections.abc import Iterable, Mapping

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer, check_table
from dragoman.dialects.refusals import headers, words

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

_UNSUPPORTED = {"method": 405, "encoding": 415}
"""By what is not supported; everything else that is not is 501."""


def refusal(error: ServingError, allowed: Iterable[str] = ()) -> Answer:
    """The answer to an error, with the methods that its path has.

    KServe's client reads `error` only if the content type is exactly application/json.
    """
    status = status_of(error)
    return Answer(status, error_body(error), headers=headers(status, error, allowed))


def status_of(error: ServingError) -> int:
    """The status of an error by its kind, and for what is not supported by what that is."""
    return _UNSUPPORTED.get(error.what, STATUS[error.kind]) if error.kind is Kind.UNSUPPORTED else STATUS[error.kind]


def error_body(error: ServingError) -> bytes:
    """The body of every error."""
    return orjson.dumps({"error": words(error)})
