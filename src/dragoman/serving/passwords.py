"""Passwords: what is kept of one, and whether somebody knows it. Called by doors.py for deployments and by jobs/accounts.py for people.

A try costs some 40 ms of a thread; one is made at a time, and few may wait, so that whoever guesses does not have the machine.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Mapping

from dragoman.core.errors import Kind, ServingError

_COST, _BLOCK = 1 << 14, 8
"""scrypt: 16 MiB and some 40 ms a try."""
_REMEMBERED = 1024
_WAITING = 32
"""Tries that may wait; each takes a thread for a while, and whoever guesses must not have them all."""


def lock_of(user: str, password: str) -> dict[str, str]:
    """What is kept of a password: enough to know it again. Blocking (some 40 ms)."""
    salt = secrets.token_bytes(16)
    return {"user": user, "salt": salt.hex(), "hash": _hash(password.encode(), salt).hex()}


class Passwords:
    """Tries passwords, and remembers for a while which were right and which were wrong."""

    def __init__(self, what: str = "") -> None:
        """`what` goes into the error, for the protocol that answers it."""
        self._what = what
        self._secret = secrets.token_bytes(32)
        self._known: dict[bytes, bool] = {}
        """Digest of a lock and a password -> whether it opens."""
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    async def right(self, lock: Mapping[str, str], password: bytes) -> bool:
        """Whether this is the password that a lock was made of. Raises OVERLOADED when too many are being tried."""
        key = hashlib.blake2b(f"{lock['salt']} {lock['hash']} ".encode() + password, key=self._secret, digest_size=16).digest()
        known = self._known.get(key)
        if known is None:
            if self._waiting >= _WAITING:
                raise ServingError(Kind.OVERLOADED, "too many passwords are being tried; try again", what=self._what, retry_after_s=1.0)
            self._waiting += 1
            try:
                async with self._one_at_a_time:
                    known = self._known.get(key)
                    if known is None:
                        tried = await asyncio.to_thread(_hash, password, bytes.fromhex(lock["salt"]))
                        known = hmac.compare_digest(tried.hex(), lock["hash"])
            finally:
                self._waiting -= 1
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = known
        return known


def _hash(password: bytes, salt: bytes) -> bytes:
    digest = hashlib.sha256(password).digest()  # scrypt alone takes a password for the same with zeros behind it
    return hashlib.scrypt(digest, salt=salt, n=_COST, r=_BLOCK, p=1, dklen=32)
