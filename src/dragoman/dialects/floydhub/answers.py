"""What every answer of this dialect has in common: JSON, and for errors an object with `message` (sheet, section 8). Called by all of this folder.

The client crashes on a 400, 403 or 429 whose body is anything else.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import USUAL_STATUS, Answer, check_table
from dragoman.dialects.refusals import body_of, headers, words

STATUS: Mapping[Kind, int] = {**USUAL_STATUS, Kind.OVERLOADED: 429, Kind.UNSUPPORTED: 400}
check_table(STATUS)

_REFINED: Mapping[tuple[Kind, str], int] = {
    (Kind.CONFLICT, "busy"): 423,
    (Kind.NOT_FOUND, "expired"): 410,
    (Kind.UNSUPPORTED, "method"): 405,
    (Kind.UNSUPPORTED, "media"): 415,
    (Kind.UNSUPPORTED, "encoding"): 415,
}


_KNOWN = frozenset({400, 401, 403, 404, 423, 429})


def success(content: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(content))


def refusal(error: ServingError, allowed: Iterable[str] = (), *, original: bool = False) -> Answer:
    """The answer to any error; `allowed` are the methods that the path has, for a wrong one.

    `original`: the client that asks is FloydHub's own, which shows the number alone of a status that it does not know, and of a 400 the message.
    """
    status = error.status or _REFINED.get((error.kind, error.what), STATUS[error.kind])
    if original and 400 <= status < 500 and status not in _KNOWN:
        status = 400
    return Answer(status, body_of({"message": words(error), "code": status}), headers=headers(status, error, allowed))
