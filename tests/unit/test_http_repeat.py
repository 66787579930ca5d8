"""Recognising a repeated head: whatever is recognised, the parser would have read the same."""

from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.server.repeat import MISSES, Repeat

HEADS = [
    b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nA: Content-Length: 7\r\n\r\n",
    b"POST / HTTP/1.1\r\nA: 1\r\ncontent-LENGTH:\t5\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost:x\r\nX-Content-Length: 9\r\nContent-Length:0\r\n\r\n",
]


class Head:
    """A request head, read by the parser alone."""

    def __init__(self, data: bytes) -> None:
        """Parse."""
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self._parser.feed_data(data)
        self.method = self._parser.get_method().decode()

    def on_url(self, url: bytes) -> None:
        """Collect."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect."""
        if not self.complete:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Stop."""
        self.complete = True

    @property
    def scope(self) -> dict[str, Any]:
        """What the reader makes of it, as far as it matters here."""
        return {"method": self.method, "raw_path": self.url, "headers": self.headers, "extensions": {"x": 1}}


def taught(head: bytes) -> Repeat:
    """Return a Repeat that knows a head."""
    repeat = Repeat()
    repeat.learn(head, Head(head).scope)
    return repeat


@pytest.mark.parametrize("head", HEADS)
def test_the_same_head_is_recognised(head: bytes) -> None:
    """The head that was learnt gives its size, its length and a scope with headers of its own."""
    repeat = taught(head)
    length = next((int(value) for name, value in Head(head).headers if name == b"content-length"), 0)
    for rest in (b"", b"x", b"GET / HTTP/1.1\r\n\r\n"):
        found = repeat.match(head + rest)
        assert found is not None
        size, left, scope = found
        assert (size, left) == (len(head), length)
        assert scope == Head(head).scope | {"extensions": {}}
        scope["headers"].clear()


@pytest.mark.parametrize("head", HEADS[1:])
def test_another_length_is_recognised(head: bytes) -> None:
    """A head that differs in the digits of its Content-Length gives the other length, also in its headers."""
    other = head.replace(b": 12", b": 345").replace(b"\t5", b"\t12345").replace(b":0", b":7")
    found = taught(head).match(other)
    assert found is not None
    assert found[:2] == (len(other), next(int(value) for name, value in Head(other).headers if name == b"content-length"))
    assert found[2]["headers"] == Head(other).headers


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a?b HTTP/1.1\r\nHost: x\r\n",
        b"GET /a?b HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n",
        b"\r\nGET /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_another_head_is_not(data: bytes) -> None:
    """A head that differs, or is not complete, is for the parser."""
    assert taught(HEADS[0]).match(data) is None


@pytest.mark.parametrize("digits", [b"", b" 1", b"1 ", b"+1", b"-1", b"1,1", b"0x1", b"1\n", b"1_0", "١".encode(), b"9" * 30, b"1\r\nA: b"])
def test_lengths_that_are_not_plain_digits(digits: bytes) -> None:
    """What stands in the place of the length must be digits, few enough, and end where the known head goes on."""
    assert taught(HEADS[1]).match(HEADS[1].replace(b"12", digits)) is None


def test_nothing_is_recognised_before_anything_is_learnt() -> None:
    """An empty Repeat recognises nothing."""
    assert Repeat().match(HEADS[0]) is None
    assert Repeat().match(b"") is None


def test_a_length_that_cannot_be_cut_out() -> None:
    """A head whose length is written with a trailing space is served by the parser each time."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1 \r\n\r\n"
    assert taught(head).match(head) is None


def test_heads_that_never_repeat_are_not_compared_for_ever() -> None:
    """After some heads without a repetition it stops learning; a repetition in between starts the count again."""
    repeat = Repeat()
    for number in range(MISSES - 1):
        repeat.learn(HEADS[0], Head(HEADS[0]).scope)
        assert repeat.learning, number
    assert repeat.match(HEADS[0])
    for _ in range(MISSES):
        assert repeat.learning
        repeat.learn(HEADS[0], Head(HEADS[0]).scope)
    assert not repeat.learning


@given(data=st.data())
def test_what_is_recognised_is_what_the_parser_reads(data: st.DataObject) -> None:
    """For a head with any bytes changed: if it is recognised, the parser reads method, target, headers and end of head the same."""
    head = data.draw(st.sampled_from(HEADS))
    repeat = taught(head)
    changed = bytearray(head + data.draw(st.sampled_from([b"", b"body", head])))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        new = data.draw(st.sampled_from([b"", b"0", b"7", b"12", b"\r", b"\n", b"\r\n", b" ", b":", b"\0", b"a"]))
        changed[at : at + data.draw(st.integers(0, 2))] = new
        changed = changed or bytearray(b"x")
    found = repeat.match(bytes(changed))
    if found is not None:
        size, left, scope = found
        parsed = Head(bytes(changed[:size]))
        assert parsed.complete
        assert changed[:size].endswith(b"\r\n\r\n")
        assert scope == parsed.scope | {"extensions": {}}
        assert left == next((int(value) for name, value in parsed.headers if name == b"content-length"), 0)
