"""Errors in Tungsten's words: always JSON with `detail`, for bad input the list that pydantic 1 makes. Called by every module of this folder.

What the original knows has exactly its bodies. What it does not know (limits, queues, models that load) has `error_kind` beside `detail`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from dragoman.core.errors import Kind, Problem, ServingError
from dragoman.dialects import Answer, check_table
from dragoman.dialects.refusals import body_of, headers, words

STATUS: Mapping[Kind, int] = {
    Kind.INVALID_INPUT: 422,
    Kind.NOT_FOUND: 404,
    Kind.NOT_READY: 503,
    Kind.CONFLICT: 409,
    Kind.OVERLOADED: 429,
    Kind.TIMEOUT: 504,
    Kind.CANCELLED: 499,
    Kind.MODEL_FAILED: 500,
    Kind.UNSUPPORTED: 501,
    Kind.UNAVAILABLE: 503,
    Kind.TOO_LARGE: 413,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.INTERNAL: 500,
}
check_table(STATUS)

ROOT = ("body", "__root__")
"""Where the original says that a request's list is."""
PLAIN = frozenset({Kind.INVALID_INPUT, Kind.NOT_FOUND})
"""Kinds that the original has, too: their bodies hold nothing but `detail`."""

_PLACES = frozenset({"body", "query", "header"})


def refusal(error: ServingError) -> Answer:
    """The answer to any error but a wrong method."""
    status = STATUS[error.kind]
    if error.what == "encoding":
        status = 415
    if error.kind is Kind.INVALID_INPUT:
        return Answer(status, body_of({"detail": _problems(error)}))
    if error.what == "path":
        return Answer(status, b'{"detail":"Not Found"}')
    body = {"detail": words(error, None)}
    if error.kind not in PLAIN:
        body["error_kind"] = error.kind.value
    return Answer(status, orjson.dumps(body))


def wrong_method(error: ServingError, allowed: Iterable[str]) -> Answer:
    """405, with the methods that the path has."""
    return Answer(405, b'{"detail":"Method Not Allowed"}', headers=headers(405, error, allowed))


def faulty(*loc: str | int, msg: str, code: str, context: dict[str, object] | None = None) -> ServingError:
    """INVALID_INPUT at one place, which begins with "body", "query" or "header"."""
    return ServingError(Kind.INVALID_INPUT, msg, problems=(Problem(loc, code, msg, context or {}),))


def of_one(error: ServingError) -> ServingError:
    """An error of a request that is one row, not a list of rows: its places begin with the field."""
    problems = tuple(Problem(("body", *p.path[1:]), p.code, p.message, p.context) for p in error.problems)
    return ServingError(error.kind, error.message, what=error.what, problems=problems)


def _problems(error: ServingError) -> list[dict[str, Any]]:
    if not error.problems:
        return [{"loc": ["body"], "msg": error.message, "type": "value_error"}]
    return [_problem(problem) for problem in error.problems]


def _problem(problem: Problem) -> dict[str, Any]:
    loc = problem.path if problem.path and problem.path[0] in _PLACES else (*ROOT, *problem.path)
    made: dict[str, Any] = {"loc": loc, "msg": problem.message, "type": problem.code}
    if problem.context:
        made["ctx"] = problem.context
    return made
