"""The heads of requests and replies on their way through an endpoint: what is passed on, what is left out, what is added. Pure.

Called by endpoint.py. What is left out is what concerns one connection only (RFC 9110, section 7.6.1); what is added tells the program how
its client reached it.
"""

import binascii
from base64 import b64decode
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from dragoman.dialects import Request, path_text

Fields = list[tuple[bytes, bytes]]

_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"))
_KEY = b"dg_"
"""What the keys of servers and accounts begin with."""
_NOT_ASKED_ON = _HOP | {
    *(b"http2-settings", b"proxy-authorization", b"expect", b"content-length"),
    *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-prefix"),
}
_NOT_REPLIED = _HOP | {b"service-worker-allowed", b"alt-svc"}
"""The last two would let a program's pages rule all others of this server in a browser, or send their readers elsewhere."""
_ESSENTIAL = frozenset((b"host", b"content-length", b"content-type"))
"""What nobody may have left out by naming it in Connection."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request was sent: an endpoint, and what is below."""

    prefix: bytes
    """As it was sent: /expose/ID or /serve/USER/projects/NAME."""
    rest: bytes
    """What follows, "" or from its slash on."""
    endpoint: str = ""
    """ID, "" for a project's."""
    owner: str = ""
    project: str = ""

    def target(self, query: bytes, *, keeps_prefix: bool) -> bytes:
        """What the program is asked for (requirement F13): with the prefix, or as if it was at the root."""
        path = self.prefix + self.rest if keeps_prefix else self.rest or b"/"
        return b"%b?%b" % (path, query) if query else path


def place_of(raw_path: bytes) -> Place | None:
    """The endpoint that a path, as it was sent, leads to; None for one that has no such shape."""
    match raw_path.split(b"/", 5):
        case [b"", b"expose", name, *_] if name:
            prefix = b"/expose/" + name
            return Place(prefix, raw_path[len(prefix) :], endpoint=path_text(name))
        case [b"", b"serve", owner, b"projects", project, *_] if owner and project:
            prefix = b"/".join((b"/serve", owner, b"projects", project))
            return Place(prefix, raw_path[len(prefix) :], owner=path_text(owner), project=path_text(project))
    return None


def asked(request: Request, place: Place, *, keeps_prefix: bool, length: int | None, upgrade: bytes) -> bytes:
    """The head of a request as the program gets it. `length` of its body: None for none, -1 for one that is sent in chunks."""
    scope = request.scope
    headers: Fields = scope["headers"]
    dropped = _NOT_ASKED_ON | _named(headers)
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method.encode(), place.target(request.query, keeps_prefix=keeps_prefix))]
    lines += [b"%b: %b\r\n" % (name, value) for name, value in headers if name not in dropped and not _opens_the_server(name, value)]
    host = request.header(b"host")
    if host is None:  # HTTP/1.0
        server = scope.get("server")
        host = b"localhost" if server is None else b"%b:%d" % (server[0].encode(), server[1])
        lines.append(b"host: %b\r\n" % host)
    lines.append(b"x-forwarded-for: %b\r\n" % b", ".join([*_all(headers, b"x-forwarded-for"), *_client(request)]))
    lines.append(b"x-forwarded-host: %b\r\n" % (request.header(b"x-forwarded-host") or host))
    lines.append(b"x-forwarded-proto: %b\r\n" % (request.header(b"x-forwarded-proto") or scope.get("scheme", "http").encode()))
    if not keeps_prefix:
        lines.append(b"x-forwarded-prefix: %b\r\n" % place.prefix)
    if length is not None:
        lines.append(b"transfer-encoding: chunked\r\n" if length < 0 else b"content-length: %d\r\n" % length)
    lines.append(b"connection: upgrade\r\nupgrade: %b\r\n\r\n" % upgrade if upgrade else b"connection: close\r\n\r\n")
    return b"".join(lines)


def replied(headers: Fields) -> Fields:
    """The headers of a program's reply as its client gets them, in their order."""
    dropped = _NOT_REPLIED | _named(headers)
    return [(name, value) for name, value in headers if name not in dropped]


def wanted_upgrade(request: Request) -> bytes:
    """The other protocol that a request asks for and may have, b"" for none: as the HTTP server has found it."""
    wanted: bytes = request.scope.get("extensions", {}).get("dragoman.upgrade", b"")
    return wanted


def _named(headers: Fields) -> frozenset[bytes]:
    """What Connection says concerns this connection only."""
    options = _all(headers, b"connection")
    if not options:
        return frozenset()
    return frozenset(option.strip().lower() for value in options for option in value.split(b",")) - _ESSENTIAL


def _opens_the_server(name: bytes, value: bytes) -> bool:
    """Whether this is a key of the server's own: it is nothing to a program, which could call the server with it."""
    if name == b"x-api-key":
        return value.strip().startswith(_KEY)
    scheme, _, rest = value.strip().partition(b" ") if name == b"authorization" else (b"", b"", b"")
    if scheme.lower() == b"basic":
        with suppress(binascii.Error):
            rest = b64decode(rest).partition(b":")[2]
    return rest.strip().startswith(_KEY)


def _all(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _client(request: Request) -> list[bytes]:
    client = request.scope.get("client")
    return [] if client is None else [client[0].encode()]
