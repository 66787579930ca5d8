"""The six keys of every answer, and the table of errors."""

import json

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer
from dragoman.dialects.submarine.envelope import refusal, success


def body_of(answer: Answer) -> str:
    assert isinstance(answer.body, bytes)
    assert answer.media_type == b"application/json; charset=utf-8"
    return answer.body.decode()


def test_success_to_the_byte() -> None:
    """Six keys in this order, nulls written (S5, S8)."""
    made = body_of(success("Create a serve instance", {"url": "http://x/y"}))
    assert made == (
        '{"status":"OK","code":200,"success":true,"message":"Create a serve instance","result":{"url":"http://x/y"},"attributes":{}}'
    )
    deleted = '{"status":"OK","code":200,"success":true,"message":"Delete the model serve instance","result":null,"attributes":{}}'
    assert body_of(success("Delete the model serve instance", None)) == deleted
    assert body_of(success(None, "Pong")) == '{"status":"OK","code":200,"success":true,"message":null,"result":"Pong","attributes":{}}'


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("what", ["", "model", "version", "load", "serving", "method", "media", "encoding", "body", "source"])
def test_every_error_is_an_envelope(kind: Kind, what: str) -> None:
    """`code` is the HTTP status, `success` is false and not null, `status` a name of Java's enum (R2)."""
    answer = refusal(ServingError(kind, "why \ud800 é", what=what))
    found = json.loads(body_of(answer))
    assert list(found) == ["status", "code", "success", "message", "result", "attributes"]
    assert found["code"] == answer.status >= 400
    assert (found["success"], found["result"], found["attributes"]) == (False, None, {})
    assert found["message"] == "why ? é"
    assert found["status"].isupper()


@pytest.mark.parametrize(
    ("kind", "what", "code", "status"),
    [
        (Kind.INVALID_INPUT, "body", 400, "BAD_REQUEST"),
        (Kind.NOT_FOUND, "model", 404, "NOT_FOUND"),
        (Kind.UNSUPPORTED, "method", 405, "METHOD_NOT_ALLOWED"),
        (Kind.CONFLICT, "serving", 406, "NOT_ACCEPTABLE"),
        (Kind.CONFLICT, "model", 409, "CONFLICT"),
        (Kind.UNAVAILABLE, "load", 409, "CONFLICT"),
        (Kind.TOO_LARGE, "body", 413, "REQUEST_ENTITY_TOO_LARGE"),
        (Kind.UNSUPPORTED, "media", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (Kind.UNSUPPORTED, "source", 400, "BAD_REQUEST"),
        (Kind.UNAVAILABLE, "", 503, "SERVICE_UNAVAILABLE"),
        (Kind.UNAUTHENTICATED, "", 401, "UNAUTHORIZED"),
        (Kind.INTERNAL, "", 500, "INTERNAL_SERVER_ERROR"),
    ],
)
def test_codes(kind: Kind, what: str, code: int, status: str) -> None:
    """R2: and a model that cannot be loaded is not a 5xx, which clients would only send again."""
    found = json.loads(body_of(refusal(ServingError(kind, "no", what=what))))
    assert (found["code"], found["status"]) == (code, status)


@pytest.mark.parametrize("status", [408, 414, 417, 431, 501, 505])
def test_errors_that_the_http_server_finds(status: int) -> None:
    """Keep their status, in the envelope too."""
    answer = refusal(ServingError(Kind.INVALID_INPUT, "no", status=status))
    assert answer.status == json.loads(body_of(answer))["code"] == status


def test_a_wrong_method_says_which_are_right() -> None:
    """In the Allow header."""
    assert refusal(ServingError(Kind.UNSUPPORTED, "no", what="method"), ["GET", "POST"]).headers == [(b"allow", b"GET, POST")]
