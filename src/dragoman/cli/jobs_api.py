"""How the commands for jobs and data sets ask a server: FloydHub's protocol (its sheet, section 8), as FloydHub's own client speaks it.

Short questions and answers go through cli/client.py; files are streamed both ways here, nothing is ever in memory as a whole.
"""

import argparse
import getpass
import http.client
import json
import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit

from dragoman import __version__
from dragoman.cli.client import NoServerError, exchange, foreign, url_of, words_of
from dragoman.cli.jobs_files import Login, login
from dragoman.core.errors import Kind, ServingError, invalid

SPOKEN = "0.11.17"
"""The version of FloydHub's client whose protocol this is."""
_TIMEOUT_S = 300.0
_MOST_REFUSAL = 1 << 16
_KINDS = {
    400: Kind.INVALID_INPUT,
    401: Kind.UNAUTHENTICATED,
    403: Kind.FORBIDDEN,
    404: Kind.NOT_FOUND,
    409: Kind.CONFLICT,
    413: Kind.TOO_LARGE,
    422: Kind.INVALID_INPUT,
    429: Kind.OVERLOADED,
}

Json = dict[str, Any]


class Api:
    """One server, as somebody: who is logged in there (`dragoman login`), the owner of --key, or the user of this machine.

    Every method raises NoServerError without a server, and ServingError with the server's `message` and status when it refuses.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        known = login()
        asked = url_of(options)
        if known is not None and known.server and not named(options):
            asked = known.server
        self.url = asked.rstrip("/")
        self.login = known if known is not None and known.server in ("", self.url) else None
        if options.key:
            if not options.key.isascii() or not options.key.isprintable():
                raise invalid("--key holds characters that no key has")
            self.login = Login("", f"apikey {options.key}", self.url)
        self._options = argparse.Namespace(url=self.url, key="")

    @property
    def authorization(self) -> str:
        return self.login.authorization if self.login is not None else f"apikey {somebody()}"

    @cached_property
    def user(self) -> str:
        """Whose jobs are meant where no user is named."""
        if self.login is not None and self.login.user:
            return self.login.user
        return self.who(self.authorization)

    def who(self, authorization: str) -> str:
        """The name that the server knows the owner of these credentials by."""
        status, answer = exchange(self._options, "GET", "/api/v1/user/", extra=self._headers(authorization))
        name = self._accepted(status, answer).get("username")
        if not isinstance(name, str) or not name:
            raise foreign(self._options)
        return name

    def ask(self, method: str, path: str, body: object = None) -> Json:
        """A question below /api/v1 that is answered with a JSON object."""
        return self._accepted(*exchange(self._options, method, f"/api/v1{path}", body, self._headers(self.authorization)))

    def list(self, path: str, key: str = "") -> list[Json]:
        """One that is answered with a list of objects, or with an object that has it."""
        status, answer = exchange(self._options, "GET", f"/api/v1{path}", None, self._headers(self.authorization))
        if status < 300 and key and isinstance(answer, dict):
            answer = answer.get(key)
        if status >= 300:
            raise refused(status, answer)
        if not isinstance(answer, list) or not all(isinstance(each, dict) for each in answer):
            raise foreign(self._options)
        return answer

    def first(self, path: str, names: Iterable[str]) -> Json:
        """What the first of several names leads to that is there; the 404 of the first of them when none is."""
        missing: ServingError | None = None
        for name in names:
            try:
                return self.ask("GET", f"{path}/{quote(name)}")
            except ServingError as error:
                if error.status != 404:
                    raise
                missing = missing or ServingError(Kind.NOT_FOUND, f"there is no {name} at {self.url}: {error.message}", status=404)
        raise missing or foreign(self._options)

    def _accepted(self, status: int, answer: Any) -> Json:
        if status >= 300:
            raise refused(status, answer)
        if not isinstance(answer, dict):
            raise foreign(self._options)
        return answer

    def _headers(self, authorization: str) -> dict[str, str]:
        return {"Authorization": authorization, "x-floydhub-cli-version": SPOKEN, "User-Agent": f"dragoman/{__version__}"}

    @contextmanager
    def stream(
        self, method: str, path: str, body: Iterable[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """A request whose body and answer are read piece by piece. `path`: below /api/v1, or a whole URL.

        Refusals are raised, also those that come before the body has been sent.
        """
        url = path if path.startswith(("http://", "https://")) else f"{self.url}/api/v1{path}"
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise invalid(f"--url is {url}, expected http://... or https://...")
        made = http.client.HTTPConnection if parts.scheme == "http" else _secure
        connection = made(parts.hostname, parts.port, timeout=_TIMEOUT_S)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            try:
                sent = {**self._headers(self.authorization), **(headers or {})}
                connection.request(method, target, body, sent)
            except (BrokenPipeError, ConnectionResetError):
                if body is None:
                    raise
                # The server has answered before it read everything, and hung up: what it said is what people want to read.
            reply = connection.getresponse()
            if reply.status >= 300:
                raise refused(reply.status, _json(reply.read(_MOST_REFUSAL)))
            yield reply
        except ServingError:
            raise
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise NoServerError(Kind.UNAVAILABLE, f"the connection to {self.url} broke: {reason}") from error
        finally:
            connection.close()


def named(options: argparse.Namespace) -> bool:
    """Whether somebody has said which server is meant."""
    return bool(options.url or os.environ.get("DRAGOMAN_URL"))


def _secure(host: str, port: int | None, timeout: float) -> http.client.HTTPConnection:
    return http.client.HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())


def somebody() -> str:
    """The name of this machine's user, for servers that take anybody's word."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a process without a user in the password file
        name = ""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "me"


def refused(status: int, answer: Any) -> ServingError:
    """The server's own words."""
    text = words_of(answer)[:2000]
    if status == 401:
        text = f"{text}; log in with `dragoman login`, or give --key"
    return ServingError(_KINDS.get(status, Kind.UNAVAILABLE), f"the server answers {status}: {text}", status=status)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")[:500]
