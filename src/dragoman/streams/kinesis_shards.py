"""Which shards of a stream are to be read and where one is in them: pure, over what Kinesis lists and what the store keeps. Used by kinesis.py."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Shard:
    """As Kinesis lists it. A split gives one shard two children, a merge two shards one."""

    id: str
    parents: tuple[str, ...] = ()
    closed: bool = False
    """Nothing is added any more."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where the reading of a stream began."""

    timestamp: float | None = None
    """Seconds since the epoch; None for its oldest record."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a shard is answered."""

    sequence: str = ""
    ended: bool = False
    """To its end, and it is closed."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is kept of one stream and group, in one document of the store."""

    created: str = ""
    """When the stream was made: places in one that was made anew mean nothing."""
    start: Start = field(default_factory=Start)
    places: Mapping[str, Place] = field(default_factory=dict)
    owner: str = ""
    """Who reads it."""
    until: float = 0.0
    """Seconds since the epoch: then somebody else may."""

    def place(self, shard: str) -> Place:
        return self.places.get(shard, Place())

    def at(self, places: Mapping[str, Place]) -> "Checkpoint":
        """With these places, which never go back."""
        merged = dict(self.places)
        for shard, place in places.items():
            known = self.place(shard)
            further = max(known.sequence, place.sequence, key=_number)
            merged[shard] = Place(further, known.ended or place.ended)
        return replace(self, places=merged)

    def without(self, there: Collection[str]) -> "Checkpoint":
        """Without what ended and Kinesis has forgotten; these shards are there."""
        return replace(self, places={shard: place for shard, place in self.places.items() if shard in there or not place.ended})

    def written(self) -> dict[str, Any]:
        return asdict(self)


def checkpoint(document: Mapping[str, Any] | None) -> Checkpoint | None:
    """What `written` made."""
    if document is None:
        return None
    places = {shard: Place(**place) for shard, place in document["places"].items()}
    return Checkpoint(document["created"], Start(**document["start"]), places, document["owner"], document["until"])


def readable(shards: Sequence[Shard], places: Mapping[str, Place]) -> list[str]:
    """Those that are not answered to their end, and whose parents are, or are forgotten: so the order of a key outlives a split."""
    open_ = {shard.id for shard in shards if not places.get(shard.id, Place()).ended}
    return [shard.id for shard in shards if shard.id in open_ and not open_ & set(shard.parents)]


def _number(sequence: str) -> int:
    return int(sequence) if sequence else -1
