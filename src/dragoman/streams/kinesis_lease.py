"""Who reads a stream of Kinesis for a group, and how far its shards are answered: one document of the store. Used by kinesis.py.

Servers that share a store take turns. A lease that is not renewed ends by itself; every write renews it, and fails when somebody else has it.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.streams.kinesis_shards import Checkpoint, Place, Start, checkpoint

KIND = "kinesis"
"""Of the documents in the store."""
_LEASE_S = 30.0


class Lease:
    """`stream` is the address for people, `key` the name of the document; `taken` is awaited when somebody else has taken it over."""

    def __init__(self, store: Any, stream: str, key: str, owner: str, taken: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._stream = stream
        self._key = key
        self._owner = owner
        self._taken = taken
        self.standing = Checkpoint()
        """What stands, as far as this process knows."""
        self.held = False

    async def claim(self, created: str, start: Start) -> None:
        """Become the one who reads, from where the last one stopped. Raises UNAVAILABLE while somebody else does.

        `created` tells a stream from an earlier one of its name; `start` holds where nobody has read before.
        """

        def claimed(stands: Checkpoint | None, now: float) -> Checkpoint:
            if stands is not None and stands.owner != self._owner and stands.until > now:
                words = f"the stream {self._stream} is read by {stands.owner}, for the same group; it is taken over when that one ends"
                raise ServingError(Kind.UNAVAILABLE, words)
            if stands is None:
                stands = Checkpoint(created, start)
            elif stands.created != created:  # all in it is new
                stands = Checkpoint(created)
            return replace(stands, owner=self._owner, until=now + _LEASE_S)

        store = await self._store.get()
        document = await store.edit_document(KIND, self._key, lambda found: claimed(checkpoint(found), time.time()).written())
        found = checkpoint(document)
        assert found is not None
        self.standing, self.held = found, True

    async def note(self, places: Mapping[str, Place]) -> None:
        """Keep how far these shards are answered, and renew the lease. Raises UNAVAILABLE, after `taken`, when somebody else has it."""
        await self._edit(lambda stands: replace(stands.at(places), until=time.time() + _LEASE_S))

    async def forget_all_but(self, there: Collection[str]) -> None:
        """Drop the shards that ended and that Kinesis has forgotten. Raises as `note`."""
        if self.standing.without(there) != self.standing:
            await self._edit(lambda stands: stands.without(there))

    async def release(self) -> None:
        """Let somebody else read at once. Raises as `note`."""
        if self.held:
            self.held = False
            await self._edit(lambda stands: replace(stands, until=0.0))

    async def _edit(self, change: Callable[[Checkpoint], Checkpoint]) -> None:
        def edit(found: Mapping[str, Any] | None) -> Mapping[str, Any]:
            stands = checkpoint(found)
            if stands is None or stands.owner != self._owner or stands.created != self.standing.created:
                raise _TakenError
            return change(stands).written()

        store = await self._store.get()
        try:
            self.standing = checkpoint(await store.edit_document(KIND, self._key, edit)) or self.standing
        except _TakenError as error:
            self.held = False
            await self._taken()
            raise ServingError(Kind.UNAVAILABLE, f"the stream {self._stream} is read by another server now") from error


class _TakenError(Exception):
    """Somebody else has the lease."""
