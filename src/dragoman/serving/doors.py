"""What stands before models that are deployments of their own: the password of each, and the short name that gRPC clients know one by.

Every worker has one; it reads both from the wishes, so that they travel as the wishes do. Made by the worker, asked by server/guard.py for
every request while anything is locked.
"""

import hmac
from collections.abc import Mapping
from typing import Any

from dragoman.serving.gateway import OPENED, Gateway
from dragoman.serving.passwords import Passwords
from dragoman.serving.registry import Registry
from dragoman.serving.wishes import versions_of

DOOR = "door"
"""The key of a wish's document under which `door` lies."""
GRPC_NAME = "model"
"""What the model of a gRPC deployment is called in its container (sheet, section 9): that of TensorFlow Serving's image."""


def door(lock: Mapping[str, str] | None, *, grpc: bool) -> dict[str, Any]:
    """What a wish's document says under DOOR."""
    return {**({"lock": dict(lock)} if lock else {}), **({"grpc": True} if grpc else {})}


class Doors:
    def __init__(self, registry: Registry, gateway: Gateway) -> None:
        self._registry = registry
        self._gateway = gateway
        self.locked = False
        """Whether anything has a password; asked for every request."""
        self._locks: dict[str, Mapping[str, str]] = {}
        self._grpc: set[str] = set()
        self._passwords = Passwords("deployment")
        registry.watch(self._changed)

    async def open(self, user: bytes, password: bytes) -> None:
        """Let the request that is being answered, which must have a task or context of its own, call whatever these credentials open.

        Raises OVERLOADED when too many passwords are being tried.
        """
        opened = {name for name, lock in list(self._locks.items()) if await self._opens(lock, user, password)}
        OPENED.set(frozenset(opened))

    def close(self) -> None:
        """The request that is being answered has no credentials; the one before it, in the same context, may have had."""
        if OPENED.get():
            OPENED.set(frozenset())

    async def _opens(self, lock: Mapping[str, str], user: bytes, password: bytes) -> bool:
        if not hmac.compare_digest(lock["user"].encode(), user):
            return False
        return await self._passwords.right(lock, password)

    def _changed(self, name: str) -> None:
        """A wish has changed. A lock outlives its deployment: what drains is still closed, and no id comes twice."""
        document = self._registry.document(name)
        said: Mapping[str, Any] = document.get(DOOR, {})
        if versions_of(document):
            if "lock" in said:
                self._locks[name] = said["lock"]
            else:
                self._locks.pop(name, None)
        if said.get("grpc") and versions_of(document):
            self._grpc.add(name)
        else:
            self._grpc.discard(name)
        self.locked = bool(self._locks)
        self._gateway.locked = self._locks.keys()
        self._gateway.aliases = {GRPC_NAME: next(iter(self._grpc))} if len(self._grpc) == 1 else {}
