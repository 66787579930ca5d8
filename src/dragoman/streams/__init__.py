"""The connector seam: what feeds models from a broker offers, and what the bridge does with it. MQTT, Kafka and Kinesis are built on it.

A connector knows one broker's client and nothing of models; the bridge (bridge.py) knows neither broker nor format of messages. Between them
go Messages, each in its Lane, and Outgoing answers. Delivery is at least once: a message is committed when its answer has been written.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dragoman.core.errors import ServingError


class Lane:
    """One ordered sequence of messages while this process reads it: a partition between two rebalances, a shard, an MQTT session.

    Compared by identity. What comes back after a rebalance or a reconnect is a new lane, so that nothing from before is committed in its
    name. `name` is for people ("orders/3"); `native` is the connector's own.
    """

    __slots__ = ("gone", "name", "native")

    def __init__(self, name: str, native: Any = None) -> None:
        self.name = name
        self.native = native
        self.gone = False
        """Set by the bridge when it was released or lost."""

    def __repr__(self) -> str:
        return f"Lane({self.name!r})"


@dataclass(slots=True, eq=False)
class Message:
    """One message as it came. Within a lane messages are handed over in order, and those of one key are answered in that order."""

    lane: Lane
    position: Any
    """Where it is in its lane: the connector's own, shown to people as text."""
    value: bytes
    source: str
    """Topic or stream that it came from."""
    key: bytes | None = None
    """Messages with none have no order among them."""
    headers: Sequence[tuple[str, bytes]] = ()
    """Kept on the answer."""
    reply_to: str = ""
    """Where its answer goes instead of the configured output."""
    native: Any = None
    """The connector's own: an answer refers to the message that it is about."""


@dataclass(slots=True, eq=False)
class Outgoing:
    """One answer to be written."""

    to: str
    """Topic or stream."""
    value: bytes
    about: Message
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class Reader(Protocol):
    """What a connector tells the bridge about lanes."""

    async def release(self, lanes: Collection[Lane]) -> None:
        """These lanes are to be given up in good order (a rebalance, a shard that moves): waits, for a bounded time, until what runs of them is
        answered, written and committed. What has not been begun is dropped. Afterwards they are lost."""
        ...

    def lost(self, lanes: Collection[Lane]) -> None:
        """These lanes are gone already (a connection was lost): nothing of them is committed any more, what was not begun is dropped."""
        ...


class Connector(Protocol):
    """One input of one broker, with its outputs. All methods are called on one loop; `fetch`, `publish` and `commit` by one task each.

    What may pass (no broker, no such topic yet, a lost connection) is raised as ServingError UNAVAILABLE with a message for people; the bridge
    waits and calls again, and connecting again is the connector's matter. Any other kind from `open` ends the stream with its reason. Messages of
    errors never have secrets. Cancelling any of these loses no message.
    """

    kind: str
    """The scheme of its addresses, and the trigger of events."""
    commit_interval_s: float
    """The bridge commits so often at most; 0 for at once."""

    async def open(self, reader: Reader) -> None:
        """Connect and subscribe. Called again after it failed, and not after it succeeded."""
        ...

    async def fetch(self, most: int, paused: Collection[Lane]) -> Sequence[Message]:
        """The next messages, `most` (at least 1) of them at most and none of the paused lanes.

        Returns as soon as there is one, or none after about a second. Back-pressure is that the bridge asks for no more than it has room for,
        and does not ask at all while it has none: a connection or group that must be kept alive meanwhile is the connector's matter.
        """
        ...

    async def publish(self, answers: Sequence[Outgoing]) -> Sequence[ServingError | None]:
        """Write these in order (of equal key, at least) and return when the broker has them all, as safely as it keeps anything.

        One outcome each: None, or the error of one that can never be written (too large, a name that is no topic's). For what may pass it
        raises UNAVAILABLE; the whole of it is then written again, so duplicates are possible and losses are not.
        """
        ...

    async def commit(self, upto: Mapping[Lane, Message]) -> None:
        """Of each lane this message and all before it have been answered: nobody needs to see them again. Lanes that are gone are ignored.

        May be called from inside `Reader.release`, too.
        """
        ...

    async def lag(self) -> Mapping[str, int | None]:
        """How many messages wait in each lane by its name, beyond those that were fetched; None where the broker does not say.

        Raises UNAVAILABLE when the broker does not answer, within some seconds.
        """
        ...

    async def close(self) -> None:
        """Let go of everything. What was not committed comes again to whoever reads next. Also after a failed `open`; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a connector gets beside its address. Connectors are made by `Connector class(address, surroundings)` (see addresses.py)."""

    client: str
    """A name of this worker that is stable over restarts: "dragoman" for the first, "dragoman-1" for the next."""
    store: Any = None
    """For connectors that keep their own place: `await store.get()` is the store (serving.late_store.LateStore)."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For passwords that are not to be in an address."""


__all__ = ["Connector", "Lane", "Message", "Outgoing", "Reader", "Surroundings"]
