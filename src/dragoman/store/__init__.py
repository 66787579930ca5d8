"""The store seam: what the server keeps across restarts, as records and one protocol. `sql.py` implements it over SQLAlchemy.

Everything here is awaited and never blocks the loop. A write is durable when its await returns (a killed process loses nothing that was
answered). Inference never needs a store: with the store down serving goes on. Failures of the database are ServingError UNAVAILABLE.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dragoman.core.predictions import Prediction, Progress, may_move

ACTIVE = frozenset({Progress.CLAIMED, Progress.RUNNING})
"""States in which a prediction has an owner who runs it."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of a model in the registry: what was built or registered, immutable but for its tags.

    `spec` is the ModelSpec as JSON, relative to `folder`; `manifest` lists files with sizes and hashes; `digest` is the hash of all of
    that, the same wherever the same model is built. `folder` lies under the data directory, "" for versions that are only a URI.
    """

    model: str
    version: str
    digest: str
    created: float
    """Seconds since the epoch."""
    kind: str = ""
    """tungsten, python, onnx, ..."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    source: str = ""
    """Where it came from: a folder, a URI."""


class ModelStore(Protocol):
    """Models, their versions, and their aliases (Tungsten's tags, MLflow's aliases)."""

    async def add_version(self, version: StoredVersion, *, aliases: Iterable[str] = (), replace: bool = False) -> None:
        """Insert a version (and its model, when that is new) and point these aliases at it, in one transaction.

        Raises CONFLICT when the version exists and `replace` is false.
        """
        ...

    async def version(self, model: str, version: str) -> StoredVersion | None: ...
    async def versions(self, model: str = "") -> list[StoredVersion]:
        """All versions of one model or of all, newest first; of those created in one moment, the one added last."""
        ...

    async def remove_version(self, model: str, version: str) -> bool:
        """Remove a version and the aliases that point at it; the model goes with its last version. False when there was none.

        The files of the version are the caller's.
        """
        ...

    async def aliases(self, model: str = "") -> dict[tuple[str, str], str]:
        """(model, alias) -> version."""
        ...

    async def set_alias(self, model: str, alias: str, version: str) -> None:
        """Create or move. Raises NOT_FOUND when the version does not exist."""
        ...

    async def remove_alias(self, model: str, alias: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Change:
    """What one compare-and-set write does to a prediction. None leaves a field as it is.

    A change to PENDING also takes the prediction from its owner: owner, lease and start are cleared, the attempts stay counted.
    Raises ValueError for an end without its time: such a prediction would never be removed.
    """

    id: str
    progress: Progress | None = None
    expect: frozenset[Progress] = frozenset()
    """The states in which it is allowed; empty: any that is not terminal. Moves that `may_move` forbids are refused whatever it says."""
    owner: str | None = None
    """Expected owner; None: whoever."""
    attempt: int | None = None
    """Expected attempt; None: whichever."""
    outputs: bytes | None = None
    error: str | None = None
    error_kind: str | None = None
    logs: str | None = None
    started: float | None = None
    finished: float | None = None
    delivered: bool | None = None

    def __post_init__(self) -> None:
        if self.progress is not None and self.progress.terminal and self.finished is None:
            raise ValueError(f"a change to {self.progress.value} must say when it finished")

    @property
    def allowed(self) -> frozenset[Progress]:
        """The states from which this change is made."""
        expected = self.expect or ACTIVE | {Progress.PENDING}
        return expected if self.progress is None else frozenset(p for p in expected if may_move(p, self.progress))


class PredictionStore(Protocol):
    """Asynchronous predictions."""

    async def add_prediction(self, prediction: Prediction) -> None:
        """Insert; durable on return. Concurrent calls share transactions. Raises CONFLICT for an id that is taken.

        An await that is cancelled may have written or not.
        """
        ...

    async def prediction(self, prediction_id: str, *, inputs: bool = True) -> Prediction | None:
        """Whoever only polls asks without the inputs (they are then empty): they may be large.

        Outputs whose file was destroyed make it FAILED with that reason.
        """
        ...

    async def change_prediction(self, change: Change) -> bool:
        """Apply one compare-and-set; False when the prediction is gone or not as expected. Concurrent calls share transactions."""
        ...

    async def claim_predictions(self, owner: str, models: Sequence[str], *, lease_until: float, limit: int) -> list[Prediction]:
        """Claim, oldest first: those PENDING of these models, their owner set, attempt one more, in one transaction; returned as CLAIMED."""
        ...

    async def pending_models(self) -> list[str]:
        """The models that PENDING predictions wait for."""
        ...

    async def unfinished(self) -> dict[str, tuple[int, int]]:
        """Model -> how many of its predictions wait (PENDING or CLAIMED) and how many are RUNNING; only models that have any."""
        ...

    async def orphans(self, *, now: float, dead: Sequence[str] = ()) -> list[Prediction]:
        """Those CLAIMED or RUNNING whose lease is over or whose owner is among the dead, oldest first.

        They come without their payloads (inputs and logs are empty, outputs None): there may be many.
        """
        ...

    async def owners(self) -> list[str]:
        """Who owns CLAIMED or RUNNING predictions now: at start, to find those of processes that are gone."""
        ...

    async def renew_leases(self, owner: str, lease_until: float) -> None:
        """Of all that this owner has CLAIMED or RUNNING."""
        ...

    async def cancelled_of(self, owner: str, ids: Sequence[str]) -> list[str]:
        """Which of these are no longer this owner's to run: cancelled, removed, or taken from it after its lease. In the order given.

        One that the owner itself has ended (SUCCEEDED, FAILED) is not among them.
        """
        ...

    async def undelivered(self, limit: int) -> list[Prediction]:
        """Terminal ones with a webhook that has not been delivered, the longest ended first."""
        ...

    async def remove_predictions(self, *, finished_before: float, limit: int) -> list[str]:
        """Remove terminal ones that ended before, the longest ended first; returns their ids.

        Those whose webhook is not delivered go, too: retention is the longest that anything is kept.
        """
        ...


class Store(ModelStore, PredictionStore, Protocol):
    """All of it, in one database."""

    async def close(self) -> None: ...
