"""The words of HTTP without I/O: targets, heads, header lines and limits."""

import json
import re
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.server import wire
from dragoman.server.wire import HttpLimits, answer_prefix, framing, header_line, http_date, json_error, split_target, without_upgrade


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/", ("/", b"/", b"")),
        (b"/a/b", ("/a/b", b"/a/b", b"")),
        (b"/a?b=c?d&e", ("/a", b"/a", b"b=c?d&e")),
        (b"/?", ("/", b"/", b"")),
        (b"/a%20b%2Fc", ("/a b/c", b"/a%20b%2Fc", b"")),
        (b"/%E2%82%AC?%E2", ("/€", b"/%E2%82%AC", b"%E2")),
        (b"/%ff%fe/%", ("/\ufffd\ufffd/%", b"/%ff%fe/%", b"")),
        (b"/%ED%A0%80", ("/\ufffd\ufffd\ufffd", b"/%ED%A0%80", b"")),
        (b"/%00", ("/\0", b"/%00", b"")),
        (b"*", ("*", b"*", b"")),
        (b"http://h:80/a?b", ("/a", b"/a", b"b")),
        (b"HTTPS://h", ("/", b"/", b"")),
        (b"http://h?b", ("/", b"/", b"b")),
        (b"/http://h/a", ("/http://h/a", b"/http://h/a", b"")),
    ],
)
def test_targets_are_split_and_decoded(target: bytes, expected: tuple[str, bytes, bytes]) -> None:
    """A target becomes a decoded path, the raw path and the query; the query is left as it is."""
    assert split_target(target) == expected


@pytest.mark.parametrize("target", [b"", b"a", b"?a", b"h:80", b"ftp://h/a", b"/a#b", b"/a?b#c", b"://h/"])
def test_targets_that_name_no_path(target: bytes) -> None:
    """A target without a path, of another scheme or with a fragment is refused."""
    with pytest.raises(ValueError, match="request target"):
        split_target(target)


@given(path=st.binary())
def test_every_path_can_be_written_again(path: bytes) -> None:
    """Whatever is escaped in a path, the decoded path is proper text."""
    target = b"/" + b"".join(b"%%%02x" % byte for byte in path)
    decoded, raw, query = split_target(target)
    assert json.loads(json.dumps(decoded)) == decoded
    assert decoded.encode("utf-8")
    assert (raw, query) == (target, b"")


@given(text=st.text())
def test_escaped_text_comes_back(text: str) -> None:
    """A path that was escaped as UTF-8 is decoded to what it was."""
    target = b"/" + b"".join(b"%%%02X" % byte for byte in text.encode("utf-8", "replace"))
    assert split_target(target)[0] == "/" + text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("version", "method", "headers", "status"),
    [
        ("1.1", "GET", [(b"host", b"x")], None),
        ("1.0", "GET", [], None),
        ("1.1", "POST", [(b"host", b"x"), (b"transfer-encoding", b" Chunked ")], None),
        ("1.1", "GET", [(b"host", b"x"), (b"upgrade", b"h2c")], None),
        ("1.1", "GET", [(b"host", b"x"), (b"a", b"1"), (b"a", b"2")], None),
        ("1.1", "GET", [], 400),
        ("1.1", "GET", [(b"host", b"x"), (b"host", b"x")], 400),
        ("1.0", "GET", [(b"host", b"x"), (b"host", b"y")], 400),
        ("1.0", "POST", [(b"transfer-encoding", b"chunked")], 400),
        ("1.1", "POST", [(b"host", b"x"), (b"transfer-encoding", b"gzip, chunked")], 501),
        ("1.1", "POST", [(b"host", b"x"), (b"transfer-encoding", b"identity")], 501),
        ("1.1", "GET", [(b"host", b"x"), (b"upgrade", b"h2c, WebSocket")], 501),
        ("1.1", "CONNECT", [(b"host", b"x")], 501),
        ("0.9", "GET", [], 505),
        ("2.0", "GET", [(b"host", b"x")], 505),
    ],
)
def test_heads_are_refused(version: str, method: str, headers: list[tuple[bytes, bytes]], status: int | None) -> None:
    """A head that has two readings, or asks for what is not offered, has its own status."""
    refusal = framing(version, method, headers, dict(headers))
    assert (refusal and refusal.status) == status


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (b"Content-Type", b"a/b; c=d", b"content-type: a/b; c=d\r\n"),
        (b"x", b"", b"x: \r\n"),
        (b"x", b"\xff\t~", b"x: \xff\t~\r\n"),
        (b"Content-Length", b"12", 12),
        (b"connection", b"Keep-Alive, Close", -1),
        (b"connection", b"keep-alive", b""),
        (b"Transfer-Encoding", b"chunked", b""),
        (b"date", b"today", b""),
    ],
)
def test_header_lines(name: bytes, value: bytes, line: bytes | int) -> None:
    """Headers of the application become lines; those that frame the answer become what they mean."""
    assert header_line(name, value) == line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"", b"a"),
        (b"a b", b"c"),
        (b"a:", b"c"),
        (b"a\r\n", b"c"),
        (b"\xe9", b"c"),
        (b"a", b"b\r\nc: d"),
        (b"a", b"\n"),
        (b"a", b"\0"),
        (b"a", b"\x7f"),
    ],
)
def test_header_lines_that_would_inject(name: bytes, value: bytes) -> None:
    """A name that is no token and a value with control characters are refused."""
    with pytest.raises(ValueError, match="response header"):
        header_line(name, value)


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1.0", b"1, 1", b" 1", "١".encode()])
def test_lengths_that_are_none(value: bytes) -> None:
    """A Content-Length is digits."""
    with pytest.raises(ValueError, match="content-length"):
        header_line(b"content-length", value)


@given(name=st.binary(), value=st.binary())
def test_a_header_line_is_one_line(name: bytes, value: bytes) -> None:
    """Whatever is given, a header is refused or makes exactly one line with one name."""
    try:
        line = header_line(name, value)
    except ValueError:
        return
    if isinstance(line, bytes) and line:
        assert re.fullmatch(rb"[^:\s]+: [^\r\n\0]*\r\n", line)


def test_status_lines() -> None:
    """Known statuses have their phrase, others none, and what is no final status is refused."""
    assert answer_prefix(404, "D") == b"HTTP/1.1 404 Not Found\r\ndate: D\r\n"
    assert answer_prefix(299, "D") == b"HTTP/1.1 299 \r\ndate: D\r\n"
    for status in (0, 100, 101, 199, 1000, -200):
        with pytest.raises(ValueError, match="response status"):
            answer_prefix(status, "D")


def test_the_date_is_in_http_form() -> None:
    """The Date header is in the fixed form of RFC 9110, in GMT."""
    assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", http_date())
    assert parsedate_to_datetime(http_date()).utcoffset() is not None


def test_the_default_words_of_errors() -> None:
    """An error is one JSON object with its text, whatever the path."""
    assert json_error(400, 'a "b"', "/x") == (b"application/json", b'{"error":"a \\"b\\""}')


def test_a_head_without_its_upgrade() -> None:
    """The wish to upgrade goes, every other line stays, and so does the wish to close."""
    headers = [
        (b"host", b"x"),
        (b"connection", b"Upgrade, HTTP2-Settings, close"),
        (b"upgrade", b"h2c"),
        (b"http2-settings", b"A"),
        (b"a", b"\xff"),
    ]
    assert without_upgrade("GET", b"/a?b", "1.1", headers) == b"GET /a?b HTTP/1.1\r\nhost: x\r\nconnection:  close\r\na: \xff\r\n\r\n"
    assert without_upgrade("GET", b"/", "1.0", [(b"connection", b"upgrade")]) == b"GET / HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize("name", list(HttpLimits.__slots__))
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", None, True])
def test_limits_must_be_positive(name: str, value: object) -> None:
    """No limit can be zero, negative, endless or no number; the message names it."""
    with pytest.raises(ValueError, match=name):
        HttpLimits(**{name: value})  # type: ignore[arg-type]  # what a configuration file could hold


def test_every_final_status_has_a_line() -> None:
    """The table holds the standard's final statuses and no interim one."""
    assert wire.STATUS_LINES[200] == b"HTTP/1.1 200 OK\r\n"
    assert min(wire.STATUS_LINES) == 200
