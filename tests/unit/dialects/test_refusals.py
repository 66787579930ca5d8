"""Every protocol can say no to everything, in words that every client can read."""

import json
from typing import Any

import pytest

from dragoman.core.errors import Kind, Problem, ServingError
from dragoman.core.plugins import BUILT_IN, find
from dragoman.dialects import Answer, Dialect, Request
from dragoman.dialects.refusals import LONGEST, body_of, headers, words
from dragoman.serving.gateway import Gateway
from dragoman.serving.meters import Meters
from tests.services import services

HALF = "half a pair \ud800 and a NUL \0"
SUBJECTS = ("", "path", "method", "encoding", "media", "body", "load", "unloaded", "source", "serving", "model")


def refused(dialect: Dialect, error: ServingError) -> Answer:
    """The answer to an error at the dialect's first path."""
    path = dialect.prefixes[0]
    scope = {"method": "PUT", "path": path, "raw_path": path.encode(), "headers": []}

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    return dialect.refuse(Request(scope, receive, 0), error)


@pytest.mark.parametrize("name", sorted(BUILT_IN["dialects"]))
def test_every_error_has_an_answer_that_can_be_read(name: str) -> None:
    """Whatever its kind and subject, and also where user code or a path put into it what UTF-8 cannot carry."""
    dialect: Dialect = find("dialects", name)(services(Gateway(Meters()), Meters()))
    for kind in Kind:
        for what in SUBJECTS:
            problems = (Problem(("body", HALF), HALF, HALF, {"limit": 2**80, "value": HALF}),)
            for error in (ServingError(kind, HALF, what=what), ServingError(kind, HALF, what=what, problems=problems)):
                answer = refused(dialect, error)
                assert 400 <= answer.status < 600
                assert isinstance(answer.body, bytes)
                assert isinstance(json.loads(answer.body), dict)


def test_long_words_are_cut() -> None:
    """A message may quote what came; without a limit it is left whole."""
    error = ServingError(Kind.INVALID_INPUT, "x" * 5000)
    assert words(error) == "x" * LONGEST
    assert words(error, None) == "x" * 5000


def test_headers_follow_from_the_status() -> None:
    """The methods that a path has, and the encodings that are read."""
    error = ServingError(Kind.UNSUPPORTED, "no", what="encoding")
    assert headers(405, error, ("GET", "POST")) == [(b"allow", b"GET, POST")]
    assert headers(415, error) == [(b"accept-encoding", b"gzip, deflate")]
    assert headers(501, error, ("GET",)) == []
    assert headers(415, ServingError(Kind.UNSUPPORTED, "no", what="media")) == []


def test_what_json_cannot_carry_becomes_text() -> None:
    """An error is told at any price."""
    assert json.loads(body_of({"a": 1, "b": "\ud800"}))["b"] == "?"
    assert json.loads(body_of({"a": 2**80})) == {"a": 2**80}
