"""`post` and webhooks against a real server on loopback: what is sent, what is followed, where nothing is sent at all."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest
import trustme

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.fetch import FetchPolicy, post
from dragoman.serving.webhooks import PAUSES_S, Webhooks, check_url
from tests.unit.fetch_site import LOOPBACK, names


@dataclass
class Receiver:
    """Reads requests with a body, and answers them as told."""

    port: int = 0
    requests: list[tuple[str, bytes]] = field(default_factory=list)

    def url(self, path: str = "/hook", scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextlib.asynccontextmanager
async def receiver(answer: Callable[[int], bytes], tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Serves until the block ends, one request a connection; `answer` gets the number of the request."""
    found = Receiver()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length:"))
            found.requests.append((head, await reader.readexactly(length)))
            writer.write(answer(len(found.requests)))
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


def status(code: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {code} Word", "Content-Length: 0", *headers, "", ""]).encode()


async def refused(url: str, policy: FetchPolicy = LOOPBACK) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await post(url, b"{}", policy)
    return caught.value


# --- post ---


def test_a_body_is_posted() -> None:
    """JSON with its length and the headers that were asked for; the status comes back."""

    async def scenario() -> None:
        async with receiver(lambda n: status(202)) as it:
            assert await post(it.url("/a?b=c"), b'{"x":1}', LOOPBACK, headers={"X-Prediction-Id": "abc"}) == 202
            ((head, body),) = it.requests
            assert body == b'{"x":1}'
            assert head.startswith("POST /a?b=c HTTP/1.1\r\n")
            for line in ("Content-Type: application/json", "Content-Length: 7", "X-Prediction-Id: abc", f"Host: 127.0.0.1:{it.port}"):
                assert f"\r\n{line}\r\n" in head

    asyncio.run(scenario())


def test_redirects_are_not_followed() -> None:
    """The status is all that is looked at."""

    async def scenario() -> None:
        async with receiver(lambda n: status(200)) as target, receiver(lambda n: status(307, f"Location: {target.url()}")) as it:
            assert await post(it.url(), b"{}", LOOPBACK) == 307
            assert target.requests == []

    asyncio.run(scenario())


def test_a_large_body_and_an_endless_answer() -> None:
    """A megabyte is sent; of the answer only the head is read."""

    async def scenario() -> None:
        endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 1000
        async with receiver(lambda n: endless) as it:
            assert await post(it.url(), b"x" * 1_000_000, LOOPBACK) == 200
            assert len(it.requests[0][1]) == 1_000_000

    asyncio.run(scenario())


def test_post_over_tls() -> None:
    """The certificate is checked against the host name."""

    async def scenario() -> None:
        authority = trustme.CA()
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        authority.issue_cert("hook.example").configure_cert(server)
        authority.configure_trust(client)
        resolver = names(hook_example=["127.0.0.1"], other_example=["127.0.0.1"])
        async with receiver(lambda n: status(200), server) as it:
            url = it.url(scheme="https", host="hook.example")
            assert await post(url, b"{}", LOOPBACK, resolver=resolver, trust=client) == 200
            with pytest.raises(ServingError, match="certificate"):
                await post(it.url(scheme="https", host="other.example"), b"{}", LOOPBACK, resolver=resolver, trust=client)
            assert len(it.requests) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1:1/", Kind.FORBIDDEN),
        ("http://[::1]/", Kind.FORBIDDEN),
        ("http://169.254.169.254/latest", Kind.FORBIDDEN),
        ("http://2130706433/", Kind.FORBIDDEN),
        ("file:///etc/passwd", Kind.INVALID_INPUT),
        ("ftp://host/", Kind.INVALID_INPUT),
        ("http://[", Kind.INVALID_INPUT),
        ("http://", Kind.INVALID_INPUT),
        ("", Kind.INVALID_INPUT),
    ],
)
def test_where_nothing_is_posted(url: str, kind: Kind) -> None:
    """What the policy does not open, and what is no URL."""

    async def scenario() -> None:
        assert (await refused(url, FetchPolicy.parse([]))).kind is kind

    asyncio.run(scenario())


def test_a_host_that_does_not_answer() -> None:
    """TIMEOUT after the policy's time; UNAVAILABLE where nobody listens."""

    async def scenario() -> None:
        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            await writer.wait_closed()

        silent = await asyncio.start_server(listen, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        async with silent:
            assert (await refused(f"http://127.0.0.1:{port}/", replace(LOOPBACK, timeout_s=0.05))).kind is Kind.TIMEOUT
        assert (await refused(f"http://127.0.0.1:{port}/")).kind is Kind.UNAVAILABLE

    asyncio.run(scenario())


# --- webhooks ---


def test_a_webhook_is_tried_until_it_is_taken() -> None:
    """Over real sockets: two failures, then success; the pauses grow."""

    async def scenario() -> None:
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        async with receiver(lambda n: status(200 if n == 3 else 503)) as it:
            assert await Webhooks(LOOPBACK, sleep=sleep).deliver(it.url("/hook?token=secret"), "a" * 32, json.dumps({"n": 1}).encode())
            assert [json.loads(body) for _, body in it.requests] == [{"n": 1}] * 3
            assert all(f"X-Prediction-Id: {'a' * 32}" in head for head, _ in it.requests)
        assert tuple(pauses) == PAUSES_S[:2]
        assert list(PAUSES_S) == sorted(PAUSES_S)

    asyncio.run(scenario())


def test_a_webhook_to_a_closed_host_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """Once, without a try; the log shows no query."""

    async def scenario() -> None:
        assert not await Webhooks(FetchPolicy.parse([])).deliver("http://127.0.0.1:9/hook?token=secret", "a" * 32, b"{}")

    asyncio.run(scenario())
    assert "is given up" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("url", ["http://x", "https://user:pass@host:99/a?b#c", "http://[::1]:80/", "http://127.0.0.1/"])
def test_urls_that_may_be_asked_for(url: str) -> None:
    """Whether the host is open is seen when it is called."""
    check_url(url)


@pytest.mark.parametrize("url", ["x", "ftp://x", "http://", "http:///x", "http://[", "http://a b", "http://x/\n", "http://x/" + "y" * 3000])
def test_urls_that_may_not(url: str) -> None:
    """Refused when the prediction is asked for, without showing secrets."""
    with pytest.raises(ServingError, match="the webhook must be") as caught:
        check_url(url)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert len(caught.value.message) < 400
