"""Requests that are wrong in what they say but framed rightly, so that the connection can go on: the driver sends them one after the other."""

import gzip
import zlib
from collections.abc import Callable
from functools import cache
from random import Random
from urllib.parse import quote_from_bytes

from tests.fuzz.cases import LENGTH, Case
from tests.fuzz.documents import hostile, spoilt

_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "PURGE")
_SPLICES = (
    b"%00",
    b"%2F",
    b"%2f",
    b"%ff",
    b"%C3%A9",
    b"%ED%A0%80",
    b"%",
    b"%zz",
    b"//",
    b"/../",
    b"/./",
    b"?",
    b"?a=b&c",
    b":",
    b";x",
    b"@",
    b"%0d%0a",
)
_PARTS = (
    b"versions",
    b"1",
    b"0",
    b"-1",
    b"99999999999999999999",
    b"labels",
    b"infer",
    b"ready",
    b"stats",
    b"config",
    b"generate",
    b"metadata",
    b"predictions",
    b"predict",
    b"demo",
    b"cancel",
    b"events",
    b"files",
    b"models",
    b"0123456789abcdef0123456789abcdef",
    b"",
)
_LENGTHS = (b"", b"-1", b"0", b"1", b"+5", b"5.0", b"0x10", b" 7", b"99999999999999999999", b"9" * 400, b"abc", b"1,2", b"\xb2", b"07")
_CODINGS = (
    b"gzip",
    b"deflate",
    b"br",
    b"zstd",
    b"x-gzip",
    b"identity",
    b"",
    b"gzip, gzip",
    b"GZIP",
    b"gzip;q=1",
    b"\xff",
    b"gzip\tdeflate",
)
_ACCEPTED = (
    b"gzip",
    b"*",
    b"gzip;q=nan",
    b"gzip;q=1e309",
    b"deflate;q=-1",
    b"gzip;q=0.5;q=2",
    b"," * 500,
    b"identity;q=0",
    b"gzip;" * 300,
    b"\xe9",
)
_HEADERS = (
    (b"content-type", (b"text/html", b"", b"application/octet-stream", b"multipart/form-data; boundary=x", b"\xff\xfe", b"a" * 3000)),
    (b"accept", (b"text/html", b"", b"application/json;q=0", b"*/*" * 200)),
    (b"accept-encoding", _ACCEPTED),
    (b"content-encoding", _CODINGS),
    (LENGTH, _LENGTHS),
    (b"origin", (b"http://evil.example", b"null", b"", b"http://127.0.0.1:1", b"http://[::1", b"://")),
    (b"sec-fetch-site", (b"cross-site", b"none", b"same-origin", b"")),
    (b"x-request-id", (b"a", b"", b"a" * 129, b"\xff", b"a b")),
    (b"traceparent", (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"00-0-0-0", b"ff" * 40, b"")),
    (b"authorization", (b"Bearer x", b"Basic !!!", b"Basic " + b"A" * 999, b"apikey", b"Basic eA==", b"")),
    (b"x-api-key", (b"x", b"", b"\xff" * 30)),
    (b"access-control-request-method", (b"POST", b"X", b"")),
    (b"if-none-match", (b"*",)),
    (b"range", (b"bytes=0-1",)),
    (
        b"x-webhook-url",
        (b"http://127.0.0.1:9/", b"ftp://x", b"", b"http://[::1", b"\xff", b"http://h/" + b"a" * 3000, b"http://u:p@127.0.0.1:9"),
    ),
    (b"host", (b"evil.example", b"", b"a b", b"127.0.0.1:99999", b"[::1]", b"\xff", b"x" * 300)),
    (b"x-forwarded-for", (b"1.2.3.4", b"\xff")),
    (b"cookie", (b"a=b;" * 500,)),
    (b"te", (b"trailers",)),
    (b"via", (b"1.1 x",)),
)


@cache
def _bomb(coding: bytes) -> bytes:
    """110 MiB of spaces, which is over the limit of what a body may inflate to."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == b"gzip" else 15)
    return b"".join([packer.compress(b" " * (1 << 20)) for _ in range(110)]) + packer.flush()


def _document(case: Case, rng: Random) -> None:
    if case.tree is None:
        _text(case, rng)
    else:
        case.tree = spoilt(case.tree, rng)


def _value(case: Case, rng: Random) -> None:
    """The whole document is something else."""
    case.tree, case.raw = hostile(rng), None


def _text(case: Case, rng: Random) -> None:
    """The body as bytes: flipped, cut, longer, repeated, in another encoding."""
    made = case.materialised()
    case.headers, case.raw = made.headers, _bent(made.raw or b"", rng)


def _bent(body: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    match rng.randrange(9):
        case 0 if body:
            flipped = bytearray(body)
            for _ in range(rng.choice((1, 1, 2, 8))):
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped)
        case 1:
            return body[:at]
        case 2:
            return body[:at] + rng.randbytes(rng.choice((1, 3, 200))) + body[at:]
        case 3:
            return body[:at] + hostile(rng) + body[at:]
        case 4:
            return body[:at] + body[at + rng.randrange(1, 20) :]
        case 5:
            return body * rng.choice((2, 3))
        case 6:
            return rng.choice((b"\xef\xbb\xbf" + body, body.decode("utf-8", "replace").encode("utf-16"), b"\x00" + body, body + b"\x00"))
        case 7:
            return rng.choice((b"", b" " * 5000, b"\xff" * 100, rng.randbytes(rng.randrange(3000))))
        case _:
            return body.replace(*rng.choice(((b"1", b"1" * 30), (b"[", b"[["), (b"]", b""), (b'"', b"'"), (b",", b",,"), (b":", b"::"))))


def _target(case: Case, rng: Random) -> None:
    """Another path, or the same one in an odd spelling."""
    path = case.target
    parts = path.split(b"/") if b"/" in path else [path, b""]
    index = rng.randrange(1, len(parts))
    at = rng.randrange(1, len(path) + 1)
    match rng.randrange(9):
        case 0:
            case.target = path[:at] + rng.choice(_SPLICES) + path[at:]
        case 1:
            parts[index] = rng.choice(_PARTS)
        case 2:
            parts.insert(index, rng.choice(_PARTS))
        case 3:
            del parts[index]
        case 4:
            parts[index] = b"".join(b"%%%02X" % byte for byte in parts[index])
        case 5:
            parts[index] = quote_from_bytes(rng.randbytes(rng.randrange(1, 30))).encode()
        case 6:
            parts[index] = b"x" * rng.choice((300, 9_000, 17_000))
        case 7:
            parts[index] = rng.choice((parts[index].upper(), parts[index].title(), "é".encode(), b"\xff\xfe"))
        case _:
            case.target = rng.choice((b"http://other" + path, path + b"?" + b"q" * 500, path + b"/", b"*", b"//" + path, b"/" * 3000))
    if case.target == path:
        case.target = b"/".join(parts) or b"/"
    if not case.target.startswith((b"/", b"http", b"*")):
        case.target = b"/" + case.target


def _method(case: Case, rng: Random) -> None:
    case.method = rng.choice(_METHODS)


def _header(case: Case, rng: Random) -> None:
    """Headers that mean something here, with values that do not; sometimes twice, sometimes very many."""
    made = case.materialised() if case.tail is not None or case.raw is not None else case
    case.headers, case.raw = list(made.headers), made.raw
    for _ in range(rng.choice((1, 1, 2, 4))):
        name, values = rng.choice(_HEADERS)
        if rng.random() < 0.7:
            case.headers = [header for header in case.headers if header[0] != name]
        case.headers.append((name, rng.choice(values).strip()))
    if rng.random() < 0.02:
        case.headers += [(b"x-%d" % number, b"y") for number in range(rng.choice((50, 300)))]
    if rng.random() < 0.02:
        case.headers.append((b"x-long", b"z" * rng.choice((8_000, 70_000))))


def _length(case: Case, rng: Random) -> None:
    """The length of the JSON part is not what the header says."""
    made = case.materialised()
    size = len(made.raw or b"")
    case.headers = [header for header in made.headers if header[0] != LENGTH]
    near = str(max(0, size + rng.choice((-50, -16, -4, -1, 0, 1, 8)))).encode()
    case.headers.append((LENGTH, rng.choice((near, near, rng.choice(_LENGTHS))).strip()))
    case.raw = made.raw


def _compression(case: Case, rng: Random) -> None:
    """Compressed data that is damaged, of another kind than its name, or compressed twice; in rare cases very much of it."""
    made = case.materialised()
    body = made.raw or b""
    coding = rng.choice((b"gzip", b"deflate"))
    if rng.random() < 0.004:
        packed = _bomb(coding)
    else:
        packed = gzip.compress(body, 1, mtime=0) if rng.random() < 0.5 else zlib.compress(body, 1)
        packed = rng.choice((packed, packed, packed * 2, gzip.compress(packed, mtime=0), _bent(packed, rng), packed[:-4], packed + b"junk"))
    case.headers = [header for header in made.headers if header[0] != b"content-encoding"] + [(b"content-encoding", coding)]
    case.raw = packed


def _tail(case: Case, rng: Random) -> None:
    """The binary part is longer, shorter or other than announced."""
    if case.tail is None or case.tree is None:
        _length(case, rng)
    else:
        case.tail = _bent(case.tail, rng)


_MUTATIONS: tuple[tuple[Callable[[Case, Random], None], float], ...] = (
    *((_document, 10), (_value, 1), (_text, 4), (_target, 3), (_method, 1), (_header, 2), (_length, 1), (_compression, 1), (_tail, 1)),
)


def mutated(valid: Case, rng: Random) -> Case:
    """A copy of a request with something done to it. What it should answer is not known; `undo` is kept."""
    case = Case(
        valid.method, valid.target, valid.tree, valid.tail, valid.raw, list(valid.headers), undo=valid.undo, what=f"bent {valid.what}"
    )
    for _ in range(rng.choice((1, 1, 1, 2))):
        (change,) = rng.choices([change for change, _ in _MUTATIONS], [weight for _, weight in _MUTATIONS])
        change(case, rng)
    return case
