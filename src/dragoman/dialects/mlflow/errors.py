"""Errors in the words of MLflow's REST API: `error_code` and `message`. Called by registry.py, and by the modules that need a code of their own.

MLflow's client tries a request again for minutes after 408, 429 and most 5xx, so nothing that is the caller's doing has one of these
(Submarine requirement R14); it goes on after RESOURCE_ALREADY_EXISTS, and after ENDPOINT_NOT_FOUND it tries an older path.
"""

from collections.abc import Iterable, Mapping

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer, check_table
from dragoman.dialects.refusals import headers, words

KEPT = (
    "Dragoman keeps MLflow's model registry, artifacts, and of its tracking what logging a model takes: experiments, runs with parameters, tags"
    " and the last value of each metric, and logged models"
)

STATUS: Mapping[Kind, tuple[int, str]] = {
    Kind.INVALID_INPUT: (400, "INVALID_PARAMETER_VALUE"),
    Kind.NOT_FOUND: (404, "RESOURCE_DOES_NOT_EXIST"),
    Kind.NOT_READY: (409, "RESOURCE_CONFLICT"),
    Kind.CONFLICT: (409, "RESOURCE_CONFLICT"),
    Kind.OVERLOADED: (429, "REQUEST_LIMIT_EXCEEDED"),
    Kind.TIMEOUT: (504, "DEADLINE_EXCEEDED"),
    Kind.CANCELLED: (499, "CANCELLED"),
    Kind.MODEL_FAILED: (400, "INVALID_STATE"),
    Kind.UNSUPPORTED: (501, "NOT_IMPLEMENTED"),
    Kind.UNAVAILABLE: (503, "TEMPORARILY_UNAVAILABLE"),
    Kind.TOO_LARGE: (413, "RESOURCE_LIMIT_EXCEEDED"),
    Kind.UNAUTHENTICATED: (401, "UNAUTHENTICATED"),
    Kind.FORBIDDEN: (403, "PERMISSION_DENIED"),
    Kind.INTERNAL: (500, "INTERNAL_ERROR"),
}
check_table(STATUS)

_REFINED: Mapping[tuple[Kind, str], tuple[int, str]] = {
    (Kind.INVALID_INPUT, "body"): (400, "MALFORMED_REQUEST"),
    (Kind.NOT_FOUND, "path"): (404, "ENDPOINT_NOT_FOUND"),
    (Kind.NOT_FOUND, "alias"): (400, "INVALID_PARAMETER_VALUE"),
    (Kind.NOT_FOUND, "label"): (400, "INVALID_PARAMETER_VALUE"),
    (Kind.CONFLICT, "model"): (400, "RESOURCE_ALREADY_EXISTS"),
    (Kind.CONFLICT, "version"): (400, "RESOURCE_ALREADY_EXISTS"),
    (Kind.CONFLICT, "experiment"): (400, "RESOURCE_ALREADY_EXISTS"),
    **dict.fromkeys(
        ((kind, "source") for kind in (Kind.NOT_FOUND, Kind.UNSUPPORTED, Kind.UNAVAILABLE, Kind.TIMEOUT)), (400, "INVALID_PARAMETER_VALUE")
    ),
    (Kind.UNSUPPORTED, "method"): (405, "ENDPOINT_NOT_FOUND"),
    (Kind.UNSUPPORTED, "encoding"): (400, "MALFORMED_REQUEST"),
    (Kind.UNAVAILABLE, "load"): (400, "INVALID_STATE"),
}
"""What differs by subject: a version that cannot be loaded, or a source that cannot be reached, is no reason to ask again, and an unknown alias
is a wrong value there."""


def refusal(error: ServingError, allowed: Iterable[str] = ()) -> Answer:
    """The answer to an error. `allowed` are the methods of its path, for one with the wrong method."""
    status, code = _REFINED.get((error.kind, error.what)) or STATUS[error.kind]
    message = f"{words(error)}. {KEPT}" if error.what == "path" else words(error, None)
    return Answer(status, orjson.dumps({"error_code": code, "message": message}), headers=headers(status, error, allowed))
