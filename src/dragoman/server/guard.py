"""The guard at the door of the application: reads the key of a request, applies `access.py`, and answers CORS. Called by app.py.

It holds what does not change while a listener lives (rules, key ring, CORS); every decision itself is a pure function elsewhere.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from dragoman.core.errors import ServingError
from dragoman.dialects import ACCOUNT, CALLER, SHARED, Access, Answer, Request, Route
from dragoman.server.access import Headers, Rules, cors_headers, is_local, preflight, refusal
from dragoman.server.keys import Key, KeyRing, basic_credentials, ensure_admin_key, explicit_token, tokens_from
from dragoman.server.settings import Settings
from dragoman.serving.doors import Doors
from dragoman.serving.gateway import OPENED
from dragoman.serving.jobs.accounts import Accounts

_ACCESS = "dragoman.access"
"""Where `admit` leaves the access of the route in the scope for `decorate`, which also sees answers to errors."""


class Guard:
    """`active`: whether inference has to be admitted at all; calls that change the server, and those of people's jobs, always are."""

    def __init__(self, settings: Settings, doors: Doors | None = None, accounts: Accounts | None = None) -> None:
        self._doors = doors
        self._accounts = accounts or Accounts()
        self._rules = Rules.of(_outermost(settings), no_auth=settings.no_auth, require_key=settings.require_key)
        self._ring = KeyRing.load(key_file(settings)) if settings.api_key_file else KeyRing(key_file(settings))
        self._cors = settings.cors
        self.active = self._rules.keys_in_force or self._cors

    def admit(self, request: Request, access: Access) -> Key | None:
        """The key that the call was made with, None for one without; raises UNAUTHENTICATED or FORBIDDEN for a call that is not allowed."""
        scope = request.scope
        scope[_ACCESS] = access
        key = self.allow(access, scope["headers"], request.method)
        if key is not None:
            scope[CALLER] = key.name
            scope[ACCOUNT] = not key.sha256
        return key

    def allow(self, access: Access, headers: Headers, method: str = "POST") -> Key | None:
        """As `admit`, by the headers of a call, or the metadata of one over gRPC."""
        if access is Access.PUBLIC:
            return None
        # Credentials that open a deployment are no API key.
        token = explicit_token(headers) if OPENED.get() else tokens_from(headers)
        key = self._ring.verify(token) if token is not None else None
        accounts = access is Access.JOBS and self._accounts.exist
        if accounts and key is None and token is not None and (name := self._accounts.verify(token)) is not None:
            key = Key(name, "", frozenset({Access.JOBS}))
        error = refusal(self._rules, access, method, headers, token, key, accounts=accounts)
        if error is not None:
            raise error
        return key

    @property
    def locked(self) -> bool:
        """Whether any deployment asks for a password: then every request is given to `open`."""
        return self._doors is not None and self._doors.locked

    async def open(self, headers: Headers) -> None:
        """Take the password of a deployment that a call may bring in its headers, or its metadata. For calls while anything is `locked`.

        Whether it was the right one is asked by the gateway when a model is called, and by the protocol that shows a deployment.
        """
        assert self._doors is not None
        basic = basic_credentials(headers)
        if basic is None:
            self._doors.close()
        else:
            await asyncio.sleep(0)  # what follows is this request's own context, which takes a task
            await self._doors.open(*basic)

    def decorate(self, request: Request, answer: Answer) -> None:
        """Adds the CORS headers to an answer of inference, errors included: a page must be able to read what it did wrong."""
        if self._cors:
            answer.headers.extend(cors_headers(_seen(request, request.scope.get(_ACCESS, Access.PUBLIC)), enabled=True))

    def preflight(self, request: Request, route: Callable[[], Route]) -> Answer | None:
        """The answer to a browser that asks whether a page may call; None where the request is an ordinary OPTIONS.

        `route` matches the request, for which its method is for that moment the one the browser wants to use.
        """
        origin = request.header(b"origin")
        if origin is None:
            return None
        wanted = request.header(b"access-control-request-method") or b"POST"
        request.method = wanted.decode("latin-1")
        try:
            access = _seen(request, route().access)
        except ServingError:
            return None
        finally:
            request.method = "OPTIONS"
        headers = preflight(origin, access, enabled=self._cors)
        return None if headers is None else Answer(200, b"", b"", headers)


def _seen(request: Request, access: Access) -> Access:
    """The access of a route, as pages of other origins have it: a dialect may let them read what anyone can."""
    return Access.INFER if access is Access.PUBLIC and request.scope.get(SHARED) else access


def key_file(settings: Settings) -> Path:
    """Where the keys of this server are."""
    return Path(settings.api_key_file) if settings.api_key_file else settings.data_path / "keys.toml"


def first_key(settings: Settings) -> str | None:
    """Makes an admin key where keys count, no file was named and there is none yet; the caller shows it once. To be called before workers start."""
    rules = Rules.of(_outermost(settings), no_auth=settings.no_auth, require_key=settings.require_key)
    if settings.api_key_file or not rules.keys_in_force:
        return None
    return ensure_admin_key(key_file(settings))


def _outermost(settings: Settings) -> str:
    """The address by which access goes: one set of rules holds for all ports, so keys count where any of them is open to others."""
    return settings.grpc_host if settings.grpc_port and settings.grpc_host and is_local(settings.host) else settings.host
