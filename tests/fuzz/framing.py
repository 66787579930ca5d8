"""Requests whose framing is odd or wrong. Each is a list of pieces for a connection of its own, with the methods of the answers to expect."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.fuzz.cases import Case


@dataclass(slots=True)
class Odd:
    """What to send, piece by piece. `cases`: the requests that must be answered rightly, in order; empty when nobody knows what comes."""

    pieces: list[bytes]
    cases: list[Case]
    what: str


def _chunked(case: Case, rng: Random) -> bytes:
    """The request with a chunked body of random cuts, extensions and trailers."""
    made = case.materialised()
    body = made.raw or b""
    head = Case(made.method, made.target, headers=[*made.headers, (b"transfer-encoding", b"chunked")]).head()
    pieces = [head]
    while body:
        size = rng.randrange(1, min(len(body), rng.choice((1, 16, 5000))) + 1)
        line = rng.choice((b"%x", b"%X", b"0%x", b"%x;name=value", b'%x;a="b c"')) % size
        pieces += [line, b"\r\n", body[:size], b"\r\n"]
        body = body[size:]
    return b"".join([*pieces, b"0\r\n", rng.choice((b"", b"", b"x-trailer: yes\r\n")), b"\r\n"])


def _cut(data: bytes, rng: Random) -> list[bytes]:
    """Bytes in a few pieces, cut anywhere."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2, 5))))
    edges = [0, *cuts, len(data)]
    return [piece for piece in (data[start:end] for start, end in itertools.pairwise(edges)) if piece]


def _pieces(valid: Callable[[Random], Case], rng: Random) -> Odd:
    """A valid request, cut anywhere, chunked or not."""
    case = valid(rng)
    data = _chunked(case, rng) if case.body is not None and rng.random() < 0.5 else case.message()
    return Odd(_cut(data, rng), [case], "pieces")


def _pipelined(valid: Callable[[Random], Case], rng: Random) -> Odd:
    """Several valid requests at once."""
    cases = [valid(rng) for _ in range(rng.randrange(2, 9))]
    cases = [case for case in cases if case.undo is None]
    data = b"".join(_chunked(case, rng) if case.body is not None and rng.random() < 0.3 else case.message() for case in cases)
    return Odd(_cut(data, rng), cases, "pipelined")


def _spelled(valid: Callable[[Random], Case], rng: Random) -> Odd:
    """Valid requests that are spelled in a way which few clients use."""
    case = valid(rng)
    head, body = case.materialised().head(), case.body or b""
    match rng.randrange(7):
        case 0:
            head = head.replace(b"host:", b"HoSt:").replace(b"content-length:", b"CONTENT-LENGTH:\t ")
        case 1:
            head = head.replace(b" HTTP/1.1", b" HTTP/1.0")
        case 2:
            head = head.replace(b"host:", b"connection: close\r\nhost:")
        case 3:
            head = head.replace(b"host:", b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhost:")
        case 4:
            head = b"\r\n\r\n" + head
        case 5:
            head = head.replace(b"host:", b"expect: 100-continue\r\nhost:")
        case _:
            head = head.replace(b" /", b" http://127.0.0.1/", 1)
    return Odd(_cut(head + body, rng), [case], "spelled")


_WRONG_HEADS = (
    (
        b"host: 127.0.0.1\r\n",
        (b"", b"host: a\r\nhost: b\r\n", b"host:\r\n", b"host : x\r\n", b" host: x\r\n", b"host: a\x00b\r\n", b"host\r\n"),
    ),
    (b" HTTP/1.1", (b" HTTP/2.0", b" HTTP/0.9", b" HTTP/1.9", b" HTTP/1", b" http/1.1", b"", b" HTTP/1.1 ", b" FTP/1.1", b" HTTP/11.1")),
    (b"\r\n", (b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\r\r\n", b"\x00\r\n", b"\r\n\r\n")),
    (
        b"content-length: ",
        *(
            (
                *(b"content-length: -", b"content-length: +", b"content-length: 0x", b"content-length: 9999999999", b"content-length: 1, "),
                *(b"content-length: 4\r\ncontent-length: ", b"transfer-encoding: chunked\r\ncontent-length: ", b"content_length: "),
                *(
                    b"content-length: 99999999999999999999999",
                    b"transfer-encoding: gzip, chunked\r\nx: ",
                    b"transfer-encoding: xchunked\r\nx: ",
                ),
                *(
                    b"transfer-encoding: chunked\r\nx: ",
                    b"transfer-encoding: identity\r\nx: ",
                    b"content-length: \x0b",
                    b"expect: x\r\ncontent-length: ",
                ),
            ),
        ),
    ),
    (b"POST ", (b"post ", b"P\xd6ST ", b"POST\t", b"POST  ", b"CONNECT ", b"\x00POST ", b"POSTPOST ", b" POST ", b"GET ", b"SOURCE ")),
    (
        b" /",
        (b" ", b" http://", b" ftp://x/", b" /\x00", b" /\xff", b" /#", b" /a b", b" ?", b" http:///", b" /" + b"y" * 17_000, b" [::1]/"),
    ),
)
_NO_HTTP = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5_000,
    b"A" * 100_000,
    b"\x00" * 50,
    b"\r\n" * 3_000,
    b"GET /\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.0\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: AAAA\r\nsec-websocket-version: 13\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x80\x9e\x01\x03\x01",
    b"{}",
)


def _bodied(valid: Callable[[Random], Case], rng: Random) -> Case:
    """A request whose answer has a body, so that answers can be told apart without knowing which request they are for."""
    while (case := valid(rng)).method == "HEAD":
        pass
    return case


def _wrong_head(valid: Callable[[Random], Case], rng: Random) -> Odd:
    data = _bodied(valid, rng).message()
    for _ in range(rng.choice((1, 1, 2))):
        old, new = rng.choice(_WRONG_HEADS)
        data = data.replace(old, rng.choice(new), 1)
    return Odd(_cut(data, rng), [], "wrong head")


def _flipped(valid: Callable[[Random], Case], rng: Random) -> Odd:
    """Bits turned or bytes put in anywhere in the head."""
    data = bytearray(_bodied(valid, rng).message())
    end = data.index(b"\r\n\r\n")
    for _ in range(rng.choice((1, 1, 2, 6))):
        at = rng.randrange(end)
        if rng.random() < 0.7:
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at:at] = rng.choice((b"\x00", b"\r", b"\n", b"\r\n", b" ", b":", b"\xff", b"\x7f", rng.randbytes(3)))
    return Odd(_cut(bytes(data), rng), [], "flipped head")


def _wrong_chunks(valid: Callable[[Random], Case], rng: Random) -> Odd:
    """A chunked body that breaks its own rules."""
    data = _chunked(_bodied(valid, rng), rng)
    head, _, body = data.partition(b"\r\n\r\n")
    bad = rng.choice(
        (
            *(
                b"-1\r\n",
                b"ffffffffffffffff\r\n",
                b"10000000000000000\r\n",
                b"0x5\r\nhello\r\n",
                b"g\r\n",
                b"\r\n",
                b" 5\r\nhello\r\n",
                b"5\r\nhel",
            ),
            *(b"5\nhello\n", b"5\r\nhelloX\r\n", b"0\r\n" + b"t: x\r\n" * 20_000, b"1;" + b"e" * 70_000 + b"\r\nx\r\n", b"0\r\n\r\nGET"),
        )
    )
    at = body.find(b"\r\n") + 2 if rng.random() < 0.5 else 0
    return Odd(_cut(head + b"\r\n\r\n" + body[:at] + bad + body[at:], rng), [], "wrong chunks")


def _truncated(valid: Callable[[Random], Case], rng: Random) -> Odd:
    """A request that stops anywhere."""
    data = _bodied(valid, rng).message()
    return Odd(_cut(data[: rng.randrange(len(data))], rng), [], "truncated")


def _no_http(valid: Callable[[Random], Case], rng: Random) -> Odd:
    return Odd(_cut(rng.choice((*_NO_HTTP, rng.randbytes(rng.randrange(1, 2_000)))), rng), [], "no http")


_KINDS = ((_pieces, 4), (_pipelined, 4), (_spelled, 3), (_wrong_head, 4), (_flipped, 4), (_wrong_chunks, 2), (_truncated, 2), (_no_http, 1))


def odd(valid: Callable[[Random], Case], rng: Random) -> Odd:
    """Any of these."""
    (kind,) = rng.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])
    return kind(valid, rng)
