"""The application: answers in parts, and who may call what."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access, Answer
from dragoman.server.app import App
from dragoman.server.keys import KeyRing
from tests.asgi import call, doing, raising

# --- streams ---


class Parts:
    """A stream of parts and perhaps an error, which notes that it was closed."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self.closed = False
        self._parts = parts

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for part in self._parts:
                if isinstance(part, Exception):
                    raise part
                yield part
        finally:
            self.closed = True


def streaming(parts: Parts) -> App:
    return doing(lambda _: Answer(200, parts(), b"text/event-stream"))


def test_a_stream_is_sent_as_it_comes() -> None:
    """Its length is not known; each part is a message."""
    reply = call(streaming(Parts(b"one", b"two")))
    assert reply.headers == {b"content-type": b"text/event-stream"}
    assert reply.parts == [b"one", b"two", b""]
    assert [m.get("more_body", False) for m in reply.messages[1:]] == [True, True, False]


def test_an_empty_stream_is_an_empty_answer() -> None:
    """Nothing goes wrong when there is no first part."""
    reply = call(streaming(Parts()))
    assert (reply.status, reply.body) == (200, b"")


def test_a_stream_that_fails_before_its_first_part_is_an_ordinary_error() -> None:
    """Nothing was sent yet, so the status can still say it."""
    assert call(streaming(Parts(ServingError(Kind.TIMEOUT, "late")))).body == b"v2: TIMEOUT late"
    assert call(streaming(Parts(ZeroDivisionError("secret")))).body == b"v2: INTERNAL internal error"


def test_a_stream_that_fails_later_breaks_off() -> None:
    """The answer is never ended as if it were whole: the HTTP server hears the exception and closes the connection."""
    parts = Parts(b"one", ServingError(Kind.MODEL_FAILED, "no"))
    with pytest.raises(ServingError, match="no"):
        call(streaming(parts))
    assert parts.closed


@pytest.mark.parametrize("messages", [0, 1, 2])
def test_a_stream_whose_client_leaves_is_closed(messages: int) -> None:
    """At once, whether its head, its first part or a later one could not be sent: the model must not go on for nobody."""
    parts = Parts(b"one", b"two", b"three")
    with pytest.raises(OSError, match="gone"):
        call(streaming(parts), gone_after=messages)
    assert parts.closed


# --- access ---


def test_what_changes_the_server_is_guarded_even_on_loopback() -> None:
    """A web page of somebody else's cannot send it."""
    admin = doing(lambda _: Answer(200, b"done"), Access.ADMIN)
    assert call(admin, "POST").body == b"done"
    assert b"FORBIDDEN" in call(admin, "POST", headers={"origin": "https://evil.example"}).body


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str]:
    """A key file and a key for inference."""
    path = tmp_path / "keys.toml"
    return path, KeyRing(path).create("me", [Access.INFER])


def test_a_key_is_asked_for_where_it_is_required(keys: tuple[Path, str]) -> None:
    """Without: 401 with a challenge. With: answered. Public routes are open."""
    path, key = keys
    settings = {"require_key": True, "api_key_file": str(path)}
    infer = doing(lambda _: Answer(200, b"done"), Access.INFER, **settings)
    refused = call(infer, "POST")
    assert b"UNAUTHENTICATED" in refused.body
    assert refused.headers[b"www-authenticate"] == b"Bearer"
    assert call(infer, "POST", headers={"authorization": f"Bearer {key}"}).body == b"done"
    assert call(doing(lambda _: Answer(200, b"open"), Access.PUBLIC, **settings)).body == b"open"


def test_browsers_ask_before_they_call() -> None:
    """A preflight on inference is answered by the server itself; with CORS on, errors can be read by the page too."""
    asked = {"origin": "https://page.example", "access-control-request-method": "POST"}
    infer = doing(raising(ServingError(Kind.INVALID_INPUT, "no")), Access.INFER, cors=True)
    preflight = call(infer, "OPTIONS", headers=asked)
    assert (preflight.status, preflight.headers[b"access-control-allow-origin"]) == (200, b"*")
    assert call(infer, "POST", headers=asked).headers[b"access-control-allow-origin"] == b"*"
    closed = doing(lambda _: Answer(200, b"done"), Access.INFER)
    assert b"access-control-allow-origin" not in call(closed, "OPTIONS", headers=asked).headers
    assert b"access-control-allow-origin" not in call(closed, "POST", headers=asked).headers
