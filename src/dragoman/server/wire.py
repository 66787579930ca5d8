"""The words of HTTP/1.1 without any I/O: limits, status lines, request targets, and which request heads are refused.

`connection.py` asks these functions about every head that httptools has parsed, `exchange.py` builds answers with them. llhttp, which
httptools wraps, already refuses repeated or malformed Content-Length, Content-Length beside Transfer-Encoding, folded lines, bare CR or LF
and control characters; what it lets pass and we do not is checked in `framing`.
"""

import http
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

Scope = dict[str, Any]
Message = dict[str, Any]
ErrorBody = Callable[[int, str, str], tuple[bytes, bytes]]
"""`(status, text, path) -> (content type, body)`: how an error that the server itself answers is worded. `path` may be empty."""
OnResponse = Callable[[Scope | None, int, int, int], None]
"""`(scope, status, body bytes sent, perf_counter_ns at the end of the head)`; no scope when the head could not be read."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one listener grants to clients that it does not know. Times are in seconds and kept to within a quarter of themselves."""

    max_header_bytes: int = 64 * 1024
    max_headers: int = 256
    max_url_bytes: int = 16 * 1024
    max_body_bytes: int = 256 * 1024 * 1024
    max_connections: int = 10_000
    buffer_bytes: int = 1024 * 1024
    """A body up to this size is complete before the application starts; a longer one is streamed in pieces of about this size."""
    stream_bytes: int = 256 * 1024
    """About how much is held of a body that the application wants as it comes."""
    drain_body_bytes: int = 256 * 1024
    """An unread rest of a declared body up to this size is read and dropped to keep the connection; else the connection is closed."""
    header_timeout_s: float = 20.0
    body_timeout_s: float = 30.0
    """The longest pause within a request body."""
    write_timeout_s: float = 60.0
    """The longest time in which a client takes none of an answer that waits for it."""
    keep_alive_timeout_s: float = 75.0
    linger_s: float = 5.0
    """How long a connection that the server closes is still read, so that the client sees the answer and not a reset."""

    def __post_init__(self) -> None:
        """Refuse values that would make a server which answers nobody."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"HttpLimits.{each.name}: expected a positive finite number, got {value!r}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that the server answers itself, without asking the application."""

    status: int
    text: str
    path: str = ""
    """Where it was sent, as far as that is known of a head that cannot be read to its end."""


STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus if status >= 200}
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
REQUEST_LINE = re.compile(rb"[!-~]{1,100} (/[!-~]*)")
FIELD = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"


def answer_prefix(status: int, date: str) -> bytes:
    """Return the status line and the Date header of an answer."""
    line = STATUS_LINES.get(status)
    if line is None:
        if not 200 <= status <= 999:
            raise ValueError(f"response status: expected 200 to 999, got {status}")
        line = b"HTTP/1.1 %d \r\n" % status
    return b"%bdate: %b\r\n" % (line, date.encode())


def header_line(name: bytes, value: bytes) -> bytes | int:
    """Return a header of an answer as it goes on the wire.

    The headers that frame the answer belong to the server: a Content-Length comes back as its number, `Connection: close` as -1, Date,
    Transfer-Encoding and other Connection options as nothing. Raises ValueError for what could be read as another header or a body.
    """
    if not TOKEN.fullmatch(name) or not FIELD.fullmatch(value):
        raise ValueError(f"response header {name!r}: the name is not a token or the value holds a control character")
    lower = name.lower()
    if lower == b"content-length":
        if not value.isdigit():
            raise ValueError(f"response header content-length: expected digits, got {value!r}")
        return int(value)
    if lower == b"connection":
        return -1 if b"close" in value.lower() else b""
    return b"" if lower in (b"date", b"transfer-encoding") else b"%b: %b\r\n" % (lower, value)


def switch_head(headers: Iterable[tuple[bytes, bytes]]) -> "list[bytes | memoryview]":
    """Return the head of an answer after which the connection speaks another protocol. Raises ValueError as `header_line` does."""
    lines = [header_line(name, value) for name, value in headers]
    return [SWITCHING, *(line for line in lines if isinstance(line, bytes)), b"connection: upgrade\r\n\r\n"]


def http_date() -> str:
    """Return the present time as the Date header spells it."""
    return formatdate(usegmt=True)


def json_error(_status: int, text: str, _path: str) -> tuple[bytes, bytes]:
    """Word an error as `{"error": text}`: the default `ErrorBody`."""
    return b"application/json", orjson.dumps({"error": text})


def split_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Return (decoded path, raw path, query string) of a request target.

    An absolute form loses scheme and authority. Percent escapes that are not UTF-8 become U+FFFD: the path of a scope can always be
    encoded again, for logs and JSON. Raises ValueError for a target with a fragment or one that names no path.
    """
    raw, _, query = target.partition(b"?")
    if b"#" in target:
        raise ValueError("the request target has a fragment")
    if raw[:1] != b"/" and raw != b"*":
        scheme, found, rest = raw.partition(b"://")
        if not found or scheme.lower() not in (b"http", b"https"):
            raise ValueError("the request target is not a path")
        raw = b"/" + rest.partition(b"/")[2]
    if b"%" in raw:
        return unquote_to_bytes(raw).decode("utf-8", "replace"), raw, query
    return raw.decode("utf-8", "replace"), raw, query


def path_of(target: bytes) -> str:
    """Return the decoded path of a target that may be cut off or wrong, "" for what has none."""
    try:
        return split_target(target)[0]
    except ValueError:
        return ""


def framing(
    version: str, method: str, headers: list[tuple[bytes, bytes]], named: Mapping[bytes, bytes], *, tunnels: bool = False
) -> Refusal | None:
    """Refuse a head whose body length or recipient two parsers could read differently, or which asks for what is not offered.

    `tunnels`: whether other protocols are, where the request was sent.
    """
    if version not in ("1.1", "1.0"):
        return Refusal(505, "HTTP version not supported: this server speaks HTTP/1.1")
    if method == "CONNECT":
        return Refusal(501, "CONNECT is not supported")
    hosts = sum(name == b"host" for name, _ in headers) if len(named) != len(headers) else b"host" in named
    if hosts > 1 or (not hosts and version == "1.1"):
        return Refusal(400, "malformed request: exactly one Host header is required")
    coding = named.get(b"transfer-encoding")
    if coding is not None:
        if version == "1.0":
            return Refusal(400, "malformed request: Transfer-Encoding in an HTTP/1.0 request")
        if coding.strip().lower() != b"chunked":
            return Refusal(501, "Transfer-Encoding other than chunked is not supported")
    if not tunnels and b"websocket" in named.get(b"upgrade", b"").lower():
        return Refusal(501, "WebSocket is not supported")
    return None


def tunnelled(named: Mapping[bytes, bytes]) -> bool:
    """Tell whether a request for another protocol may be granted by whom it is passed on to: not when a body follows its head.

    HTTP/2 without TLS is between two neighbours, and is ignored as everywhere.
    """
    bodiless = b"transfer-encoding" not in named and named.get(b"content-length", b"0").strip(b"0") == b""
    return bodiless and b"http2-settings" not in named and not named.get(b"upgrade", b"").lower().startswith(b"h2c")


def without_upgrade(method: str, target: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Write a request head again without its wish to change the protocol, which a server may ignore (RFC 9110, section 7.8)."""
    lines = [b"%b %b HTTP/%b\r\n" % (method.encode(), target, version.encode())]
    for name, value in headers:
        if name == b"connection":
            kept = [option for option in value.split(b",") if option.strip().lower() in (b"close", b"keep-alive")]
            if kept:
                lines.append(b"connection: %b\r\n" % b",".join(kept))
        elif name not in (b"upgrade", b"http2-settings"):
            lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"\r\n")
    return b"".join(lines)
