"""Which workers a deploy waits for: those that are counted in the store and live, and those of this server that are about to be counted.

The kernel knows which processes of this machine are dead (see owners.py); for others their leases decide. Called by the registry and watch.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.owners import Owner
from dragoman.store import Store

LEASE_S = 30.0
_RENEWALS = 5
"""So many in the time of a lease."""


class Members:
    """`owners` is the folder in which workers of this machine show that they live. `shared` is a folder of this server's workers.

    Without `shared` and with `alone` there is nobody else, and nothing is written anywhere.
    """

    def __init__(self, owners: Path | None = None, shared: Path | None = None, *, alone: bool = True, lease_s: float = LEASE_S) -> None:
        self.alone = alone
        self.lease_s = lease_s
        self.whole = shared is None
        """Whether this worker is all of its server."""
        self._folder = owners
        self._shared = shared / "workers" if shared is not None else None
        self._owner: Owner | None = None
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._due = 0.0

    @property
    def name(self) -> str:
        """How this worker is called in the store, unique for ever. After `show`."""
        assert self._owner is not None
        return self._owner.name

    async def show(self) -> None:
        """Let others know that this worker lives, before there is anything to wait for."""
        if not self.alone and self._owner is None:
            await asyncio.to_thread(self._show)

    def _show(self) -> None:
        assert self._folder is not None
        try:
            self._owner = Owner(self._folder)
        except OSError:  # a data directory that cannot be written: then only this server's workers know, and leases tell all others
            if self._shared is not None:
                self._owner = Owner(self._shared.parent / "owners")
            else:
                self._own = tempfile.TemporaryDirectory(prefix="dragoman-")
                self._owner = Owner(Path(self._own.name))
        if self._shared is not None:
            self._shared.mkdir(exist_ok=True)
            (self._shared / self._owner.name).touch()

    async def join(self, store: Store) -> bool:
        """Be counted, or go on being counted; to be called more often than leases end. False when the store did not know this worker."""
        if self.alone or time.monotonic() < self._due:
            return True
        await self.show()
        known = await store.join(self.name, time.time() + self.lease_s)
        self._due = time.monotonic() + self.lease_s / _RENEWALS
        return known

    async def others(self, store: Store, *, uncounted: bool, here: bool = False) -> set[str]:
        """Everybody else who is alive, or only those of this server, with `here`. `uncounted`: also who has not joined the store yet.

        The dead are removed from the store on the way. Raises UNAVAILABLE once this worker has left.
        """
        owner = self._owner
        if owner is None:
            raise ServingError(Kind.UNAVAILABLE, "this worker has left")
        counted = await store.workers(now=time.time())
        dead = await asyncio.to_thread(owner.dead, counted)
        if dead:
            await store.leave(dead)
        found = set(counted) - set(dead)
        listed = set() if self._shared is None else await asyncio.to_thread(_listed, self._shared, owner)
        if here:
            found &= listed
        return (found | listed if uncounted else found) - {owner.name}

    async def dead_runs(self, runs: Iterable[str]) -> list[str]:
        """Which of these servers of this machine have ended."""
        return await asyncio.to_thread(self._owner.dead, list(runs)) if self._owner is not None else []

    async def leave(self, store: Store | None) -> None:
        """Nobody waits for this worker from now on."""
        owner, self._owner = self._owner, None
        if owner is None:
            return
        try:
            if store is not None:
                await store.leave([owner.name])
        finally:
            if self._shared is not None:
                (self._shared / owner.name).unlink(missing_ok=True)
            owner.close()
            if self._own is not None:
                self._own.cleanup()


def _listed(folder: Path, owner: Owner) -> set[str]:
    """The workers of this server that live; what those that do not have left is removed."""
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir(folder)
        dead = set(owner.dead(names))
        for name in dead:
            (folder / name).unlink(missing_ok=True)
        return set(names) - dead
    return set()
