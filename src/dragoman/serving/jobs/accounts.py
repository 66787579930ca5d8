"""Accounts: the people whose jobs this server runs, as far as it tells them apart (FloydHub requirement F2). Used by the guard, the dialect, the CLI.

A small JSON file in the data directory, of hashes only; every worker sees a change at once. Without it there are no accounts, and whoever
may reach the server says who they are.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dragoman.core.disk import write_whole
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.engines.locks import FileLock
from dragoman.serving.passwords import Passwords, lock_of
from dragoman.serving.paths import private_folder
from dragoman.serving.settings import quoted

FILE = "accounts.json"
TOKEN_S = 30 * 86400
"""How long a login with a password holds; keys hold until the account is removed."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_ANYBODY = "user"
_LONGEST = 512
_STRANGER = {"salt": "00" * 16, "hash": "00" * 32}
"""A lock that nothing opens: a name that there is not takes as long as a wrong password."""


class Accounts:
    """The accounts of one data directory; of None, there are none. Reading costs one `stat` when nothing changed."""

    def __init__(self, folder: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = folder / FILE if folder is not None else None
        self._clock = clock
        self._passwords = Passwords("account")
        self._stamp: tuple[int, int, int] | None = None
        self._known: Mapping[str, Mapping[str, Any]] = {}

    @property
    def exist(self) -> bool:
        """Whether people are told apart: then whoever starts jobs must have one. So it stays when the last one is removed."""
        self._read()
        return self._stamp is not None

    def names(self) -> list[str]:
        return sorted(self._read())

    def verify(self, token: str) -> str | None:
        """Whose key, or unexpired token of a login, this is; None for nobody's."""
        known = self._read()
        signed = _read_token(token)
        if signed is not None:
            name, expires, signature = signed
            account = known.get(name)
            fits = account is not None and "lock" in account and hmac.compare_digest(signature, _signature(name, expires, account))
            return name if fits and expires > self._clock() else None
        digest, found = _digest(token), None
        for name, account in known.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(account["key"], digest):
                found = name
        return found

    async def login(self, name: str, password: str) -> str:
        """A token for somebody who knows the password of an account; without accounts, for anybody who gives a name and a password.

        Raises UNAUTHENTICATED (what="account"), or OVERLOADED while many passwords are being tried.
        """
        known = self._read()
        expires = int(self._clock()) + TOKEN_S
        if not self.exist:
            if not _NAME.match(name) or not password:
                raise ServingError(
                    Kind.UNAUTHENTICATED, "log in with a name of letters, digits, dots, dashes or underscores, and a password"
                )
            return _token(name, expires, b"")
        account = known.get(name, {})
        right = await self._passwords.right(account.get("lock", _STRANGER), password.encode("utf-8", "replace")[:_LONGEST])
        if not right:
            raise ServingError(Kind.UNAUTHENTICATED, "the user name or the password is wrong", what="account")
        return _token(name, expires, _signature(name, expires, account))

    def add(self, name: str, password: str = "") -> str:
        """A new account; returns its key, which can be seen this once. INVALID_INPUT for a name, CONFLICT for one that is taken. Blocking."""
        if not _NAME.match(name):
            raise invalid(
                f"account {quoted(name)}: expected 1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit"
            )
        key = f"dg_{secrets.token_urlsafe(32)}"
        account = {"key": _digest(key), **({"lock": _lock(name, password)} if password else {})}

        def change(known: dict[str, Any]) -> None:
            if name in known:
                raise ServingError(Kind.CONFLICT, f"there is an account {name} already", what="account")
            known[name] = account

        self._edit(change)
        return key

    def change_password(self, name: str, password: str) -> None:
        """Ends the logins that were made with the old one. NOT_FOUND for an account that there is not. Blocking."""
        lock = _lock(name, password)

        def change(known: dict[str, Any]) -> None:
            _require(known, name)
            known[name] = {**known[name], "lock": lock}

        self._edit(change)

    def remove(self, name: str) -> None:
        """Its key and its logins end; its projects and jobs stay. NOT_FOUND for an account that there is not."""

        def change(known: dict[str, Any]) -> None:
            _require(known, name)
            del known[name]

        self._edit(change)

    def _read(self) -> Mapping[str, Mapping[str, Any]]:
        if self._path is None:
            return {}
        try:
            status = self._path.stat()
        except OSError:
            self._known, self._stamp = {}, None
            return self._known
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._stamp:
            self._known, self._stamp = _parse(self._path), stamp
        return self._known

    def _edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """One process at a time reads, changes and replaces the file; when `change` raises, it stays as it is."""
        assert self._path is not None
        private_folder(self._path.parent)
        with FileLock.take(self._path.with_suffix(".lock")):
            known = dict(_parse(self._path)) if self._path.exists() else {}
            change(known)
            write_whole(self._path, json.dumps(known, indent=1), flush=True)
        self._stamp = None


def claimed(token: str) -> str:
    """Who a caller says they are where there are no accounts: the name in the token of a login, a key that is a name, else "user"."""
    signed = _read_token(token)
    if signed is not None:
        return signed[0]
    return token if _NAME.match(token) and not token.startswith("dg_") else _ANYBODY


# --- tokens: JWTs, whose middle part the original client reads (it wants `exp`, and plain base64, which ASCII without > ? ~ is) ---


def _token(name: str, expires: int, signature: bytes) -> str:
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": name, "exp": expires})]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature or b"open"))


def _signature(name: str, expires: int, account: Mapping[str, Any]) -> bytes:
    """Made with what is kept of the password: a new password, or no account any more, ends the tokens of before."""
    return hmac.digest(account["lock"]["hash"].encode(), f"{expires} {name}".encode(), "sha256")


def _read_token(token: str) -> tuple[str, int, bytes] | None:
    """Name, expiry and signature of a token in the form of ours; None for anything else."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        _, body, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts)
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    name, expires = said.get("sub"), said.get("exp")
    return (name, expires, signature) if isinstance(name, str) and _NAME.match(name) and type(expires) is int else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _lock(name: str, password: str) -> Mapping[str, str]:
    if not password or len(password.encode("utf-8", "replace")) > _LONGEST:
        raise invalid(f"the password of account {name}: expected 1 to {_LONGEST} bytes")
    return lock_of(name, password)


def _require(known: Mapping[str, Any], name: str) -> None:
    if name not in known:
        raise ServingError(Kind.NOT_FOUND, f"there is no account {quoted(name)}", what="account")


def _parse(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Raises UNAVAILABLE for a file that is damaged: nobody is let in by it, nor does it count as none."""
    try:
        known = json.loads(path.read_text("ascii"))
        if isinstance(known, dict) and all(isinstance(account["key"], str) for account in known.values()):
            return known
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise ServingError(Kind.UNAVAILABLE, f"the file of accounts, {path.name} in the data directory, cannot be read")
