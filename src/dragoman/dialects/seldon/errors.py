"""How Seldon's protocol says no: `{"status": {"code": -1, "info": text, "reason": name, "status": 1}}`. Called by rest.py."""

from collections.abc import Mapping

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer, check_table

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

MEDIA = "media"
"""`what` of an error about a content type."""
_STATUS = {"method": 405, "encoding": 415, MEDIA: 415}
_TEXT_LIMIT = 2_000


def refusal(error: ServingError) -> Answer:
    """The answer to an error."""
    gone = error.kind is Kind.UNAVAILABLE and error.what == "unloaded"  # on purpose: there is nothing to wait for
    reason, status = ANSWERS[Kind.NOT_FOUND if gone else error.kind]
    headers: list[tuple[bytes, bytes]] = []
    if error.kind is Kind.UNSUPPORTED and error.what in _STATUS:
        reason, status = _BAD_DATA, _STATUS[error.what]
        if status == 405:
            headers.append((b"allow", b"POST"))
        elif error.what == "encoding":
            headers.append((b"accept-encoding", b"gzip, deflate"))
    info = error.message[:_TEXT_LIMIT].encode("utf-8", "replace").decode()
    return Answer(status, orjson.dumps({"status": {"code": -1, "info": info, "reason": reason, "status": 1}}), headers=headers)
