"""How Seldon's protocol says no: `{"status": {"code": -1, "info": text, "reason": name, "status": 1}}`. Called by rest.py."""

from collections.abc import Mapping

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer, check_table
from dragoman.dialects.refusals import headers, words

_BAD_DATA, _INTERNAL = "MICROSERVICE_BAD_DATA", "MICROSERVICE_INTERNAL_ERROR"

ANSWERS: Mapping[Kind, tuple[str, int]] = {
    Kind.INVALID_INPUT: (_BAD_DATA, 400),
    Kind.NOT_FOUND: ("NOT_FOUND", 404),
    Kind.NOT_READY: ("NOT_READY", 503),
    Kind.CONFLICT: ("CONFLICT", 409),
    Kind.OVERLOADED: ("OVERLOADED", 503),
    Kind.TIMEOUT: ("TIMEOUT", 504),
    Kind.CANCELLED: ("CANCELLED", 499),
    Kind.MODEL_FAILED: (_INTERNAL, 500),
    Kind.UNSUPPORTED: ("NOT_IMPLEMENTED", 501),
    Kind.UNAVAILABLE: ("UNAVAILABLE", 503),
    Kind.TOO_LARGE: (_BAD_DATA, 413),
    Kind.UNAUTHENTICATED: ("UNAUTHENTICATED", 401),
    Kind.FORBIDDEN: ("FORBIDDEN", 403),
    Kind.INTERNAL: (_INTERNAL, 500),
}
"""Kind -> reason and HTTP status. Seldon's own microservices know the two with MICROSERVICE in them; the others are ours."""
check_table(ANSWERS)

_BY_WHAT: Mapping[tuple[Kind, str], tuple[str, int]] = {
    (Kind.UNAVAILABLE, "unloaded"): ANSWERS[Kind.NOT_FOUND],  # on purpose: there is nothing to wait for
    (Kind.UNSUPPORTED, "method"): (_BAD_DATA, 405),
    (Kind.UNSUPPORTED, "encoding"): (_BAD_DATA, 415),
    (Kind.UNSUPPORTED, "media"): (_BAD_DATA, 415),
}


def refusal(error: ServingError) -> Answer:
    """The answer to an error."""
    reason, status = _BY_WHAT.get((error.kind, error.what)) or ANSWERS[error.kind]
    body = {"status": {"code": -1, "info": words(error), "reason": reason, "status": 1}}
    return Answer(status, orjson.dumps(body), headers=headers(status, error, ("POST",)))
