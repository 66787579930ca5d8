"""Keeps what is served in step with the files of the targets: looks at all of them again and again, and fixes anew what has changed.

One per worker, made by worker.py. The registry and the reconciler do the rest: what is new is loaded before what is old is unloaded.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import EMPTY
from dragoman.serving.gateway import Gateway, VersionStatus
from dragoman.serving.model_config import ConfiguredModel
from dragoman.serving.reading import Found, Lack
from dragoman.serving.registry import Registry
from dragoman.serving.repository import Repository

log = logging.getLogger("dragoman.models")

_AGAIN_S = 1.0
"""What has changed is looked at once more after this time at most: it counts when it looks the same twice, as a copy that goes on does not."""
_SHARE = 9
"""A look is followed by a pause of so many times as long at least: some 0.4 ms for each model on a disk of this machine, and long on a slow one."""


@dataclass(frozen=True, slots=True)
class _Looks:
    """What matters of a model on disk: another one is a change."""

    revisions: Mapping[str, str] = EMPTY
    labels: Mapping[str, str] = EMPTY
    faults: Mapping[str, str] = EMPTY

    @classmethod
    def of(cls, found: Found) -> "_Looks":
        revisions = {v: spec.revision for v, spec in found.versions.items()}
        return cls(revisions, dict(found.labels), {v: error.message for v, error in found.faults.items()})


_NOTHING = _Looks({}, {}, {})


class Polling:
    """`every_s` is how often to look, 0 for only when a wish says where to look. With `on_request` models that are new are left alone.

    Call `first`, `serve` what it found, then `start`; `close` ends it.
    """

    def __init__(
        self, registry: Registry, repository: Repository, gateway: Gateway, every_s: float = 0.0, *, on_request: bool = False
    ) -> None:
        self._on_request = on_request
        self._registry = registry
        self._repository = repository
        self._gateway = gateway
        self._every_s = every_s
        self._models: Mapping[str, Mapping[str, Any]] = {}
        """What wishes said of where to look, at the last look."""
        self._served: dict[str, _Looks] = {}
        self._sources: dict[str, str] = {}
        """By which target each of them was found."""
        self._seen: dict[str, _Looks] = {}
        """Changes that were seen once."""
        self._told: dict[str, str] = {}
        """What the log says of models that cannot be read now."""
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def first(self) -> list[Found]:
        """What there is at start."""
        return await self._discover()

    def start(self) -> None:
        """Look from now on."""
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def follows(self, name: str) -> bool:
        """Whether a model is looked at again and again, and served as it then is."""
        return name in self._registry.models() or (bool(self._every_s) and (not self._on_request or name in self._served))

    def serve(self, found: Found) -> None:
        """Serve a model as it was found, or nothing of it when there is nothing. Raises ServingError for a name that cannot be served."""
        self._registry.fix(found.name, found.versions, found.labels, found.faults, self._models.get(found.name))
        self._served[found.name] = _Looks.of(found)
        self._sources[found.name] = found.source
        self._seen.pop(found.name, None)
        if not found.error:
            self._told.pop(found.name, None)
        for note in found.notes:
            log.warning("model '%s': %s", found.name, note)

    def refuse(self, found: Found) -> None:
        """Show that a model cannot be read; what was served of it goes on. Logged once for each reason."""
        if self._told.get(found.name) != found.error:
            self._told[found.name] = found.error
            there = found.lack is Lack.NOTHING
            log.log(logging.ERROR if there else logging.WARNING, "model '%s' cannot be read: %s", found.name, found.error)
        if self._registry.desired(found.name) is None:  # else it was unloaded, or brought by a request, before this worker came
            waits = found.lack is not Lack.NOTHING and bool(self._every_s)
            status = VersionStatus(found.name, "", State.FAILED, found.error, since=time.time(), kind=Kind.INVALID_INPUT)
            if waits:
                status = VersionStatus(found.name, "", State.LOADING, "it has no version yet", since=time.time(), waiting=True)
            self._gateway.publish(found.name, [status], {})

    async def look(self, *, at_once: str = "") -> None:
        """Look at everything now, and serve what is different, if it was so at the last look already, or if it is the model `at_once`."""
        async with self._looking:
            self._registry.news.clear()
            found = await self._discover()
            names: set[str] = set()
            for each in found:
                if each.name not in names:  # another of that name is an error, which the start has told
                    names.add(each.name)
                    self._compare(each, at_once=each.name == at_once)
            away = {each.source for each in found if each.lack is Lack.PLACE}
            for name in [n for n in self._served if n not in names and self._sources[n] not in away]:
                gone = Found(name, lack=Lack.VERSIONS, error="it is not there any more", source=self._sources[name])
                self._compare(gone, at_once=name == at_once)
            for name in [n for n in self._told if n not in names and n not in self._served]:
                del self._told[name]
                if self._registry.desired(name) is None:
                    self._gateway.publish(name, [], {})

    async def _discover(self) -> list[Found]:
        self._models = self._registry.models()
        self._repository.replace({name: ConfiguredModel.from_json(name, model) for name, model in self._models.items()})
        return await asyncio.to_thread(self._repository.discover)

    def _compare(self, found: Found, *, at_once: bool) -> None:
        """Serve what has changed. A place that cannot be reached, or a file that cannot be read, is no reason to unload what works."""
        name, looks = found.name, _Looks.of(found)
        before, news = self._served.get(name, _NOTHING), name in self._registry.unread()
        if self._on_request and not news and not self.follows(name):
            return
        if found.error and not found.faults and found.lack is not Lack.VERSIONS:
            self.refuse(found)
            if news:  # who waits for the wish must hear that there is nothing to wait for
                self._serve_on(name)
        elif looks == before and not news:
            self._seen.pop(name, None)
            if found.error and not found.faults:
                self.refuse(found)
        elif news or at_once or self._seen.get(name) == looks:
            if before.revisions and not (found.versions or found.faults):
                log.warning("model '%s' is unloaded: %s", name, found.error)
            with contextlib.suppress(ServingError):  # a name that cannot be served: refused when it was read
                self.serve(found)
        else:
            self._seen[name] = looks

    def _serve_on(self, name: str) -> None:
        desired = self._registry.desired(name)
        specs = {} if desired is None else {v: wanted.spec for v, wanted in desired.versions.items() if wanted.spec is not None}
        labels = EMPTY if desired is None else desired.labels
        self._registry.fix(name, specs, labels, EMPTY, self._models.get(name))

    async def _go_on(self) -> None:
        took_s = 0.0
        while True:
            pause_s = min(self._every_s, _AGAIN_S) if self._seen else self._every_s
            pause_s = max(pause_s, _SHARE * took_s) if pause_s else 0.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s or None):
                    await self._registry.news.wait()
            begin = time.monotonic()
            try:
                await self.look()
                took_s = time.monotonic() - begin
            except Exception:  # the next look may go better; without this nothing would ever be looked at again
                log.exception("the targets could not be looked at; it is tried again")
                await asyncio.sleep(_AGAIN_S)
