"""Request ids and W3C trace context: sane ones come back, hostile ones do not, and requests without any cost and get nothing."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.server.trace import CURRENT, IDS_KEY, Identified, Ids, identify

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{PARENT}-01".encode()
Headers = list[tuple[bytes, bytes]]


def with_id(value: bytes, **options: bool) -> str:
    ids = identify([(b"host", b"x"), (b"x-request-id", value)], **options)
    assert ids is not None
    return ids.request_id


def with_parent(*values: bytes) -> Ids | None:
    return identify([(b"traceparent", value) for value in values])


def test_a_request_without_ids_has_none() -> None:
    """Nothing is made up unless every request is to have an id."""
    assert identify([(b"host", b"x"), (b"content-type", b"application/json")]) is None


def test_every_request_can_be_given_an_id() -> None:
    """As for the access log; two requests get two."""
    first, second = identify([], always=True), identify([], always=True)
    assert first is not None
    assert second is not None
    assert re.fullmatch("[0-9a-f]{32}", first.request_id)
    assert first.request_id != second.request_id


@pytest.mark.parametrize("value", [b"a", b"req-1/2:3", b"~" * 128, b'"{}"'])
@pytest.mark.parametrize("always", [False, True])
def test_a_sane_request_id_is_kept(value: bytes, always: bool) -> None:
    """Up to 128 visible ASCII characters."""
    assert with_id(value, always=always) == value.decode()


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a b", b"a\tb", b"a\x00", b"a\x1b[31m", "ü".encode(), b"\xff", b"a\r\nset-cookie: x"])
def test_any_other_request_id_is_replaced(value: bytes) -> None:
    """The caller wants an id, and gets one that can do no harm in headers and logs."""
    assert re.fullmatch("[0-9a-f]{32}", with_id(value))


def test_the_first_request_id_counts() -> None:
    """A second header changes nothing."""
    ids = identify([(b"x-request-id", b"one"), (b"x-request-id", b"two")])
    assert ids == Ids("one")


def test_a_trace_goes_on() -> None:
    """Same trace, same sampling, a span of our own."""
    ids = with_parent(VALID)
    assert ids is not None
    assert (ids.trace_id, ids.flags, ids.request_id) == (TRACE, 1, "")
    assert re.fullmatch("[0-9a-f]{16}", ids.span_id)
    assert ids.span_id != PARENT
    assert ids.headers() == [(b"traceparent", f"00-{TRACE}-{ids.span_id}-01".encode())]


@pytest.mark.parametrize(("flags", "passed_on"), [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("fd", "01"), ("ff", "03")])
def test_flags_that_are_known_are_passed_on(flags: str, passed_on: str) -> None:
    """Sampled, and random; others are not ours to repeat."""
    ids = with_parent(f"00-{TRACE}-{PARENT}-{flags}".encode())
    assert ids is not None
    assert ids.headers()[0][1].endswith(f"-{passed_on}".encode())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        VALID[:-1],
        VALID + b"0",
        VALID + b"-00",
        VALID.upper(),
        b" " + VALID,
        VALID + b"\n",
        b"ff" + VALID[2:],
        b"0g" + VALID[2:],
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        VALID.replace(b"-", b"_"),
        b"01" + VALID[2:] + b"extra",
        b"\xff" * 55,
    ],
)
def test_a_trace_context_that_breaks_the_rules_is_ignored(value: bytes) -> None:
    """It is as if there were none; a request id beside it is still good."""
    assert with_parent(value) is None
    assert identify([(b"traceparent", value), (b"x-request-id", b"a")]) == Ids("a")


@pytest.mark.parametrize("value", [b"01" + VALID[2:], b"cc" + VALID[2:] + b"-what-comes-later"])
def test_a_later_version_is_read_as_far_as_it_is_known(value: bytes) -> None:
    """And answered as version 00."""
    ids = with_parent(value)
    assert ids is not None
    assert ids.headers()[0][1].startswith(f"00-{TRACE}-".encode())


def test_two_trace_contexts_are_none() -> None:
    """Nobody can say which one is meant."""
    assert with_parent(VALID, VALID) is None
    assert with_parent(VALID, b"nonsense") is None


@given(st.lists(st.tuples(st.sampled_from([b"x-request-id", b"traceparent", b"host"]), st.binary(max_size=150)), max_size=4), st.booleans())
def test_no_header_breaks_it(headers: Headers, always: bool) -> None:
    """Whatever comes, what goes back is clean."""
    ids = identify(headers, always=always)
    for name, value in ids.headers() if ids is not None else []:
        assert re.fullmatch(rb"[!-~]{1,128}", value)
        assert name in (b"x-request-id", b"traceparent")


@given(st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
def test_what_is_answered_could_be_sent_on(value: bytes) -> None:
    """Our answer to a valid context is a valid context of the same trace."""
    ids = with_parent(value)
    if ids is not None:
        again = with_parent(ids.headers()[0][1])
        assert again is not None
        assert again.trace_id == ids.trace_id == value.split(b"-")[1].decode()


class Site:
    """An application that remembers which ids it saw, wrapped."""

    def __init__(self, **options: Any) -> None:
        self.seen: list[Ids | None] = []
        self.app = Identified(self._app, **options)
        self.during: Callable[[], Awaitable[None]] | None = None

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(CURRENT.get())
        if self.during is not None:
            await self.during()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def ask(self, *headers: tuple[bytes, bytes], kind: str = "http") -> tuple[Headers, dict[str, Any]]:
        """One request: the headers of its answer, and its scope."""
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            raise AssertionError("nobody reads")

        scope: dict[str, Any] = {"type": kind, "path": "/", "headers": list(headers)}
        await self.app(scope, receive, send)
        assert sent[1] == {"type": "http.response.body", "body": b"ok"}
        return sent[0]["headers"], scope


def test_the_answer_carries_them() -> None:
    """Beside its own headers, and the application and the access log can see them."""
    site = Site()
    headers, scope = asyncio.run(site.ask((b"x-request-id", b"abc"), (b"traceparent", VALID)))
    assert headers[:2] == [(b"content-type", b"text/plain"), (b"x-request-id", b"abc")]
    assert headers[2][1].startswith(f"00-{TRACE}".encode())
    assert site.seen == [scope[IDS_KEY]]


def test_without_ids_the_application_is_called_as_it_is() -> None:
    """No header is added, and log records know of none."""
    site = Site()
    headers, scope = asyncio.run(site.ask())
    assert headers == [(b"content-type", b"text/plain")]
    assert site.seen == [None]
    assert scope[IDS_KEY] is None


def test_other_kinds_of_connections_pass() -> None:
    """Only HTTP requests have ids."""
    site = Site(always=True)
    headers, scope = asyncio.run(site.ask((b"x-request-id", b"abc"), kind="lifespan"))
    assert headers == [(b"content-type", b"text/plain")]
    assert IDS_KEY not in scope


def test_requests_at_the_same_time_keep_their_own() -> None:
    """Each task sees the ids of its request, also after waiting for others, and none remain behind."""
    site = Site()

    async def test() -> list[str]:
        arrived = asyncio.Barrier(5)
        seen: list[str] = []

        async def meet() -> None:
            async with arrived:
                pass
            ids = CURRENT.get()
            assert ids is not None
            seen.append(ids.request_id)

        site.during = meet
        await asyncio.gather(*(site.ask((b"x-request-id", b"r%d" % i)) for i in range(5)))
        assert CURRENT.get() is None
        return seen

    assert sorted(asyncio.run(test())) == ["r0", "r1", "r2", "r3", "r4"]


def test_an_application_that_fails_leaves_no_ids() -> None:
    """The next request of the same task has its own or none."""
    site = Site()

    async def fail() -> None:
        raise RuntimeError("broken")

    async def test() -> None:
        site.during = fail
        with pytest.raises(RuntimeError, match="broken"):
            await site.ask((b"x-request-id", b"abc"))
        assert CURRENT.get() is None

    asyncio.run(test())


def test_only_requests_without_ids_run_without_a_task() -> None:
    """Where the application agrees; a task keeps the ids apart from those of other requests on the connection."""
    plain: dict[str, Any] = {"type": "http", "path": "/infer", "headers": []}
    named: dict[str, Any] = {"type": "http", "path": "/infer", "headers": [(b"x-request-id", b"a")]}
    agrees = Site(eager=lambda scope: scope["path"] == "/infer").app
    assert agrees.eager(dict(plain))
    assert not agrees.eager({**plain, "path": "/other"})
    assert not agrees.eager(dict(named))
    assert not Site(eager=lambda scope: True, always=True).app.eager(dict(plain))
    assert not Site().app.eager(dict(plain))
