"""The life of a model version, and the one function that decides what to do next. Pure: no clock, no I/O.

    LOADING --loaded--> READY --unwanted--> DRAINING --empty--> gone
    LOADING --failed--> FAILED --retry due, or a new revision--> LOADING
    LOADING, FAILED --unwanted--> gone

A version is keyed by (name, version, revision): a reload is another revision of the same version, and the old one serves until the new one is
ready. All moves that are not listed are refused.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, unique
from typing import Any, TypeAlias

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import EMPTY, ModelSpec


@unique
class State(Enum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"
    GONE = "gone"


_MOVES: Mapping[State, frozenset[State]] = {
    State.LOADING: frozenset({State.READY, State.FAILED, State.GONE}),
    State.READY: frozenset({State.DRAINING, State.LOADING, State.FAILED}),
    State.FAILED: frozenset({State.LOADING, State.GONE}),
    State.DRAINING: frozenset({State.GONE}),
    State.GONE: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Have:
    """One version as it is. `retry_at` is when a FAILED one may be tried again (same clock as `plan`'s now; inf: never by itself).

    `served`: a FAILED one that was READY before, and stopped. `kind`: what kind of error made it FAILED.
    """

    version: str
    revision: str
    state: State
    reason: str = ""
    retry_at: float = math.inf
    served: bool = False
    kind: Kind | None = None

    def to(self, state: State, reason: str = "", retry_at: float = math.inf, kind: Kind | None = None) -> "Have":
        """The same version in another state. Raises ValueError for a move that the table above does not have."""
        if state not in _MOVES[self.state]:
            raise ValueError(f"a version cannot go from {self.state.name} to {state.name}")
        served = self.state is State.READY and state is State.FAILED
        return replace(self, state=state, reason=reason, retry_at=retry_at, served=served, kind=kind)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One version that should be served. A target of the command line has its spec; a stored wish has an origin, which says where to find it.

    Every process makes the spec from the origin when it loads, so that its own settings hold. Another `revision` is a reload.
    """

    revision: str
    spec: ModelSpec | None = None
    origin: Mapping[str, Any] = EMPTY
    fault: ServingError | None = None
    """Why there is nothing that could be loaded: the load fails with this, and the versions before go on."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What should be served of one model: one record, so that versions, labels and default move together under one generation."""

    generation: int
    """Rises with every change that this worker hears of, of any model."""
    versions: Mapping[str, Wanted]
    labels: Mapping[str, str]
    failed: Mapping[str, str] = EMPTY
    """Version -> reason, of those that were asked for, did not load, and are not wanted any more for that."""
    unloaded: Collection[str] = ()
    """Versions of targets of the command line that somebody has unloaded."""


@unique
class PolicyKind(Enum):
    SPECIFIC = "specific"
    LATEST = "latest"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Policy:
    """Which of a model's versions are served: those named in `versions` and, by kind, none beyond, the `count` highest, or all."""

    kind: PolicyKind = PolicyKind.SPECIFIC
    count: int = 1
    versions: tuple[str, ...] = ()


def choose(policy: Policy, versions: Iterable[str]) -> list[str]:
    """The versions that a policy serves of those that exist, the highest first. One that is named and does not exist is not among them."""
    ordered = sorted(set(versions), key=version_order, reverse=True)
    by_kind = {PolicyKind.SPECIFIC: 0, PolicyKind.LATEST: policy.count, PolicyKind.ALL: len(ordered)}[policy.kind]
    return [version for index, version in enumerate(ordered) if index < by_kind or version in policy.versions]


@dataclass(frozen=True, slots=True)
class Load:
    version: str
    revision: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Load a FAILED version again."""

    version: str
    revision: str


@dataclass(frozen=True, slots=True)
class Drain:
    version: str
    revision: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop a version that never served, or no longer does: there is nothing to drain."""

    version: str
    revision: str


Action: TypeAlias = Load | Retry | Drain | Forget


def plan(desired: Mapping[str, str], have: Iterable[Have], now: float) -> list[Action]:
    """The next steps of one model: at most one load, and every drain that costs no availability. Empty: settled.

    `desired` is version -> revision.

    An unwanted (version, revision) drains when its version is wanted at another revision and that one is ready; or when its version is not
    wanted and some wanted one is ready, or none is wanted at all. So there is never a moment without a ready version while one that is
    wanted was ready before. A slow or failing load never blocks a drain.
    """
    present = list(have)
    wanted = set(desired.items())
    ready = {(h.version, h.revision) for h in present if h.state is State.READY}
    ready_versions = {version for version, revision in ready if (version, revision) in wanted}
    actions: list[Action] = []
    for h in present:
        if (h.version, h.revision) in wanted:
            continue
        if h.state in (State.FAILED, State.LOADING):
            actions.append(Forget(h.version, h.revision))
        elif h.state is State.READY:
            replaced = h.version in desired and h.version in ready_versions
            superseded = h.version not in desired and (bool(ready_versions) or not desired)
            if replaced or superseded:
                actions.append(Drain(h.version, h.revision))
    if any(h.state is State.LOADING and (h.version, h.revision) in wanted for h in present):
        return actions
    by_key = {(h.version, h.revision): h for h in present}
    for version in sorted(desired, key=version_order, reverse=True):
        known = by_key.get((version, desired[version]))
        if known is None:
            return [*actions, Load(version, desired[version])]
        if known.state is State.FAILED and known.retry_at <= now:
            return [*actions, Retry(version, desired[version])]
    return actions


def version_order(version: str) -> tuple[int, int, str]:
    """Sort key: numbers as numbers, above every version that is not one; texts alphabetically."""
    if version.isascii() and version.isdigit():
        return (1, int(version), version)
    return (0, 0, version)
