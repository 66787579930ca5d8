"""Endpoints of jobs, without sockets: paths, heads of requests, headers of replies; and which paths are theirs."""

from base64 import b64encode
from typing import Any

import pytest

from dragoman.dialects import Request, prefixes
from dragoman.dialects.floydhub.endpoint_headers import Fields, Place, asked, place_of, replied


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"/expose/abc", Place(b"/expose/abc", b"", endpoint="abc")),
        (b"/expose/abc/", Place(b"/expose/abc", b"/", endpoint="abc")),
        (b"/expose/a%2Fb/c//d/e/f/g", Place(b"/expose/a%2Fb", b"/c//d/e/f/g", endpoint="a/b")),
        (b"/expose/%FF", Place(b"/expose/%FF", b"", endpoint="�")),
        (b"/serve/u/projects/p", Place(b"/serve/u/projects/p", b"", owner="u", project="p")),
        (b"/serve/u%20v/projects/p/x/y", Place(b"/serve/u%20v/projects/p", b"/x/y", owner="u v", project="p")),
        *(
            (raw, None)
            for raw in (b"/expose", b"/expose/", b"/expose//x", b"/serve/u", b"/serve/u/projects", b"/serve/u/projects/", b"*", b"")
        ),
        *(
            (raw, None)
            for raw in (b"/serve//projects/p", b"/serve/u/datasets/p", b"/exposed/abc", b"/x/expose/abc", b"/serve/u/projects//p")
        ),
    ],
)
def test_a_path_leads_to_an_endpoint(raw: bytes, place: Place | None) -> None:
    """By its first words, as they were sent."""
    assert place_of(raw) == place


@pytest.mark.parametrize(
    ("path", "theirs"),
    [
        *((path, True) for path in ("/expose/x", "/expose/x/api/v1/y", "/serve/u/projects/p", "/serve/a-1/projects/p/v2/models/m/infer")),
        *(
            (path, False)
            for path in ("/expose", "/expose/", "/serve/iris-3", "/serve/iris-3/v2/models/iris", "/serve/u/projects/", "/v2", "")
        ),
    ],
)
def test_what_is_below_an_endpoint_is_nobody_elses(path: str, theirs: bool) -> None:
    """No prefix of a model is looked for there."""
    assert prefixes.endpoint(path) is theirs
    if theirs:
        assert not prefixes.possible(path)


def request(headers: Fields, method: str = "GET", query: bytes = b"", **more: Any) -> Request:
    async def nothing() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"method": method, "path": "/", "headers": headers, "query_string": query, "scheme": "https", "client": ("10.0.0.1", 5), **more}
    return Request(scope, nothing, 0)


PLACE = Place(b"/expose/abc", b"/x", endpoint="abc")


def head(headers: Fields, *, length: int | None = None, keeps: bool = False, upgrade: bytes = b"", **more: Any) -> list[bytes]:
    raw = asked(request([(b"host", b"h"), *headers], **more), PLACE, keeps_prefix=keeps, length=length, upgrade=upgrade)
    assert raw.endswith(b"\r\n\r\n")
    return raw[:-4].split(b"\r\n")


def test_a_request_is_framed_anew() -> None:
    """By the length of its body, in chunks, or without a body."""
    sent = [(b"content-length", b"77"), (b"transfer-encoding", b"chunked")]
    assert b"content-length: 5" in head(sent, length=5)
    assert b"transfer-encoding: chunked" in head(sent, length=-1)
    for length in (None, 5, -1):
        lines = b"\n".join(head(sent, length=length))
        assert b"77" not in lines
        assert lines.count(b"content-length") + lines.count(b"transfer-encoding") == (length is not None)


def test_the_query_follows_either_path() -> None:
    """As it was sent; none, no question mark."""
    assert head([], query=b"a=%20&b")[0] == b"GET /x?a=%20&b HTTP/1.1"
    assert head([], keeps=True, query=b"q")[0] == b"GET /expose/abc/x?q HTTP/1.1"
    assert head([])[0] == b"GET /x HTTP/1.1"
    assert Place(b"/expose/abc", b"").target(b"q", keeps_prefix=False) == b"/?q"


def test_another_protocol_is_asked_for_by_name() -> None:
    """And the connection is said to be for it; else it is for one request."""
    lines = head([(b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", b"k")], upgrade=b"websocket")
    assert lines[-2:] == [b"connection: upgrade", b"upgrade: websocket"]
    assert b"sec-websocket-key: k" in lines
    assert head([(b"connection", b"upgrade"), (b"upgrade", b"websocket")])[-1] == b"connection: close"


def test_without_a_client_or_a_host_there_is_still_a_head() -> None:
    """Unix sockets have no address, HTTP/1.0 needs no host."""
    raw = asked(request([], client=None, server=None), PLACE, keeps_prefix=False, length=None, upgrade=b"")
    assert b"\r\nhost: localhost\r\n" in raw
    assert b"\r\nx-forwarded-for: \r\n" in raw


def test_a_reply_keeps_its_headers() -> None:
    """In their order, also what comes twice; but for what concerns the program's connection."""
    kept = [(b"set-cookie", b"a"), (b"x", b"1"), (b"set-cookie", b"b"), (b"content-length", b"5"), (b"www-authenticate", b"Basic")]
    hop = [(b"connection", b"close, X-Hop, Content-Length"), (b"x-hop", b"1"), (b"keep-alive", b"5"), (b"transfer-encoding", b"chunked")]
    assert replied([*kept[:2], *hop, *kept[2:]]) == kept


@pytest.mark.parametrize(
    "secret",
    [
        (b"authorization", b"Bearer dg_secret"),
        (b"authorization", b"apikey  dg_secret"),
        (b"authorization", b"Basic " + b64encode(b"anybody:dg_secret")),
        (b"x-api-key", b" dg_secret"),
    ],
)
def test_keys_of_the_server_stay_here(secret: tuple[bytes, bytes]) -> None:
    """A client may send its key with every call: the program could call the server with it. What else is in these headers is the program's."""
    assert secret[0] not in b"\n".join(head([secret]))
    other = (secret[0], secret[1].replace(b"dg_", b"my_")) if b"dg_" in secret[1] else (secret[0], b"Basic " + b64encode(b"dg_x:other"))
    assert b"%b: %b" % other in head([other])
    assert b"authorization: Basic !" in head([(b"authorization", b"Basic !")])


def test_a_program_does_not_rule_the_pages_of_others() -> None:
    """In browsers all of this server is one site."""
    assert replied([(b"service-worker-allowed", b"/"), (b"alt-svc", b'h2=":1"'), (b"x", b"1")]) == [(b"x", b"1")]
