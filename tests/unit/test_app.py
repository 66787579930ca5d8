"""The application between the HTTP server and the dialects: who answers for a path, ordinary answers, errors."""

import asyncio
import logging
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer, Request
from dragoman.server.app import App
from tests.asgi import Speaker, app, call, doing, raising
from tests.servables import run

# --- who answers ---


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v2", "v2"),
        ("/v2/", "v2"),
        ("/v2/models/x", "v2"),
        ("/v2models", "console"),
        ("/v20/x", "console"),
        ("/api/v1/serve", "short"),
        ("/api/v1/serve/x", "short"),
        ("/api/v1/serve/deep/x", "deep"),
        ("/api/v1/serve/deeper", "short"),
        ("/api/v1", "console"),
        ("/api", "console"),
        ("/", "console"),
        ("//v2", "console"),
        ("", "console"),
        ("*", "console"),
        ("/dragoman/v1/status", "console"),
        ("/elsewhere", "console"),
        ("/V2/Models/x", "v2"),
        ("/Elsewhere", "console"),
    ],
)
def test_the_longest_prefix_answers(path: str, name: str) -> None:
    """Whole segments, whatever the order of the dialects; what nobody claims is the console's."""
    dialects = [Speaker("short", "/api/v1/serve"), Speaker("v2", "/v2"), Speaker("deep", "/api/v1/serve/deep")]
    for order in (dialects, dialects[::-1]):
        assert call(app(*order), path=path).body == f"{name} {path}".encode()
        assert app(*order).dialect_of(path).name == name


def test_paths_of_one_letter_case_only_are_found_at_once() -> None:
    """A dialect may claim capitals; the spelling that was sent is what it sees."""
    assert call(app(Speaker("v2", "/v2")), path="/V2/Models/X").body == b"v2 /V2/Models/X"


# --- ordinary answers ---


def test_an_answer_has_its_length_and_type() -> None:
    """And the headers that its dialect gave it."""
    reply = call(doing(lambda _: Answer(201, b"hello", b"text/x", [(b"x-extra", b"1")])))
    assert (reply.status, reply.body) == (201, b"hello")
    assert reply.headers == {b"content-type": b"text/x", b"content-length": b"5", b"x-extra": b"1"}
    assert [m["type"] for m in reply.messages] == ["http.response.start", "http.response.body"]


def test_an_answer_without_a_type_says_nothing_of_it() -> None:
    """An empty body has none."""
    assert call(doing(lambda _: Answer(200, b"", b""))).headers == {b"content-length": b"0"}


def test_the_body_of_a_request() -> None:
    """In pieces or at once, up to the limit; reading it again gives the same."""
    received: list[bytes] = []

    async def read(request: Request) -> Answer:
        received.append(await request.body())
        assert await request.body() is received[-1]
        return Answer()

    class Reader(Speaker):
        async def _handle(self, request: Request, argument: str) -> Answer:
            return await read(request)

    reader = app(Reader("v2", "/v2"))
    for body in ([b"abc"], [b"a", b"", b"bc"], [b""], [b"x" * 60, b"x" * 40]):
        assert call(reader, "POST", body=body).status == 200
        assert received[-1] == b"".join(body)
    reply = call(reader, "POST", body=[b"x" * 60, b"x" * 41])
    assert reply.body == b"v2: TOO_LARGE the request body is larger than the limit of 100 bytes"


def test_the_body_in_pieces() -> None:
    """As they come, none empty but the last; the limit and a client that leaves are found on the way."""
    received: list[bytes] = []

    class Reader(Speaker):
        async def _handle(self, request: Request, argument: str) -> Answer:
            received.clear()
            while piece := await request.read():
                received.append(piece)
            assert await request.read() == b""
            return Answer()

    reader = app(Reader("v2", "/v2"))
    for body, pieces in (([b"a", b"", b"bc"], [b"a", b"bc"]), ([b""], []), ([b"abc", b""], [b"abc"])):
        assert call(reader, "POST", body=body).status == 200
        assert received == pieces
    assert call(reader, "POST", body=[b"x" * 60, b"x" * 41]).body.startswith(b"v2: TOO_LARGE")
    assert received == [b"x" * 60]
    assert call(reader, "POST", body=[b"half"], unfinished=True).body.startswith(b"v2: CANCELLED")
    assert received == [b"half"]


def test_a_client_that_leaves_while_sending_is_cancelled() -> None:
    """The dialect hears CANCELLED instead of half a body."""

    class Reader(Speaker):
        async def _handle(self, request: Request, argument: str) -> Answer:
            return Answer(200, await request.body())

    assert call(app(Reader("v2", "/v2")), "POST", body=[b"half"], unfinished=True).body.startswith(b"v2: CANCELLED")


def test_other_protocols_than_http_are_refused() -> None:
    """A lifespan or websocket scope never comes from our own server."""

    async def whole() -> None:
        async def nothing(*_: object) -> dict[str, Any]:
            return {}

        with pytest.raises(TypeError, match="not websocket"):
            await app()({"type": "websocket"}, nothing, nothing)  # type: ignore[arg-type]

    run(whole)


# --- errors ---


@pytest.mark.parametrize(
    ("method", "path", "kind"), [("GET", "/v2/lost", "NOT_FOUND"), ("PATCH", "/v2/x", "UNSUPPORTED"), ("OPTIONS", "/v2/x", "UNSUPPORTED")]
)
def test_refusals_are_in_the_words_of_the_dialect(method: str, path: str, kind: str) -> None:
    """Also those of routing, and of an OPTIONS that no browser sent."""
    reply = call(app(Speaker("v2", "/v2")), method, path)
    assert reply.status == 444
    assert reply.body.startswith(f"v2: {kind} ".encode())


@pytest.mark.parametrize(("seconds", "header"), [(0.1, b"1"), (1.0, b"1"), (2.1, b"3"), (None, None)])
def test_retry_after(seconds: float | None, header: bytes | None) -> None:
    """Whole seconds, rounded up, where the error knows them."""
    reply = call(doing(raising(ServingError(Kind.OVERLOADED, "full", retry_after_s=seconds))))
    assert reply.headers.get(b"retry-after") == header


def test_who_is_not_known_is_told_how_to_say_who_they_are() -> None:
    """401 comes with a challenge."""
    assert call(doing(raising(ServingError(Kind.UNAUTHENTICATED, "who")))).headers[b"www-authenticate"] == b"Bearer"
    assert b"www-authenticate" not in call(doing(raising(ServingError(Kind.FORBIDDEN, "you")))).headers


def test_an_unexpected_exception_hides_its_details(caplog: pytest.LogCaptureFixture) -> None:
    """The client hears that it was internal; the log has everything."""
    with caplog.at_level(logging.ERROR, "dragoman.http"):
        reply = call(doing(raising(ZeroDivisionError("the password is secret"))))
    assert reply.body == b"v2: INTERNAL internal error"
    assert "the password is secret" in caplog.text


def test_a_failure_of_a_model_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    """The traceback is for the owner of the server."""
    error = ServingError(Kind.MODEL_FAILED, "model 'm' failed")
    error.__cause__ = ArithmeticError("inside")
    with caplog.at_level(logging.ERROR, "dragoman.http"):
        assert b"MODEL_FAILED model 'm' failed" in call(doing(raising(error))).body
    assert "ArithmeticError: inside" in caplog.text


def test_cancellation_is_nobodys_error() -> None:
    """It ends the request without an answer."""

    async def whole() -> None:
        started = asyncio.Event()

        class Waiting(Speaker):
            async def _handle(self, request: Request, argument: str) -> Answer:
                started.set()
                await asyncio.get_running_loop().create_future()
                return Answer()

        sent: list[object] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {}

        scope = {"type": "http", "method": "GET", "path": "/v2/x", "headers": []}
        call_ = asyncio.ensure_future(app(Waiting("v2", "/v2"))(scope, receive, send))
        await started.wait()
        call_.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call_
        assert sent == []

    run(whole)


# --- what the HTTP server asks ---


@pytest.mark.parametrize(
    ("path", "eager", "cancels"),
    [
        ("/v2/models/m/infer", True, True),
        ("/v2/models/m/versions/1/infer", True, True),
        ("/v1/models/m:predict", True, True),
        ("/v2/models/m/generate_stream", False, True),
        ("/predict", True, True),
        ("/models/m:1/predict", True, True),
        ("/predictions/0/events", False, True),
        ("/predictions", True, False),
        (f"/predictions/{32 * '0'}", True, False),
        ("/predictions/0/cancel", False, False),
        ("/v2/repository/models/m/load", False, False),
        ("/v2/health/ready", False, False),
        ("/", False, False),
    ],
)
def test_how_requests_may_be_run(path: str, eager: bool, cancels: bool) -> None:
    """Inference without a task and only while somebody waits; whatever changes the server to its end."""
    assert App.eager({"path": path}) is eager
    assert App.cancels({"path": path}) is cancels


def test_polls_that_may_wait_have_a_task() -> None:
    """A wait with a time limit needs one."""
    assert not App.eager({"path": f"/predictions/{32 * '0'}", "query_string": b"wait=5"})


@pytest.mark.parametrize(
    ("method", "path", "query", "cancels"),
    [
        ("GET", "/predictions/0", b"wait=5", True),
        ("GET", "/models/m/demo/0", b"verbose=1&wait=5", True),
        ("GET", "/predictions/0", b"", False),
        ("GET", "/predictions/0/cancel", b"wait=5", False),
        ("POST", "/predictions", b"wait=5", False),
    ],
)
def test_long_polls_end_with_their_client(method: str, path: str, query: bytes, *, cancels: bool) -> None:
    """They only wait; what changes something goes on."""
    assert App.cancels({"method": method, "path": path, "query_string": query}) is cancels


# --- paths that end in what people chose ---


@pytest.mark.parametrize(
    ("path", "inference"),
    [
        ("/v2/models/x/infer", True),
        ("/serve/x-1/invocations", True),
        ("/api/v1.0/predictions", True),
        ("/api/v1/registered-model/predict", False),
        ("/api/v1/registered-model/x", False),
        ("/api/v1/model-version/predict", False),
        ("/api/2.0/mlflow-artifacts/artifacts/a/predict", False),
    ],
)
def test_a_name_is_not_an_operation(path: str, inference: bool) -> None:
    """A model that is called `predict` is changed and shown in a task of its own, which a hang-up does not end."""
    scope = {"path": path, "method": "GET"}
    assert App.eager(scope) is inference
    assert App.cancels(scope) is (inference and path != "/api/v1.0/predictions")
