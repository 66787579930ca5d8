"""A client that sends bytes as they are and takes nothing but valid HTTP/1.1 back. One per connection; used by the driver and the tests."""

import contextlib
import re
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [ -~]*\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t\x20-\x7e\x80-\xff]*)\Z")
_SINGLE = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"date", b"connection"})
TIMEOUT_S = 60.0


class BrokenAnswerError(Exception):
    """What came is no answer of HTTP/1.1."""


@dataclass(slots=True)
class Answer:
    """One final answer. `body` is without its framing, but compressed if it was."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes

    @property
    def media_type(self) -> bytes:
        return self.headers.get(b"content-type", b"").partition(b";")[0]


class Wire:
    """One connection. Close it with `close`; after `answer` has seen `Connection: close` it is `ended`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """Connect."""
        self._socket = socket.create_connection((host, port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""
        self.ended = False

    def send(self, data: bytes) -> bool:
        """Put bytes on the wire; False when the server has closed (what it said before can still be read)."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def half_close(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def readable(self, timeout_s: float = 0.0) -> bool:
        """Whether something has come, be it the end."""
        return bool(self._left) or bool(select.select([self._socket], [], [], timeout_s)[0])

    def answer(self, method: str) -> Answer | None:
        """The next final answer, None at the end of the connection. Raises BrokenAnswerError for anything else."""
        while True:
            head = self._until(b"\r\n\r\n")
            if head is None:
                self.ended = True
                return None
            answer = self._with_body(*_parse(head), method)
            if answer.status >= 200:
                self.ended = answer.headers.get(b"connection") == b"close"
                return answer

    def answers(self, methods: str = "GET") -> list[Answer]:
        """All answers up to the end of the connection, which must come."""
        found = []
        while (answer := self.answer(methods)) is not None:
            found.append(answer)
        return found

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _with_body(self, status: int, headers: dict[bytes, bytes], method: str) -> Answer:
        if status < 200 or status in (204, 304):
            return Answer(status, headers, b"")
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if (length is None) == (coding is None) and headers.get(b"connection") != b"close":
            raise BrokenAnswerError(f"the length of the answer is not clear: {headers}")
        if method == "HEAD":
            return Answer(status, headers, b"")
        if coding is not None:
            if coding != b"chunked":
                raise BrokenAnswerError(f"the answer is coded {coding!r}")
            return Answer(status, headers, self._chunks())
        if length is None:
            return Answer(status, headers, self._rest())
        if not length.isdigit():
            raise BrokenAnswerError(f"the length of the answer is {length!r}")
        return Answer(status, headers, self._exactly(int(length)))

    def _chunks(self) -> bytes:
        pieces: list[bytes] = []
        while True:
            line = self._until(b"\r\n")
            if line is None or not re.fullmatch(rb"[0-9a-f]+", line):
                raise BrokenAnswerError(f"the size of a chunk is {line!r}")
            size = int(line, 16)
            piece = self._exactly(size + 2)
            if piece[size:] != b"\r\n":
                raise BrokenAnswerError("a chunk has no end")
            if not size:
                return b"".join(pieces)
            pieces.append(piece[:size])

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._left:
            more = self._receive()
            if not more:
                if self._left:
                    raise BrokenAnswerError(f"the connection ends within an answer: {self._left[:200]!r}")
                return None
            self._left += more
        found, _, self._left = self._left.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        pieces = [self._left]
        have = len(self._left)
        while have < size:
            more = self._receive()
            if not more:
                raise BrokenAnswerError(f"the connection ends within a body: {have} bytes of {size}")
            pieces.append(more)
            have += len(more)
        body = b"".join(pieces)
        self._left = body[size:]
        return body[:size]

    def _rest(self) -> bytes:
        pieces = [self._left]
        while more := self._receive():
            pieces.append(more)
        self._left = b""
        return b"".join(pieces)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(1 << 18)
        except ConnectionResetError:
            return b""
        except TimeoutError:
            raise BrokenAnswerError(f"no answer within {TIMEOUT_S:g} s") from None


def _parse(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of a head without its last line end."""
    lines = head.split(b"\r\n")
    found = _STATUS_LINE.match(lines[0])
    if found is None:
        raise BrokenAnswerError(f"no status line: {lines[0][:200]!r}")
    headers: dict[bytes, bytes] = {}
    for line in lines[1:]:
        field = _FIELD.match(line)
        if field is None:
            raise BrokenAnswerError(f"no header: {line[:200]!r}")
        name = field[1].lower()
        if name in headers and name in _SINGLE:
            raise BrokenAnswerError(f"{name.decode()} comes twice")
        headers[name] = field[2]
    return int(found[1]), headers
