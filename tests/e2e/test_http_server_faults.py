"""The HTTP server when its application fails: the client is never told why, and never gets an answer that looks whole and is not."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.live_http import Eager, Receive, Scope, Send, echo, reply, run_on, serving

pytestmark = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@pytest.fixture(params=["tasks", "eager"])
def wrap(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Run an application by a task each, or stepped without one."""
    return Eager if request.param == "eager" else lambda app: app


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    """Return what the server has logged."""
    return lambda: [record for record in caplog.records if record.name == "dragoman.http"]


async def at_once(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise LookupError("secret")


async def after_a_while(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()
    await asyncio.sleep(0)
    raise LookupError("secret")


async def after_the_start_message(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-secret", b"1")]})
    raise LookupError("secret")


async def cancelled(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise asyncio.CancelledError


async def no_answer(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()


async def only_a_start(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})


async def body_first(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.body", "body": b"secret"})


async def two_starts(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.start", "status": 200})


async def unknown_message(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.secret"})


async def text_body(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": "secret"})


async def body_too_long(_scope: Scope, _receive: Receive, send: Send) -> None:
    await reply(send, b"secret", headers=((b"content-length", b"5"),))


async def body_too_short(_scope: Scope, _receive: Receive, send: Send) -> None:
    await reply(send, b"secret", headers=((b"content-length", b"7"),))


async def bad_status(_scope: Scope, _receive: Receive, send: Send) -> None:
    await reply(send, b"secret", 42)


def bad_header(name: Any, value: Any) -> Any:
    """Make an application that sends a header."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await reply(send, b"secret", headers=((name, value),))

    return app


def no_coroutine(_scope: Scope, _receive: Receive, _send: Send) -> Any:
    raise LookupError("secret")


FAULTS: dict[str, Any] = {
    "raises at once": at_once,
    "raises after a while": after_a_while,
    "raises after the start message": after_the_start_message,
    "cancelled": cancelled,
    "raises before it is a coroutine": no_coroutine,
    "no answer": no_answer,
    "only a start": only_a_start,
    "body first": body_first,
    "two starts": two_starts,
    "unknown message": unknown_message,
    "text as body": text_body,
    "longer than its length": body_too_long,
    "shorter than its length": body_too_short,
    "bad status": bad_status,
    "line break in a value": bad_header(b"location", b"/a\r\nset-cookie: secret=1"),
    "line feed in a value": bad_header(b"x", b"a\nb"),
    "carriage return in a value": bad_header(b"x", b"a\rb"),
    "nul in a value": bad_header(b"x", b"a\0b"),
    "line break in a name": bad_header(b"x: 1\r\ny", b"a"),
    "colon in a name": bad_header(b"x:y", b"a"),
    "empty name": bad_header(b"", b"a"),
    "text as header": bad_header("x", "a"),
    "length that is no number": bad_header(b"content-length", b"6, 6"),
    "negative length": bad_header(b"content-length", b"-6"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_before_the_head_is_answered(loop: str, wrap: Any, fault: str, logged: Any) -> None:
    """An application that fails before anything was sent is answered for with 500 and no detail, logged once, and the connection goes on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (FAULTS[fault] if scope["path"] == "/fault" else echo)(scope, receive, send)

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            answer = await client.request("POST", "/fault", b"x")
            assert (answer.status, answer.error) == (500, "internal error")
            assert set(answer.headers) == {"date", "content-type", "content-length"}
            assert (await client.request("GET", "/next")).body == b"GET /next "

    run_on(loop, test())
    assert [record.message.split(": ")[0] for record in logged()] == ["POST '/fault'"]


def test_a_call_that_raises_is_answered(loop: str, wrap: Any, logged: Any) -> None:
    """An application that raises before it returns a coroutine fails like any other."""

    async def test() -> None:
        async with serving(wrap(no_coroutine)) as live:
            assert (await (await live.client()).request("GET", "/")).status == 500

    run_on(loop, test())
    assert len(logged()) == 1


def test_a_question_for_eagerness_that_raises(loop: str, logged: Any) -> None:
    """An `eager` that fails is a failed application."""

    class App:
        def eager(self, _scope: Scope) -> bool:
            raise LookupError("secret")

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await echo(scope, receive, send)

    async def test() -> None:
        async with serving(App()) as live:
            assert (await (await live.client()).request("GET", "/")).status == 500

    run_on(loop, test())
    assert len(logged()) == 1


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("ending", ["raise", "return", "long", "short"])
def test_a_fault_within_the_body_breaks_the_answer(loop: str, wrap: Any, declared: bool, suspended: bool, ending: str, logged: Any) -> None:
    """An answer that fails on its way ends without its end, and the connection with it: the client cannot take it for whole."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"10")] if declared or ending in ("long", "short") else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        if suspended:
            await asyncio.sleep(0)
        if ending == "raise":
            raise LookupError("secret")
        if ending == "long":
            await send({"type": "http.response.body", "body": b"678901", "more_body": True})
        if ending == "short":
            await send({"type": "http.response.body", "body": b"6789"})

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            client.write(b"GET /f HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await client.head()
            rest = await client.closed()
            assert rest == (b"12345" if "content-length" in answer.headers else b"5\r\n12345\r\n")

    run_on(loop, test())
    assert len(logged()) == 1


def test_a_length_error_that_is_caught_still_breaks_the_answer(loop: str, wrap: Any, logged: Any) -> None:
    """An application cannot go on after it broke its own Content-Length."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        with pytest.raises(RuntimeError, match="Content-Length"):
            await send({"type": "http.response.body", "body": b"678901234"})

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.raw(b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n")
            await client.head()
            assert await client.closed() == b"12345"

    run_on(loop, test())
    assert len(logged()) == 1


def test_messages_after_the_answer_are_refused(loop: str, wrap: Any, logged: Any) -> None:
    """What an application sends behind its complete answer raises there, is logged, and does not reach the client."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        await send({"type": "http.response.body", "body": b"more"})

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.client()
            for path in ("/1", "/2"):
                assert (await client.request("GET", path)).body == f"GET {path} ".encode()

    run_on(loop, test())
    assert len(logged()) == 2
    assert "out of order" in str(logged()[0].exc_info[1])


def test_a_fault_after_the_hang_up_is_logged(loop: str, wrap: Any, logged: Any) -> None:
    """An application that fails by itself after its client has gone has still failed."""
    waiting = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        waiting.set()
        await receive()
        raise LookupError("broken")

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.raw(b"GET /gone HTTP/1.1\r\nHost: x\r\n\r\n")
            await waiting.wait()
            client.reset()
            while not logged():
                await asyncio.sleep(0)

    run_on(loop, test())
    assert [record.message for record in logged()] == ["GET '/gone': the application failed"]


def test_work_cancelled_by_a_hang_up_is_silent(loop: str, wrap: Any, logged: Any) -> None:
    """A dialect that cancels its work from the disconnect callback ends by CancelledError, which is as it should be."""
    waiting = asyncio.Event()
    ended: list[bool] = []

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        work = asyncio.get_running_loop().create_future()
        scope["extensions"]["dragoman.disconnect"].add_callback(work.cancel)
        waiting.set()
        try:
            await work
        finally:
            ended.append(work.cancelled())

    async def test() -> None:
        async with serving(wrap(app)) as live:
            client = await live.raw(b"GET /gone HTTP/1.1\r\nHost: x\r\n\r\n")
            await waiting.wait()
            await client.close()
            while live.server.connections:
                await asyncio.sleep(0)

    run_on(loop, test())
    assert ended == [True]
    assert logged() == []


def test_paths_cannot_forge_log_lines(loop: str, logged: Any) -> None:
    """A path in the log is quoted."""

    async def test() -> None:
        async with serving(at_once) as live:
            await (await live.client()).request("GET", "/a%0AERROR%20forged")

    run_on(loop, test())
    assert logged()[0].message == "GET '/a\\nERROR forged': the application failed"
