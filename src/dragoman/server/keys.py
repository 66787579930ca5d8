"""API keys: a small TOML file of names, hashes and scopes, and how a key is found in a request. Used by the server and by the command line.

Keys are random and 256 bits long, so a plain SHA-256 keeps them: there is nothing to guess that a slow hash would protect.
"""

import base64
import binascii
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import tomllib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects import Access

log = logging.getLogger("dragoman.keys")

_SCOPES = {"infer": Access.INFER, "jobs": Access.JOBS, "admin": Access.ADMIN}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_TOKEN = re.compile(r"[\x21-\x7e]{1,512}\Z")
_MAX_FILE_BYTES = 1 << 20
_HEADING = "# API keys of Dragoman: the SHA-256 of each key, never the key itself. Changes count at once; an emptied file allows nobody.\n"

Stamp = tuple[int, int, int, int]
"""What changes when a file does."""


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the ring. `sha256` is the lower-case hexadecimal hash of the key."""

    name: str
    sha256: str
    scopes: frozenset[Access]

    def allows(self, access: Access) -> bool:
        """Whether the key opens a route. Who may change the server may also use it, so `admin` includes the others."""
        return access is Access.PUBLIC or access in self.scopes or Access.ADMIN in self.scopes


class KeyRing:
    """The keys of one file, read again when the file changes.

    A file that is missing holds no keys. One that turns unreadable or malformed while the server runs is reported in the log and the
    keys read before stay valid, so that a slip in an editor locks nobody out; emptying or removing the file revokes all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: tuple[Key, ...] = ()
        self._stamp: Stamp | None = None
        self._complaint = ""

    @classmethod
    def load(cls, path: Path) -> "KeyRing":
        """The ring of a file that must exist and be right; INVALID_INPUT names the file and what is wrong with it."""
        ring = cls(path)
        try:
            ring._read(wait=True)
        except OSError as exc:
            raise invalid(f"the key file {path} cannot be read: {exc.strerror}") from exc
        return ring

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys as they are in the file now."""
        self._refresh()
        return self._keys

    def create(self, name: str, scopes: Collection[Access]) -> str:
        """Adds a new key to the file, which is made if need be, and returns it: the only time that it can be seen.

        INVALID_INPUT: a name or scopes that a file cannot hold. CONFLICT: the name is taken, or the file changed meanwhile.
        """
        token = _add(self._path, name, scopes, only_first=False)
        assert token is not None
        return token

    def verify(self, token: str) -> Key | None:
        """The key that this is, or None. Reads the file again if it changed: one `stat` when it did not."""
        self._refresh()
        digest = _digest(token)
        found = None
        # All are compared, whichever fits, so that the time tells nothing about which keys there are.
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _refresh(self) -> None:
        try:
            if _stamp(os.stat(self._path)) != self._stamp:
                self._read(wait=False)
                self._complaint = ""
        except FileNotFoundError:
            if self._stamp is not None:
                log.warning("the key file %s is gone: no key is valid now", self._path)
            self._keys, self._stamp = (), None
        except BlockingIOError:
            # Somebody is adding a key at this moment; the next request will see it.
            pass
        except OSError as exc:
            self._complain(f"the key file {self._path} cannot be read: {exc.strerror}")
        except ServingError as exc:
            self._complain(exc.message)

    def _complain(self, text: str) -> None:
        """Logs what is wrong once, however many requests run into it."""
        if text != self._complaint:
            log.warning("%s; the keys read before stay valid", text)
        self._complaint = text

    def _read(self, *, wait: bool) -> None:
        with open(self._path, "rb") as file:
            _lock_shared(file.fileno(), wait=wait)
            status = os.fstat(file.fileno())
            content = file.read(_MAX_FILE_BYTES + 1)
        # Noted before the content is judged: a malformed file is not read again at every request.
        self._stamp = _stamp(status)
        if status.st_mode & 0o077:
            mode = status.st_mode & 0o777
            log.warning("the key file %s is open to other users (mode %03o): run chmod 600 %s", self._path, mode, self._path)
        self._keys = _parse(self._path, content)


def ensure_admin_key(path: Path) -> str | None:
    """Makes the file with one admin key, named "admin", and returns that key to be shown once; None where the file already holds keys."""
    # Looked at first: a file of keys may well lie where the server cannot write.
    if path.exists() and KeyRing.load(path).keys:
        return None
    return _add(path, "admin", {Access.ADMIN}, only_first=True)


def tokens_from(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key that a request carries: see `explicit_token`, else the password of Basic authorization; None without one.

    Basic comes last because a proxy in front of the server may have put its own there. A malformed or doubled header counts as none.
    """
    listed = list(headers)
    token = explicit_token(listed)
    if token is None and (basic := basic_credentials(listed)) is not None:
        token = _token(basic[1])
    return token


def basic_credentials(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes] | None:
    """User name and password of Basic authorization; None without it, or for what is none."""
    scheme, rest = _authorization(list(headers))
    if scheme != "basic":
        return None
    try:
        user, _, password = base64.b64decode(rest, validate=True).partition(b":")
    except binascii.Error:
        return None
    return user, password


def explicit_token(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key in `Authorization: Bearer` or `apikey`, or in `X-API-Key`: put there by the caller, since no browser adds these on its own."""
    listed = list(headers)
    scheme, rest = _authorization(listed)
    token = _token(rest) if scheme in {"bearer", "apikey"} else None
    if token is None:
        own = [value for name, value in listed if name.lower() == b"x-api-key"]
        token = _token(own[0].strip(b" \t")) if len(own) == 1 else None
    return token


def _authorization(headers: list[tuple[bytes, bytes]]) -> tuple[str, bytes]:
    """Scheme, in lower case, and the rest of the one Authorization header; empty where there is none or more than one."""
    values = [value for name, value in headers if name.lower() == b"authorization"]
    scheme, _, rest = values[0].strip(b" \t").partition(b" ") if len(values) == 1 else (b"", b"", b"")
    return scheme.decode("latin-1").lower(), rest.strip(b" \t")


def _token(value: bytes) -> str | None:
    text = value.decode("latin-1")
    return text if _TOKEN.match(text) else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _parse(path: Path, content: bytes) -> tuple[Key, ...]:
    if len(content) > _MAX_FILE_BYTES:
        raise invalid(f"the key file {path} is larger than {_MAX_FILE_BYTES} bytes")
    try:
        document = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise invalid(f"the key file {path} is not TOML: {exc}") from exc
    tables = document.pop("keys", [])
    if document or not isinstance(tables, list):
        raise invalid(f"the key file {path}: expected only [[keys]] tables with name, sha256 and scopes")
    found: dict[str, Key] = {}
    for number, table in enumerate(tables, 1):
        key = _key(f"the key file {path}, key {number}", table)
        if key.name in found:
            raise invalid(f"the key file {path}: two keys are named {key.name}")
        found[key.name] = key
    return tuple(found.values())


def _key(where: str, table: Any) -> Key:
    if not isinstance(table, dict) or table.keys() != {"name", "sha256", "scopes"}:
        raise invalid(f"{where}: expected exactly name, sha256 and scopes")
    name, digest, scopes = table["name"], table["sha256"], table["scopes"]
    if not isinstance(name, str) or not _NAME.match(name):
        raise invalid(f"{where}: name must be 1 to 64 letters, digits, dots, dashes or underscores")
    if not isinstance(digest, str) or not _HASH.match(digest.lower()):
        raise invalid(f"{where} ({name}): sha256 must be 64 hexadecimal digits")
    if not isinstance(scopes, list) or not scopes or not all(isinstance(scope, str) and scope in _SCOPES for scope in scopes):
        raise invalid(f'{where} ({name}): scopes must be a list of "infer", "jobs" or "admin"')
    return Key(name, digest.lower(), frozenset(_SCOPES[scope] for scope in scopes))


def _add(path: Path, name: str, scopes: Collection[Access], *, only_first: bool) -> str | None:
    words = [word for word, scope in _SCOPES.items() if scope in scopes]
    if not _NAME.match(name):
        raise invalid(f"key name {name!r}: expected 1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit")
    if not words or len(words) != len(set(scopes)):
        raise invalid(f"key {name}: expected one or more of the scopes infer, jobs and admin")
    token = f"dg_{secrets.token_urlsafe(32)}"
    with _locked(path) as descriptor:
        content = _whole(descriptor)
        keys = _parse(path, content)
        if only_first and keys:
            return None
        if any(key.name == name for key in keys):
            raise ServingError(Kind.CONFLICT, f"the key file {path} already has a key named {name}")
        heading = _HEADING if not content else "" if content.endswith(b"\n") else "\n"
        listed = ", ".join(f'"{word}"' for word in words)
        block = f'{heading}\n[[keys]]\nname = "{name}"\nsha256 = "{_digest(token)}"\nscopes = [{listed}]\n'
        _append(descriptor, block.encode(), len(content))
    return token


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, made with mode 0600 if need be, open for appending by nobody else. Readers take the same lock, so none sees half a key."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as exc:
        raise invalid(f"the key file {path} cannot be written: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not _is_open_at(path, descriptor):
            raise ServingError(Kind.CONFLICT, f"the key file {path} was replaced while a key was being added; try again")
        yield descriptor
    finally:
        os.close(descriptor)


def _is_open_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock_shared(descriptor: int, *, wait: bool) -> None:
    """Keeps keys from being added while the file is read. Raises BlockingIOError where one is being added and the caller cannot wait."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        # Some network file systems have no locks. The file can be read all the same; half a key would be malformed and change nothing.
        log.debug("a key file cannot be locked for reading")


def _whole(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(_MAX_FILE_BYTES + 1)


def _append(descriptor: int, block: bytes, size: int) -> None:
    """All of the block or nothing of it is in the file afterwards, on the disk."""
    try:
        if os.write(descriptor, block) != len(block):
            raise OSError(None, "the disk is full")
        os.fsync(descriptor)
    except OSError as exc:
        os.ftruncate(descriptor, size)
        raise invalid(f"a key cannot be added: {exc.strerror}") from exc
