"""Valid requests of the server's own API, its pages and its metrics."""

import json
from random import Random

from tests.fuzz.cases import Case
from tests.fuzz.wire import Answer

_OURS = (
    ("/dragoman/v1/status", "models"),
    ("/dragoman/v1/models", "models"),
    ("/dragoman/v1/models/iris", "signatures"),
    ("/dragoman/v1/models/twice", "labels"),
    ("/dragoman/v1/openapi.json", "paths"),
    ("/", "extensions"),
)
_PAGES = (
    ("/", b"text/html", b"<!doctype html>"),
    ("/metrics", b"*/*", b"# HELP"),
    ("/monitoring/prometheus/metrics", b"", b"# HELP"),
)
_REFUSED = (
    ("GET", "/dragoman/v1/models/nothing", 404),
    ("POST", "/dragoman/v1/status", 405),
    ("GET", "/dragoman/v2", 404),
    ("GET", "/nothing", 404),
    ("DELETE", "/", 405),
    ("POST", "/metrics", 405),
    ("GET", "/monitoring/x", 404),
)


def valid(rng: Random) -> Case:
    """Any request that must be answered rightly."""
    chance = rng.random()
    if chance < 0.2:
        method, path, status = rng.choice(_REFUSED)
        return Case(method, path.encode(), check=lambda answer: _is(answer, status), what=f"{method} {path}")
    if chance < 0.4:
        path, accept, text = rng.choice(_PAGES)
        return Case("GET", path.encode(), headers=[(b"accept", accept)], check=lambda answer: _holds(answer, text), what=path)
    path, key = rng.choice(_OURS)
    if rng.random() < 0.1:
        return Case("HEAD", path.encode(), check=lambda answer: _is(answer, 200), what=path)
    return Case("GET", path.encode(), check=lambda answer: _has(answer, key), what=path)


def _has(answer: Answer, key: str) -> None:
    assert answer.status == 200
    assert key in json.loads(answer.body)


def _holds(answer: Answer, text: bytes) -> None:
    assert answer.status == 200
    assert text in answer.body


def _is(answer: Answer, status: int) -> None:
    assert answer.status == status
