"""The life of an asynchronous prediction: its record and the moves that it may make. Pure: clocks and ids are passed in.

    PENDING --claimed--> CLAIMED --started--> RUNNING --result--> SUCCEEDED
       ^                    |                   |------error----> FAILED
       '----lease over------'-------------------'  (RUNNING: only if the model may be repeated and attempts remain, else FAILED)
    PENDING, CLAIMED, RUNNING --cancel--> CANCELLED          terminal --retention over--> gone

Whoever accepts a prediction claims it in the same write. Every later write is compare-and-set on (owner, attempt): a late result of a lost
lease changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique


@unique
class Progress(Enum):
    """`pending` is what clients see of PENDING and CLAIMED, `failed` of FAILED and CANCELLED."""

    PENDING = "pending"
    CLAIMED = "claimed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({Progress.SUCCEEDED, Progress.FAILED, Progress.CANCELLED})

_MOVES: Mapping[Progress, frozenset[Progress]] = {
    Progress.PENDING: frozenset({Progress.CLAIMED, Progress.FAILED, Progress.CANCELLED}),
    Progress.CLAIMED: frozenset({Progress.PENDING, Progress.RUNNING, Progress.SUCCEEDED, Progress.FAILED, Progress.CANCELLED}),
    Progress.RUNNING: frozenset({Progress.PENDING, Progress.SUCCEEDED, Progress.FAILED, Progress.CANCELLED}),
    Progress.SUCCEEDED: frozenset(),
    Progress.FAILED: frozenset(),
    Progress.CANCELLED: frozenset(),
}


def may_move(before: Progress, after: Progress) -> bool:
    """Whether the table above has this move. A terminal state is never left."""
    return after in _MOVES[before]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One stored prediction. Times are seconds since the epoch. `inputs` and `outputs` are rows in the encoding of the frames."""

    id: str
    """32 hexadecimal digits."""
    model: str
    version: str
    """"" is the model's default version at the time it runs."""
    operation: str
    """predict or demo."""
    progress: Progress
    inputs: bytes
    created: float
    owner: str = ""
    """Who runs it: one worker of one server, for as long as it lives."""
    attempt: int = 0
    lease_until: float = 0.0
    outputs: bytes | None = None
    error: str = ""
    """For the one who asked; the model's traceback may be part of it."""
    error_kind: str = ""
    """A `Kind`'s value, for machines."""
    logs: str = ""
    started: float | None = None
    finished: float | None = None
    webhook: str = ""
    delivered: bool = False
    """Whether the webhook has been called for the end, or given up."""
    caller: str = ""


def after_lease(prediction: Prediction, *, repeatable: bool, most_attempts: int) -> Progress:
    """What becomes of a prediction whose owner is gone: what had not started, or may be repeated, waits again; the rest has failed."""
    if prediction.progress is Progress.CLAIMED or (repeatable and prediction.attempt < most_attempts):
        return Progress.PENDING
    return Progress.FAILED
