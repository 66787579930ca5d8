"""`fetch` against servers that send too much, too slowly, or something else: limits of size and time, statuses, broken answers."""

import asyncio
import gzip
from dataclasses import replace

import pytest

from dragoman.core.errors import Kind
from dragoman.serving.fetch import fetch
from tests.unit.fetch_site import LOOPBACK, ok, refused, run, site


def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    """A Content-Length over the limit is TOO_LARGE at once, although the body never comes."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"", length=1001)) as it:
            error = await refused(it.url())
            assert error.kind is Kind.TOO_LARGE
            assert "1000 bytes" in error.message

    run(scenario())


def test_a_body_is_counted_while_it_comes() -> None:
    """Without a length the count is kept chunk by chunk; exactly the limit still passes."""

    async def scenario() -> None:
        async with site(lambda path: b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * int(path[1:])) as it:
            assert len((await fetch(it.url("/1000"), LOOPBACK)).data) == 1000
            assert (await refused(it.url("/1001"))).kind is Kind.TOO_LARGE
            assert (await refused(it.url("/3000000"))).kind is Kind.TOO_LARGE

    run(scenario())


def test_gzip_is_unpacked() -> None:
    """A compressed answer is unpacked, also one of several members, up to exactly the limit."""

    async def scenario() -> None:
        bodies = {"/one": gzip.compress(b"x" * 1000), "/two": gzip.compress(b"ab") + gzip.compress(b"cd"), "/none": b""}
        async with site(lambda path: ok(bodies[path], "Content-Encoding: GZIP")) as it:
            assert (await fetch(it.url("/one"), LOOPBACK)).data == b"x" * 1000
            assert (await fetch(it.url("/two"), LOOPBACK)).data == b"abcd"
            assert (await fetch(it.url("/none"), LOOPBACK)).data == b""

    run(scenario())


def test_a_gzip_bomb_is_too_large() -> None:
    """What unpacks to more than the limit is refused, in one member or split over many."""

    async def scenario() -> None:
        bombs = {"/one": gzip.compress(b"\0" * 500_000), "/many": gzip.compress(b"\0" * 90) * 40, "/edge": gzip.compress(b"x" * 1001)}
        async with site(lambda path: ok(bombs[path], "Content-Encoding: gzip")) as it:
            for path in bombs:
                assert (await refused(it.url(path))).kind is Kind.TOO_LARGE

    run(scenario())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"not gzip", id="text"),
        pytest.param(gzip.compress(b"x" * 500)[:-4], id="no length at its end"),
        pytest.param(gzip.compress(b"x")[:5], id="half a head"),
        pytest.param(gzip.compress(b"x") + b"rest", id="text behind it"),
        pytest.param(gzip.compress(b"a") + gzip.compress(b"b")[:-1], id="second member cut"),
    ],
)
def test_damaged_gzip_is_invalid(body: bytes) -> None:
    """Damaged, cut and padded streams are errors; half a file is never passed off as a whole one."""

    async def scenario() -> None:
        async with site(lambda path: ok(body, "Content-Encoding: gzip")) as it:
            assert (await refused(it.url())).kind is Kind.INVALID_INPUT

    run(scenario())


def test_endless_empty_gzip_members_end() -> None:
    """Members that hold nothing cost time without ever reaching the limit of bytes, so their number is limited."""

    async def scenario() -> None:
        empty = gzip.compress(b"")
        async with site(lambda path: ok(empty * int(path[1:]), "Content-Encoding: gzip")) as it:
            policy = replace(LOOPBACK, max_bytes=10**6)
            assert (await fetch(it.url("/9000"), policy)).data == b""
            assert (await refused(it.url("/10001"), policy)).kind is Kind.INVALID_INPUT
            assert (await refused(it.url("/9000"))).kind is Kind.TOO_LARGE

    run(scenario())


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "x" * 500])
def test_other_encodings_are_refused(encoding: str) -> None:
    """Only gzip was asked for. Nested encodings are how small bodies grow a million times."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"x", f"Content-Encoding: {encoding}")) as it:
            error = await refused(it.url())
            assert error.kind is Kind.INVALID_INPUT
            assert len(error.message) < 250

    run(scenario())


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
def test_a_server_that_stalls_is_given_up(start: bytes) -> None:
    """A server that stops before its head, within it or within its body is left after the time of the policy."""

    async def scenario() -> None:
        hang = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(start)
            await writer.drain()
            await hang.wait()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            error = await refused(f"http://127.0.0.1:{port}/x?k=hunter2", replace(LOOPBACK, timeout_s=0.05))
            assert error.kind is Kind.TIMEOUT
            assert f"http://127.0.0.1:{port}/x could not be read within 0.05 s" in error.message
            hang.set()

    run(scenario())


def test_a_slow_resolver_is_given_up() -> None:
    """The time of the policy covers the look-up as well."""

    async def stuck(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    async def scenario() -> None:
        assert (await refused("http://models.example/", replace(LOOPBACK, timeout_s=0.05), resolver=stuck)).kind is Kind.TIMEOUT

    run(scenario())


def test_cancelling_a_fetch_hangs_up() -> None:
    """The task that waits for a fetch can be cancelled; the other server then sees the connection end."""

    async def scenario() -> None:
        asked, left = asyncio.Event(), asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()
            left.set()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            task = asyncio.create_task(fetch(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", LOOPBACK))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await left.wait()

    run(scenario())


# --- what other servers answer


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((200, None), (206, None), (304, Kind.INVALID_INPUT), (400, Kind.INVALID_INPUT), (401, Kind.INVALID_INPUT)),
        *((404, Kind.INVALID_INPUT), (410, Kind.INVALID_INPUT), (429, Kind.UNAVAILABLE), (408, Kind.UNAVAILABLE)),
        *((500, Kind.UNAVAILABLE), (503, Kind.UNAVAILABLE), (599, Kind.UNAVAILABLE), (499, Kind.INVALID_INPUT)),
    ],
)
def test_statuses(status: int, kind: Kind | None) -> None:
    """2xx is an answer; what will not change is the caller's mistake; what may change later is UNAVAILABLE. The text has the number."""

    async def scenario() -> None:
        async with site(lambda path: f"HTTP/1.1 {status} Word\r\nContent-Length: 0\r\n\r\n".encode()) as it:
            if kind is None:
                assert (await fetch(it.url(), LOOPBACK)).data == b""
            else:
                error = await refused(it.url())
                assert error.kind is kind
                assert f"answered {status}" in error.message

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"HTTP/1.1 200 OK\r\n", ok(b"half", length=8), b"\x15\x03\x01\x00\x02\x02\x46"),
        *(ok(b"", "Content-Length: 5"), b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000),
        *(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",),
        *(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",),
    ],
)
def test_broken_answers_are_unavailable(answer: bytes) -> None:
    """Servers that speak something else, contradict themselves or hang up half way are reported, never believed."""

    async def scenario() -> None:
        async with site(lambda path: answer) as it:
            assert (await refused(it.url())).kind is Kind.UNAVAILABLE

    run(scenario())


def test_a_closed_port_is_unavailable() -> None:
    """A host where nobody listens cannot be reached, and the text says so."""

    async def scenario() -> None:
        async with site(lambda path: ok(b"")) as it:
            url = it.url("/x", host="me:hunter2@127.0.0.1")
        error = await refused(url)
        assert error.kind is Kind.UNAVAILABLE
        assert "cannot be reached" in error.message
        assert "hunter2" not in error.message

    run(scenario())
