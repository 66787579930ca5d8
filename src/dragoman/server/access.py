"""Who may call what: pure decisions over a listener's rules, a route's access, a request's headers and its key. Called by guard.py.

Two dangers are kept apart. Strangers on the network are held off by keys. Web pages that send requests through the browser of somebody who
may reach the server (forged requests, DNS rebinding) are held off by Host, Origin and Sec-Fetch-Site, wherever no key proves the caller.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects import Access
from dragoman.server.keys import Key, explicit_token

Headers = Iterable[tuple[bytes, bytes]]

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{1,253})(?::([0-9]{1,5}))?\Z")
_ORIGIN = re.compile(r"(https?)://(.*)\Z", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOW = "send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"


class Auth(Enum):
    """What was asked for at the start."""

    DEFAULT = "default"
    """Nothing on loopback; elsewhere a key for whatever changes the server."""
    NO_AUTH = "no_auth"
    """No key at all, whatever the address."""
    REQUIRE_KEY = "require_key"
    """A key for everything but what is public, on loopback too."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for one listener. `loopback`: it is bound to addresses of this machine only."""

    loopback: bool
    auth: Auth = Auth.DEFAULT

    @classmethod
    def of(cls, host: str, *, no_auth: bool, require_key: bool) -> "Rules":
        """The rules for the address and flags of the command line; INVALID_INPUT where the flags contradict each other."""
        if no_auth and require_key:
            raise invalid("--no-auth and --require-key contradict each other: leave one of them out")
        auth = Auth.NO_AUTH if no_auth else Auth.REQUIRE_KEY if require_key else Auth.DEFAULT
        return cls(is_local(host), auth)

    @property
    def keys_in_force(self) -> bool:
        """Whether keys are looked at: then a wrong one is refused even where none would have been needed."""
        return self.auth is Auth.REQUIRE_KEY or (self.auth is Auth.DEFAULT and not self.loopback)

    def needs_key(self, access: Access) -> bool:
        """Whether a call without a key is refused."""
        return self.keys_in_force and (access in (Access.ADMIN, Access.JOBS) or (access is Access.INFER and self.auth is Auth.REQUIRE_KEY))


def refusal(
    rules: Rules, access: Access, method: str, headers: Headers, token: str | None, key: Key | None, *, accounts: bool = False
) -> ServingError | None:
    """Why a call is refused, or None when it is allowed. `token` is what the request carried, `key` what it proved to be.

    With `accounts`, people's jobs are for those who have a key or an account, on loopback too.

    UNAUTHENTICATED: a key is missing or wrong. FORBIDDEN: the key does not reach that far, or the call may come from a foreign web page.
    """
    # A browser asks with OPTIONS, and without any key, whether a page may call at all; nothing runs and nothing is told.
    if access is Access.PUBLIC or (access is Access.INFER and method == "OPTIONS"):
        return None
    in_force = rules.keys_in_force or (accounts and access is Access.JOBS)
    if in_force and key is None:
        if token is not None:
            return ServingError(
                Kind.UNAUTHENTICATED, f"the API key of this request is not valid here; {_HOW}, or leave it out if none is needed"
            )
        if access is Access.JOBS or rules.needs_key(access):
            return ServingError(Kind.UNAUTHENTICATED, f"this call needs an API key with the scope {access.value}: {_HOW}")
    if in_force and key is not None and not key.allows(access):
        text = f"this call needs an API key with the scope {access.value}; the key {key.name} has {_words(key)}"
        return ServingError(Kind.FORBIDDEN, text)
    if access is Access.INFER:
        return None
    listed = list(headers)
    if key is not None and key.allows(access) and explicit_token(listed) is not None:
        # No page can know the key, and no browser adds such a header on its own. This is also how calls through a proxy get in.
        return None
    return _foreign(rules, listed)


def cors_headers(access: Access, *, enabled: bool) -> list[tuple[bytes, bytes]]:
    """What lets any web page read an answer: for inference only, and only where it was asked for. Cookies and the like are never included."""
    if not enabled or access is not Access.INFER:
        return []
    return [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", b"POST, GET"),
        (b"access-control-allow-headers", b"Content-Type"),
    ]


def preflight(origin: bytes | None, access: Access, *, enabled: bool) -> list[tuple[bytes, bytes]] | None:
    """The headers of a 200 without a body for OPTIONS on an inference route; None where the request is no preflight to be answered.

    With CORS off the 200 has none of these headers, and the browser keeps the page from calling.
    """
    if access is not Access.INFER or origin is None or not _ORIGIN.match(origin.decode("latin-1")):
        return None
    return cors_headers(access, enabled=enabled)


def is_local(host: str) -> bool:
    """Whether a host is this machine by its spelling alone: localhost, 127.0.0.0/8 or ::1 (in brackets or not)."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return False
    return address == ipaddress.IPv6Address("::1") or (address.version == 4 and address.is_loopback)


def _words(key: Key) -> str:
    return " and ".join(sorted(scope.value for scope in key.scopes)) or "none"


def _foreign(rules: Rules, headers: list[tuple[bytes, bytes]]) -> ServingError | None:
    """The refusal of a call that a web page of another origin may have caused."""
    hosts = _values(headers, b"host")
    authorities = [_authority(host) for host in hosts]
    if rules.loopback:
        for host, authority in zip(hosts, authorities, strict=True):
            if authority is None or not is_local(authority[0]):
                expected = "expected localhost, 127.0.0.1 or [::1]"
                return _forbidden(
                    f"this server is for its own machine and changes only for calls to it: Host is {_quoted(host)}, {expected}"
                )
    for origin in _values(headers, b"origin"):
        if not any(_same(rules, origin, authority) for authority in authorities):
            return _forbidden(f"web pages of other origins may not change this server: Origin is {_quoted(origin)}")
    for site in _values(headers, b"sec-fetch-site"):
        if site.lower() not in {"same-origin", "none"}:
            return _forbidden(f"web pages of other origins may not change this server: Sec-Fetch-Site is {_quoted(site)}")
    return None


def _same(rules: Rules, origin: str, authority: tuple[str, int | None] | None) -> bool:
    """Whether an origin is the server itself, as the browser addressed it; on loopback its names stand for each other."""
    match = _ORIGIN.match(origin)
    page = _authority(match[2]) if match else None
    if match is None or page is None or authority is None:
        return False
    default = _DEFAULT_PORTS[match[1].lower()]
    same_host = is_local(page[0]) if rules.loopback else page[0] == authority[0]
    return same_host and (page[1] or default) == (authority[1] or default)


def _authority(text: str) -> tuple[str, int | None] | None:
    match = _AUTHORITY.match(text)
    return (match[1].lower(), int(match[2]) if match[2] else None) if match else None


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1").strip(" \t") for key, value in headers if key.lower() == name]


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def _forbidden(text: str) -> ServingError:
    return ServingError(Kind.FORBIDDEN, f"{text}; a call with an API key of scope admin is taken from anywhere")
