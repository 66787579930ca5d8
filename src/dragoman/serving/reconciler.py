"""Desired to actual: runs `plan` for a model whenever something changed, acts on it, and reports. Nothing else opens or closes models.

Loads of different models run side by side; of one model at most one at a time. The gateway's table is rebuilt and swapped in one assignment
after every change of state.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import Desired, Drain, Forget, Have, Load, Retry, State, Wanted, plan, version_order
from dragoman.core.model import ModelSpec, Servable
from dragoman.serving.gateway import Entry, Gateway, VersionStatus
from dragoman.serving.registry import Registry

log = logging.getLogger("dragoman.models")

_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_HEALTHY_S = 600.0
"""A version that answered for so long starts over with the shortest pause."""

_REMEMBERED = 100
"""Unloaded versions of a model that its status still lists: a server whose models are replaced every hour runs for years."""

Key: TypeAlias = tuple[str, str]
"""(version, revision)"""


class _Model:
    """What this process has of one model."""

    def __init__(self) -> None:
        self.have: dict[Key, Have] = {}
        self.entries: dict[Key, Entry] = {}
        self.gone: dict[str, VersionStatus] = {}
        self.changed: dict[Key, float] = {}
        self.labels: dict[str, str] = {}
        self.loading: set[Key] = set()
        """What is being opened, also where nobody waits for it any more."""
        self.tries: dict[Key, int] = {}
        """How often a load that failed was scheduled again, of those that would not be by themselves."""
        self.losses: dict[Key, int] = {}
        """How often a version was lost in a row, failed loads after that included."""
        self.watches: dict[Key, asyncio.Task[None]] = {}
        """Of ready versions: waits for the servable to be lost."""


Opener: TypeAlias = Callable[[str, str, Wanted], Coroutine[Any, Any, tuple[ModelSpec, Servable]]]
"""Opens a version of a model: the spec as it is now, and what answers. An error that says when to try again is tried again."""


class Reconciler:
    """`drain_timeout_s` bounds how long an unloaded version may finish its requests. `parallel` bounds loads at a time.

    A version that is lost is loaded again after a pause: the first of `pauses_s`, then the second, and so on. One that could not be loaded is
    tried again `retries` times, each after `retry_s`; meanwhile it counts as failed, and holds nothing up.
    """

    def __init__(
        self,
        registry: Registry,
        gateway: Gateway,
        *,
        opener: Opener,
        drain_timeout_s: float = 30.0,
        parallel: int = 4,
        pauses_s: Sequence[float] = _PAUSES_S,
        retries: int = 0,
        retry_s: float = 60.0,
    ) -> None:
        self._registry = registry
        self._gateway = gateway
        self._open = opener
        self._drain_timeout_s = drain_timeout_s
        self._pauses_s = pauses_s
        self._retries = retries
        self._retry_s = retry_s
        self._models: dict[str, _Model] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loads = asyncio.Semaphore(parallel)
        self._closed = False
        registry.watch(self._wished)

    async def close(self) -> None:
        """Drain and close everything that is open. Wishes stay as they are; whoever waits for one hears that the server ends."""
        self._closed = True
        self._registry.end()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        entries = [e for model in self._models.values() for e in model.entries.values()]
        self._gateway.swap({})
        self._models.clear()
        await asyncio.gather(*(self._shut(e) for e in entries))

    # --- plan and act ---

    def _wished(self, name: str) -> None:
        """A new wish is a reason to try again what failed."""
        model = self._models.setdefault(name, _Model())
        for key, have in model.have.items():
            if have.state is State.FAILED:
                model.have[key] = replace(have, retry_at=-math.inf)
        self._step(name)

    def _step(self, name: str) -> None:
        desired = self._registry.desired(name)
        if desired is None or self._closed:
            return
        model = self._models.setdefault(name, _Model())
        wanted = {version: each.revision for version, each in desired.versions.items()}
        for action in plan(wanted, model.have.values(), time.monotonic()):
            match action:
                case Load(version, revision):
                    self._begin(name, model, desired.versions[version], Have(version, revision, State.LOADING))
                case Retry(version, revision):
                    self._begin(name, model, desired.versions[version], model.have[version, revision].to(State.LOADING))
                case Drain(version, revision):
                    self._set(model, model.have[version, revision].to(State.DRAINING, "unloading"))
                    self._spawn(self._drain(name, model, (version, revision)))
                case Forget(version, revision):
                    self._forget(model, (version, revision))  # a load that still runs sees that nobody wants it any more
        self._publish(name, model, desired)
        # What drains is out of the table, and nobody waits for it but who wants it back.
        busy = (h for h in model.have.values() if h.state in (State.LOADING, State.DRAINING) and wanted.get(h.version) == h.revision)
        if not any(busy):
            failures = {h.version: h.reason for h in model.have.values() if h.state is State.FAILED}
            self._registry.report(name, failures)

    def _begin(self, name: str, model: _Model, wanted: Wanted, have: Have) -> None:
        self._set(model, have)
        key = (have.version, have.revision)
        if key not in model.loading:  # a load that was forgotten still runs: what it brings is as good
            model.loading.add(key)
            self._spawn(self._load(name, model, key, wanted))

    async def _load(self, name: str, model: _Model, key: Key, wanted: Wanted) -> None:
        """Open one version, once at a time, for whoever waits for it when it is open; nobody may, or somebody else than in the beginning."""
        begin = time.monotonic()
        async with self._loads:
            while self._awaited(model, key):
                opened = await self._attempt(name, key[0], wanted)
                if self._awaited(model, key):
                    break
                if isinstance(opened, Entry):
                    await self._release(opened.servable, name, key[0])
            else:
                model.loading.discard(key)
                return
        model.loading.discard(key)
        version, have = key[0], model.have[key]
        if isinstance(opened, ServingError):
            log.error("model '%s' version %s failed to load: %s", name, version, opened.message)
            self._fail(name, model, have, opened, again=opened.retry_after_s is not None or key in model.losses)
        else:
            log.info("model '%s' version %s is ready (%s, %.2f s)", name, version, opened.servable.platform, time.monotonic() - begin)
            for warning in opened.spec.warnings:
                log.warning("model '%s': %s", name, warning)
            model.entries[key] = opened
            model.tries.pop(key, None)
            self._set(model, have.to(State.READY))
            model.gone.pop(version, None)
            model.watches[key] = self._spawn(self._watch(name, model, key, opened.servable))
        self._step(name)

    async def _attempt(self, name: str, version: str, wanted: Wanted) -> Entry | ServingError:
        """What was opened, else the reason; one that says when to try again may be otherwise in a moment."""
        try:
            return Entry(*await self._open(name, version, wanted))
        except ServingError as error:
            failure = error
        except Exception as error:  # a runtime's own exception: the reason belongs in the status, not only in the log
            log.exception("loading model '%s' version %s failed", name, version)
            failure = ServingError(Kind.MODEL_FAILED, f"{type(error).__name__}: {error}")
        # A path in it need not be UTF-8, but every answer is.
        text = failure.message.encode("utf-8", "backslashreplace").decode()
        return ServingError(failure.kind, text, retry_after_s=failure.retry_after_s)

    @staticmethod
    def _awaited(model: _Model, key: Key) -> bool:
        have = model.have.get(key)
        return have is not None and have.state is State.LOADING

    async def _watch(self, name: str, model: _Model, key: Key, servable: Servable) -> None:
        """Wait until a servable is lost; then it is out of the table at once, and loaded again after a pause that grows."""
        since = time.monotonic()
        reason = await servable.lost()
        have = model.have.get(key)
        if have is None or have.state is not State.READY:
            return  # it drains, and fails what is left
        log.error("model '%s' version %s has stopped: %s", name, key[0], reason)
        if time.monotonic() - since > _HEALTHY_S:
            model.losses.pop(key, None)
        entry = model.entries.pop(key)
        self._fail(name, model, have, ServingError(Kind.UNAVAILABLE, reason), again=True)
        self._step(name)
        await self._release(entry.servable, name, key[0])

    def _fail(self, name: str, model: _Model, have: Have, failure: ServingError, *, again: bool) -> None:
        """A version cannot serve; with `again` it is tried by itself after a while."""
        retry_at = math.inf
        pause_s = self._pause(model, (have.version, have.revision), again=again)
        if pause_s is not None:
            retry_at = time.monotonic() + pause_s
            # A little late, so that it is due by then.
            asyncio.get_running_loop().call_later(pause_s + 0.01, self._step, name)
        self._set(model, have.to(State.FAILED, failure.message, retry_at, failure.kind))

    def _pause(self, model: _Model, key: Key, *, again: bool) -> float | None:
        """How long to wait before a version is tried again by itself; None for never."""
        counts = model.losses if again else model.tries
        count = counts.get(key, 0) + 1
        if not again and count > self._retries:
            return None
        counts[key] = count
        return self._pauses_s[min(count, len(self._pauses_s)) - 1] if again else self._retry_s

    async def _drain(self, name: str, model: _Model, key: Key) -> None:
        watch = model.watches.pop(key, None)
        if watch is not None:
            watch.cancel()
        await self._shut(model.entries[key])  # it stays listed until then, so that close() finds it when this is cancelled
        del model.entries[key]
        self._forget(model, key)
        if not any(version == key[0] for version, _ in model.have):
            model.gone[key[0]] = VersionStatus(name, key[0], State.GONE, "unloaded", since=time.time())
            if len(model.gone) > _REMEMBERED:
                del model.gone[next(iter(model.gone))]
        log.info("model '%s' version %s is unloaded", name, key[0])
        self._step(name)

    async def _shut(self, entry: Entry) -> None:
        deadline = time.monotonic() + self._drain_timeout_s
        if not await entry.idle(self._drain_timeout_s):
            log.warning("model '%s' version %s is closed with %d requests in flight", entry.name, entry.version, entry.in_flight)
        try:
            await entry.servable.drain(deadline)
        except Exception:
            log.exception("model '%s' version %s could not be drained", entry.name, entry.version)
        await self._release(entry.servable, entry.name, entry.version)

    async def _release(self, servable: Servable, name: str, version: str) -> None:
        """Close a servable. What its framework raises then is logged: nobody could do anything about it, and others wait for their turn."""
        try:
            await servable.close()
        except Exception:
            log.exception("model '%s' version %s could not be closed", name, version)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- tell the gateway ---

    def _set(self, model: _Model, have: Have) -> None:
        model.have[have.version, have.revision] = have
        model.changed[have.version, have.revision] = time.time()

    def _forget(self, model: _Model, key: Key) -> None:
        del model.have[key]
        model.changed.pop(key, None)
        model.losses.pop(key, None)
        model.tries.pop(key, None)

    def _publish(self, name: str, model: _Model, desired: Desired) -> None:
        serving = self._serving(model, desired.versions)
        table = {key: entry for key, entry in self._gateway.table().items() if key[0] != name}
        for version, entry in serving.items():
            table[name, version] = entry
        if serving:
            table[name, ""] = serving[max(serving, key=version_order)]
        for label, version in desired.labels.items():
            # A label moves when its target is ready; until then it stays where it was.
            target = version if version in serving else model.labels.get(label, "")
            if target in serving:
                model.labels[label] = target
                table[name, f"@{label}"] = serving[target]
        model.labels = {k: v for k, v in model.labels.items() if k in desired.labels}
        self._gateway.swap(table)
        labels = {label: version for label, version in model.labels.items() if version in serving}
        self._gateway.publish(name, self._statuses(name, model, desired), labels)

    def _serving(self, model: _Model, wanted: Mapping[str, Wanted]) -> dict[str, Entry]:
        """The entry of each version that answers: the wanted revision where it is ready, else the one that still is."""
        serving: dict[str, Entry] = {}
        for (version, revision), entry in model.entries.items():
            if model.have[version, revision].state is State.READY and (
                version not in serving or (version in wanted and wanted[version].revision == revision)
            ):
                serving[version] = entry
        return serving

    def _statuses(self, name: str, model: _Model, desired: Desired) -> list[VersionStatus]:
        """One row per version: what answers if anything does, else how far the newest attempt came."""
        rows = {version: VersionStatus(name, version, State.GONE, "unloaded") for version in desired.unloaded}
        rows |= model.gone
        for version, reason in desired.failed.items():
            rows[version] = VersionStatus(name, version, State.GONE, f"not loaded: {reason}", kind=Kind.MODEL_FAILED)
        # A stored wish, which has no spec yet, is for a version of the registry, and these have names.
        named = {version: wanted.spec is None or wanted.spec.named_version for version, wanted in desired.versions.items()}
        rows |= {version: VersionStatus(name, version, State.LOADING, waiting=True, named=named[version]) for version in desired.versions}
        order = [State.DRAINING, State.FAILED, State.LOADING, State.READY]
        for key, have in sorted(model.have.items(), key=lambda item: order.index(item[1].state)):
            entry = model.entries.get(key)
            platform = entry.servable.platform if entry else ""
            since = model.changed.get(key, 0.0)
            known = named.get(have.version, False)
            rows[have.version] = VersionStatus(
                name, have.version, have.state, have.reason, platform, since, have.served, have.kind, named=known
            )
        return list(rows.values())
