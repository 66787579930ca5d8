"""Reading a program's reply: whatever way its bytes come apart, and what is none."""

import asyncio
import socket
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.dialects.floydhub.endpoint_reply import BadReply, Reply

REPLIES = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello": b"hello",
    b"HTTP/1.0 200 OK\r\n\r\nhello": b"hello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: 1\r\n\r\n": b"hello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nX: y\r\nContent-Length: 5\r\n\r\nhello": b"hello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello and more": b"hello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 201 OK\r\nContent-Length: 4\r\n\r\nmore": b"hello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 201 OK\r\nContent-Length: 4\r\n\r\nmore": b"",
    b"HTTP/1.1 204 No Content\r\n\r\n": b"",
}


async def read(raw: bytes, cuts: list[int], method: str = "GET") -> tuple[Reply, bytes]:
    """The reply that comes in these pieces, and its body."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reply = Reply(ours, method)

        async def send() -> None:
            for start, stop in pairwise(sorted({0, *(cut % len(raw) for cut in cuts), len(raw)})):
                theirs.send(raw[start:stop])
                for _ in range(3):
                    await asyncio.sleep(0)
            theirs.shutdown(socket.SHUT_WR)

        sending = asyncio.get_running_loop().create_task(send())
        try:
            await reply.begin()
            return reply, b"".join([piece async for piece in reply.body()])
        finally:
            await asyncio.gather(sending, return_exceptions=True)


@given(raw=st.sampled_from(sorted(REPLIES)), cuts=st.lists(st.integers(0, 200), max_size=8))
def test_a_reply_may_come_in_any_pieces(raw: bytes, cuts: list[int]) -> None:
    """The same head and body come of it."""
    reply, body = asyncio.run(read(raw, cuts))
    assert body == REPLIES[raw]
    assert reply.complete
    assert reply.status in (200, 204, 404)
    assert not any(name == b"trailer" for name, _ in reply.headers)


@given(raw=st.sampled_from([raw for raw in sorted(REPLIES) if b"1.0" not in raw and b"more" not in raw]), data=st.data())
def test_a_reply_that_stops_early_is_never_whole(raw: bytes, data: st.DataObject) -> None:
    """Before its head is complete it is none at all, then it breaks off."""
    end = data.draw(st.integers(1, len(raw) - 1))
    with pytest.raises((BadReply, ConnectionAbortedError)):
        asyncio.run(read(raw[:end], []))


@given(raw=st.binary(min_size=1, max_size=300))
def test_no_bytes_do_harm(raw: bytes) -> None:
    """What is no reply is refused in words, behind a beginning that looks like one, too."""
    for beginning in (b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        with suppress(BadReply, ConnectionAbortedError):
            asyncio.run(read(beginning + raw, []))


def test_an_answer_to_head_has_no_body() -> None:
    """Whatever its length says, and whatever comes."""
    for raw in (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"):
        reply, body = asyncio.run(read(raw, [], "HEAD"))
        assert (body, dict(reply.headers)[b"content-length"]) == (b"", b"5")
