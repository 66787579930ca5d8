"""The control plane: what should be served. Desired state is held in memory, one record per model; every change is a new generation.

Dialects and the command line wish and deploy; the reconciler watches and reports. Nothing here loads a model.
"""

import asyncio
from collections.abc import Callable, Mapping

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import Desired
from dragoman.core.model import EMPTY, ModelSpec

RESERVED = frozenset({"stats", "models", "predictions", "docs", "metrics"})
"""Names that would hide a route of some dialect, such as GET /v2/models/stats."""

_NAME_LIMIT = 255


def check_name(name: str) -> None:
    """Raise INVALID_INPUT for a name that no URL of every dialect could carry, CONFLICT for one that would hide a route."""
    if not name or len(name) > _NAME_LIMIT:
        raise invalid(f"a model name has 1 to {_NAME_LIMIT} characters, this one has {len(name)}", "model")
    if name in (".", "..") or any(c in "/:\\" or ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in name):
        raise invalid(
            f"the model name {name!r} has characters that a URL path cannot carry ('/', ':', '\\', control characters or no UTF-8)", "model"
        )
    if name.lower() in RESERVED:
        raise ServingError(Kind.CONFLICT, f"no model may be called '{name}': that is a route of the server; use another name", what="model")


class Registry:
    def __init__(self) -> None:
        self._desired: dict[str, Desired] = {}
        self._generation = 0
        self._watchers: list[Callable[[str], None]] = []
        self._reports: dict[str, tuple[int, Mapping[str, str]]] = {}
        self._nothing: tuple[int, Mapping[str, str]] = (0, EMPTY)
        self._reported = asyncio.Event()

    # --- what users and dialects ask ---

    def desired(self, name: str) -> Desired | None:
        return self._desired.get(name)

    def wish(self, name: str, versions: Mapping[str, ModelSpec], labels: Mapping[str, str] = EMPTY) -> int:
        """State the whole set of versions of one model that should be served; returns the generation of that wish."""
        check_name(name)
        self._generation += 1
        self._desired[name] = Desired(self._generation, dict(versions), dict(labels))
        for watcher in self._watchers:
            watcher(name)
        return self._generation

    async def deploy(self, name: str, versions: Mapping[str, ModelSpec], labels: Mapping[str, str] = EMPTY) -> None:
        """Wish, and wait until it is so.

        Raises UNAVAILABLE with the reason when a version failed to load. If something of the model was served before, the wish is then
        withdrawn, so that the old versions go on as if nothing had been asked; otherwise it stays, and the reason is in the model's status.
        """
        before = self._desired.get(name)
        broken = self._reports.get(name, self._nothing)[1]
        generation = self.wish(name, versions, labels)
        failures = await self.settled(name, generation)
        if not failures:
            return
        worked = before is not None and any(version not in broken for version in before.versions)
        if before is not None and worked and self._desired[name].generation == generation:
            await self.settled(name, self.wish(name, before.versions, before.labels))
        version, reason = next(iter(failures.items()))
        raise ServingError(Kind.UNAVAILABLE, f"model '{name}' version {version} failed to load: {reason}", what="load")

    async def settled(self, name: str, generation: int) -> Mapping[str, str]:
        """Wait until a wish of that generation or a later one is applied; returns version -> reason of what failed to load."""
        while True:
            applied, failures = self._reports.get(name, self._nothing)
            if applied >= generation:
                return failures
            self._reported.clear()
            await self._reported.wait()

    # --- what the reconciler asks ---

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call `watcher` with the name of every model whose wish changes; it must not block."""
        self._watchers.append(watcher)

    def report(self, name: str, generation: int, failures: Mapping[str, str]) -> None:
        """The wish of that generation is applied, as far as it can be."""
        self._reports[name] = (generation, failures)
        self._reported.set()
