"""How MLflow's scoring protocol says no: `{"error_code": name, "message": text}` and a status per kind. Called by scoring.py."""

from collections.abc import Mapping, Sequence

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer, check_table
from dragoman.dialects.refusals import headers, words

ANSWERS: Mapping[Kind, tuple[str, int]] = {
    Kind.INVALID_INPUT: ("INVALID_PARAMETER_VALUE", 400),
    Kind.NOT_FOUND: ("RESOURCE_DOES_NOT_EXIST", 404),
    Kind.NOT_READY: ("TEMPORARILY_UNAVAILABLE", 503),
    Kind.CONFLICT: ("RESOURCE_CONFLICT", 409),
    Kind.OVERLOADED: ("TEMPORARILY_UNAVAILABLE", 503),
    Kind.TIMEOUT: ("DEADLINE_EXCEEDED", 504),
    Kind.CANCELLED: ("CANCELLED", 499),
    Kind.MODEL_FAILED: ("INTERNAL_ERROR", 500),
    Kind.UNSUPPORTED: ("NOT_IMPLEMENTED", 501),
    Kind.UNAVAILABLE: ("TEMPORARILY_UNAVAILABLE", 503),
    Kind.TOO_LARGE: ("REQUEST_LIMIT_EXCEEDED", 413),
    Kind.UNAUTHENTICATED: ("UNAUTHENTICATED", 401),
    Kind.FORBIDDEN: ("PERMISSION_DENIED", 403),
    Kind.INTERNAL: ("INTERNAL_ERROR", 500),
}
"""Kind -> MLflow's error code and HTTP status."""
check_table(ANSWERS)

_BY_WHAT: Mapping[tuple[Kind, str], tuple[str, int]] = {
    (Kind.INVALID_INPUT, "body"): ("BAD_REQUEST", 400),
    (Kind.UNAVAILABLE, "unloaded"): ("RESOURCE_DOES_NOT_EXIST", 404),  # clients would ask for it again and again
    (Kind.UNSUPPORTED, "method"): ("BAD_REQUEST", 405),
    (Kind.UNSUPPORTED, "encoding"): ("BAD_REQUEST", 415),
    (Kind.UNSUPPORTED, "media"): ("BAD_REQUEST", 415),
    (Kind.NOT_FOUND, "path"): ("ENDPOINT_NOT_FOUND", 404),
}
"""MLflow tells a request that cannot be read from one that does not fit its model."""


def refusal(error: ServingError, allowed: Sequence[str] = ()) -> Answer:
    """The answer to an error; `allowed` are the methods of its path."""
    code, status = _BY_WHAT.get((error.kind, error.what)) or ANSWERS[error.kind]
    body = {"error_code": code, "message": words(error)}
    return Answer(status, orjson.dumps(body), headers=headers(status, error, allowed))
