"""What is known of the versions of a model, and why one of them does not answer. Pure; made by the reconciler, shown by the gateway."""

from collections.abc import Sequence
from dataclasses import dataclass

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """What is known of one version of one model, served or not."""

    name: str
    version: str
    state: State
    reason: str = ""
    platform: str = ""
    since: float = 0.0
    """Wall clock, seconds since the epoch, of the last change of state."""
    served: bool = False
    """Of a FAILED one: whether it was READY before."""
    kind: Kind | None = None
    """Of one that failed, or could not be loaded: what kind of error it was; None where that is not known."""
    waiting: bool = False
    """Of a LOADING one: it is wanted, and nothing has been done for it yet."""
    named: bool = False
    """Whether somebody gave the version its name (ModelSpec.named_version), as far as that is known before it is loaded."""


def absent(name: str, version: str, label: str, known: Sequence[VersionStatus]) -> ServingError:
    """Why a version (or label, or the default) has no entry. `known` is what is known of the model, highest version first."""
    if not known:
        return ServingError(Kind.NOT_FOUND, f"model '{name}' is not known to this server", what="model")
    if label:
        return ServingError(Kind.NOT_FOUND, f"model '{name}' has no label '{label}'", what="label")
    if version:
        of_version = [s for s in known if s.version == version]
        if not of_version:
            have = ", ".join(s.version for s in known)
            return ServingError(Kind.NOT_FOUND, f"model '{name}' has no version '{version}'; it has {have}", what="version")
        known = of_version
    for status in known:
        if status.state is State.LOADING:
            return ServingError(Kind.NOT_READY, f"model '{name}' is loading", what="model", retry_after_s=1.0)
    failed = next((s for s in known if s.state is State.FAILED), None)
    if failed is not None:
        which = f" version {failed.version}" if failed.version else ""
        how = "stopped" if failed.served else "failed to load"
        return ServingError(Kind.UNAVAILABLE, f"model '{name}'{which} {how}: {failed.reason}", what="model")
    return ServingError(Kind.UNAVAILABLE, f"model '{name}' is {known[0].reason or 'unloaded'}", what="unloaded")
