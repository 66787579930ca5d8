"""http and https for `fetch.py`, its only caller: every hop's host is resolved once, judged, and exactly that address is connected to.

httpcore does the wire work through a network backend of ours; httpx only reads URLs. No proxy, cookie or .netrc of the machine is used.
"""

import asyncio
import base64
import functools
import http
import ipaddress
import re
import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import httpcore
import httpx

from dragoman import __version__
from dragoman.core.data_uris import bare_name
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY
from dragoman.serving.fetch import ACCESS, Downloaded, Fetched, Have, Resolver, media_type, shown, too_large
from dragoman.serving.fetch_policy import Address, FetchPolicy, plain_host
from dragoman.serving.threads import to_the_end

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_LATER = frozenset({408, 425, 429})
_ADDRESSES_TRIED = 4
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\Z")
_GZIP = zlib.MAX_WBITS | 16
_GZIP_MEMBERS = 10_000
_PIECE_BYTES = 16 * 1024


async def fetch_http(
    url: str, policy: FetchPolicy, resolver: Resolver, trust: ssl.SSLContext | None, headers: Mapping[str, str] = EMPTY
) -> Fetched:
    """See `fetch`, which also holds the deadline of the whole."""
    fields = {b"Accept": b"*/*", b"Accept-Encoding": b"gzip"}
    async with _followed(url, policy, resolver, trust, fields, headers) as (target, response):
        if not 200 <= response.status < 300:
            raise _refused(shown(str(target)), response.status)
        return await _read(target, policy, response)


async def download_http(
    url: str,
    policy: FetchPolicy,
    resolver: Resolver,
    trust: ssl.SSLContext | None,
    *,
    headers: Mapping[str, str],
    have: Have,
    write: Callable[[bytes, int, int], None],
    known: str = "",
) -> Downloaded | None:
    """See `download`: one attempt, with as long as it takes but no pause over the policy's time-out.

    None: what `known` validates is still what the URL holds. `write` gets each piece with the place where it belongs and the size of the whole
    (0 where nobody says); a piece at 0 means that what is there is worth nothing.
    """
    fields = {b"Accept": b"*/*", b"Accept-Encoding": b"identity"}
    if known:
        fields[b"If-None-Match"] = known.encode("latin-1")
    if have.size and have.validator:
        fields |= {b"Range": f"bytes={have.size}-".encode(), b"If-Range": have.validator.encode("latin-1")}
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(policy.timeout_s):
            target, response = await stack.enter_async_context(_followed(url, policy, resolver, trust, fields, headers))
        label = shown(str(target))
        if known and response.status == 304:
            return None
        if not 200 <= response.status < 300:
            raise _refused(label, response.status)
        if _header(response.headers, b"content-encoding").strip().lower() not in {"", "identity"}:
            raise invalid(f"URL {label}: the answer is packed although a plain one was asked for")
        place = _range_start(_header(response.headers, b"content-range"), have.size, label) if response.status == 206 else 0
        length = int(_header(response.headers, b"content-length") or 0)
        whole = place + length if length else 0
        if max(whole, place) > policy.max_bytes:
            raise too_large(url, policy)
        validator = _validator(response.headers)
        have.size, have.validator = place, validator
        write(b"", place, whole)
        pieces = response.aiter_stream()
        while True:
            async with asyncio.timeout(policy.timeout_s):
                piece = await anext(pieces, b"")
            if not piece:
                break
            if place + len(piece) > policy.max_bytes:
                raise too_large(url, policy)
            await to_the_end(functools.partial(write, piece, place, whole))
            place += len(piece)
            have.size = place
        if whole and place != whole:
            raise ServingError(Kind.UNAVAILABLE, f"URL {label}: the answer is incomplete")
        return Downloaded(bare_name(target.path), place, validator, str(target))


def _validator(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """A strong ETag, else nothing: a weak one or a date may stay the same while bytes change."""
    found = _header(headers, b"etag").strip()
    return found if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', found) else ""


def _range_start(text: str, asked: int, label: str) -> int:
    found = re.match(r"bytes (\d{1,18})-", text)
    if found is None or int(found[1]) != asked:
        raise ServingError(Kind.UNAVAILABLE, f"URL {label}: the answer is another part of the file than was asked for")
    return asked


async def post_http(
    url: str, body: bytes, headers: Mapping[str, str], policy: FetchPolicy, resolver: Resolver, trust: ssl.SSLContext | None
) -> int:
    """See `post`."""
    target = _read_url(url)
    fields = {b"Content-Type": b"application/json", b"Content-Length": str(len(body)).encode()}
    fields |= {name.encode("ascii"): value.encode("latin-1") for name, value in headers.items()}
    async with _asked(b"POST", target, (target.username, target.password), policy, resolver, trust, fields, body) as response:
        return response.status


def _read_url(url: str) -> httpx.URL:
    try:
        return _parse(httpx.URL(url))
    except (httpx.InvalidURL, ValueError):
        # httpx quotes the part it stumbled over, which may be a password.
        raise invalid(f"URL {shown(url)} is malformed: expected http://HOST[:PORT]/PATH") from None


def _parse(url: httpx.URL) -> httpx.URL:
    """The URL without its fragment and the host's final dot, or InvalidURL for what no honest URL looks like."""
    host = plain_host(url.raw_host.decode("ascii"))
    honest = _is_ipv6(host) if ":" in host else _HOST.match(host) is not None
    if not honest or not 0 < _port(url) < 65536:
        raise httpx.InvalidURL("host or port")
    return url.copy_with(host=host, fragment=None)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


def _port(url: httpx.URL) -> int:
    if url.port is not None:
        return url.port
    return 443 if url.scheme == "https" else 80


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, _port(url)


@asynccontextmanager
async def _followed(
    url: str,
    policy: FetchPolicy,
    resolver: Resolver,
    trust: ssl.SSLContext | None,
    fields: Mapping[bytes, bytes],
    headers: Mapping[str, str],
) -> AsyncGenerator[tuple[httpx.URL, httpcore.Response], None]:
    """GET, through redirects: the last hop and the head of its answer. `headers` and credentials go to the server that the caller named only."""
    first = target = _read_url(url)
    private = {name.encode("ascii"): value.encode("latin-1") for name, value in headers.items()}
    for _ in range(policy.max_redirects + 1):
        at_home = _origin(target) == _origin(first)
        credentials = (first.username, first.password) if at_home else ("", "")
        sent = {**fields, **private} if at_home else fields
        async with _asked(b"GET", target, credentials, policy, resolver, trust, sent) as response:
            if response.status not in _REDIRECTS:
                yield target, response
                return
            target = _next(target, shown(str(target)), _header(response.headers, b"location"))
    raise invalid(f"URL {shown(url)} redirects more than {policy.max_redirects} times")


@asynccontextmanager
async def _asked(
    method: bytes,
    target: httpx.URL,
    credentials: tuple[str, str],
    policy: FetchPolicy,
    resolver: Resolver,
    trust: ssl.SSLContext | None,
    fields: Mapping[bytes, bytes],
    body: bytes | None = None,
) -> AsyncGenerator[httpcore.Response, None]:
    """The head of an answer, its body still to be read. The connection is its own: none is used for a host it was not made for."""
    label = shown(str(target))
    if target.scheme == "https" and trust is None:
        trust = await asyncio.to_thread(_authorities)
    headers = {b"Host": target.netloc, b"User-Agent": f"dragoman/{__version__}".encode(), **fields}
    if any(credentials):
        headers[b"Authorization"] = b"Basic " + base64.b64encode(":".join(credentials).encode())
    address = httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=_port(target), target=target.raw_path)
    backend = _GuardedBackend(label, policy, resolver)
    try:
        async with (
            httpcore.AsyncConnectionPool(ssl_context=trust, network_backend=backend) as pool,
            pool.stream(method, address, headers=list(headers.items()), content=body) as response,
        ):
            yield response
    except httpcore.LocalProtocolError:
        raise invalid(f"URL {label} is malformed: it cannot be sent as an HTTP request") from None
    except httpcore.ProtocolError as exc:
        raise ServingError(Kind.UNAVAILABLE, f"URL {label}: the answer is broken or incomplete") from exc
    except httpcore.ConnectError as exc:
        raise ServingError(Kind.UNAVAILABLE, f"URL {label}: {_failure(exc)}") from exc
    except httpcore.TimeoutException as exc:
        raise ServingError(Kind.UNAVAILABLE, f"URL {label}: the host does not answer") from exc
    except httpcore.NetworkError as exc:
        raise ServingError(Kind.UNAVAILABLE, f"URL {label}: the connection broke off") from exc


def _next(target: httpx.URL, label: str, location: str) -> httpx.URL:
    if not location:
        raise invalid(f"URL {label} answered a redirect without a Location")
    try:
        found = target.join(location)
        if found.scheme in {"http", "https"}:
            return _parse(found)
    except (httpx.InvalidURL, ValueError):
        raise invalid(f"URL {label} redirects to a malformed URL") from None
    raise ServingError(Kind.FORBIDDEN, f"URL {label} redirects to a URL of scheme {found.scheme[:20]!r}: expected http or https")


def _refused(label: str, status: int) -> ServingError:
    try:
        phrase = f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    kind = Kind.UNAVAILABLE if status >= 500 or status in _TRY_LATER else Kind.INVALID_INPUT
    return ServingError(kind, f"URL {label} answered {phrase}", what=ACCESS if status in (401, 403) else "")


def _failure(exc: httpcore.ConnectError) -> str:
    """What to tell about a connection that could not be made. Certificates are named: nothing else says what is to be repaired."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate of the host is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "the host and this server could not agree on TLS"
        cause = cause.__cause__ or cause.__context__
    return "the host cannot be reached"


async def _read(target: httpx.URL, policy: FetchPolicy, response: httpcore.Response) -> Fetched:
    url = str(target)
    encoding = _header(response.headers, b"content-encoding").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise invalid(f"URL {shown(url)}: expected a plain answer or gzip, got content encoding {encoding[:40]!r}")
    packed = encoding not in {"", "identity"}
    # What does not compress grows a little when packed. Without a limit here, empty gzip members could be sent for ever.
    limit = policy.max_bytes + (policy.max_bytes // 64 + 1024 if packed else 0)
    if int(_header(response.headers, b"content-length") or 0) > limit:
        raise too_large(url, policy)
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > limit:
            raise too_large(url, policy)
    data = await asyncio.to_thread(_unpack, bytes(body), policy.max_bytes) if packed else bytes(body)
    if data is None:
        raise invalid(f"URL {shown(url)}: the answer is called {encoding} and is damaged or incomplete")
    if len(data) > policy.max_bytes:
        raise too_large(url, policy)
    name = bare_name(target.path)
    return Fetched(data, media_type(_header(response.headers, b"content-type"), name), name, shown(url))


def _unpack(body: bytes, limit: int) -> bytes | None:
    """At most limit + 1 bytes of what gzip packed; None where it is damaged or ends too early. Runs in a thread: it may take a while."""
    out = bytearray()
    view, position = memoryview(body), 0
    member, members = None, 0
    try:
        while position < len(view):
            if member is None:
                member, members = zlib.decompressobj(_GZIP), members + 1
            # In pieces, because zlib copies what follows a member: with the whole rest each time, many tiny members would take for ever.
            piece = view[position : position + _PIECE_BYTES]
            out += member.decompress(piece, limit + 1 - len(out))
            if len(out) > limit:
                return bytes(out)
            position += len(piece) - len(member.unused_data)
            if member.eof:
                member = None
            if members > _GZIP_MEMBERS:
                return None
    except zlib.error:
        return None
    return bytes(out) if member is None else None


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("utf-8", "replace") for key, value in headers if key.lower() == name), "")


@functools.cache
def _authorities() -> ssl.SSLContext:
    return httpcore.default_ssl_context()


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that the policy lets pass. TLS above it still checks the certificate against the host name."""

    def __init__(self, label: str, policy: FetchPolicy, resolver: Resolver) -> None:
        self._label = label
        self._policy = policy
        self._resolver = resolver
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 # the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = (await self._checked(host, port))[:_ADDRESSES_TRIED]
        # A dead address must leave time for those after it; the last one may use what is left.
        share = self._policy.timeout_s / len(addresses)
        failure: Exception | None = None
        for address in addresses:
            patience = None if address is addresses[-1] else share
            try:
                return await self._inner.connect_tcp(str(address), port, patience, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        assert failure is not None
        raise failure

    async def _checked(self, host: str, port: int) -> list[Address]:
        """The host's addresses, if all of them may be connected to. One bad one condemns the host: an honest one has none."""
        try:
            addresses = [ipaddress.ip_address(text) for text in await self._resolver(host, port)]
        except OSError as exc:
            if exc.errno == socket.EAI_AGAIN:
                raise ServingError(Kind.UNAVAILABLE, f"URL {self._label}: the name of the host cannot be looked up now") from exc
            addresses = []
        if not addresses:
            raise invalid(f"URL {self._label}: there is no host of that name")
        for address in addresses:
            if word := self._policy.refusal(host, address):
                # The address itself stays here: strangers would learn the plan of the network from it.
                text = f"URL {self._label}: the host has a {word} address; it is fetched only if the server runs with --allow-fetch {host}"
                raise ServingError(Kind.FORBIDDEN, text)
        return addresses
