"""What a worker does before it listens: loads the targets of the command line, and with them whatever is deployed. Called by worker.py."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from dragoman.core.errors import ServingError
from dragoman.core.lifecycle import State, Wanted
from dragoman.core.model import EMPTY, ModelSpec, Servable
from dragoman.core.samples import instances, point_example, row_example, v2_inputs
from dragoman.core.tensors import Form
from dragoman.engines import Engines
from dragoman.server.settings import Settings
from dragoman.serving.composed import Ensemble
from dragoman.serving.explain.explained import explained
from dragoman.serving.gateway import Gateway
from dragoman.serving.origins import Origins
from dragoman.serving.polling import Polling
from dragoman.serving.reading import Lack, broken
from dragoman.serving.registry import Registry
from dragoman.serving.reloading import Reloading, unavailable_label
from dragoman.serving.repository import Found
from dragoman.serving.routers.router import RUNTIME, open_router

log = logging.getLogger("dragoman")

_LONG_ROW = 120
"""Tensors that are longer, written as JSON, are shown in the protocols that are made for them only."""
_MEMBER_S = 1.0

Progress: TypeAlias = Callable[[str], None]

Sample: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """How the targets of the command line, and then what is deployed, came out."""

    ready: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    """(name, reason)"""
    samples: tuple[Sample, ...] = ()
    """Example inputs of models that are ready: name, rows (/predict), inputs (Open Inference Protocol), instances (TensorFlow Serving); where a
    protocol has no small one, None."""
    hopeless: bool = False
    """Whether nothing can be served of what the command line names, and nothing is deployed; of a strict start, whether anything cannot."""

    def fatal(self, settings: Settings) -> bool:
        """Whether the start has failed by it. One that loads in the background goes on, unless it must not."""
        return self.hopeless and (settings.load != "background" or settings.exit_on_error)


class Loading:
    """The opener of the reconciler, and the first loads of a worker.

    With `waits` the start takes as long as there are targets that are not there yet; with `strict` it fails when one of them does. `named` are
    the models that are loaded at start, None for everything.
    """

    def __init__(
        self,
        registry: Registry,
        gateway: Gateway,
        engines: Engines,
        origins: Origins,
        polling: Polling,
        reloading: Reloading,
        named: Sequence[str] | None = None,
        *,
        waits: bool = False,
        strict: bool = False,
    ) -> None:
        self._named = named
        self._registry = registry
        self._polling = polling
        self._reloading = reloading
        self._waits = waits
        self._strict = strict
        self._gateway = gateway
        self._engines = engines
        self._origins = origins

    async def open(self, name: str, version: str, wanted: Wanted) -> tuple[ModelSpec, Servable]:
        """The spec under the settings of now, loaded by its engine. Composed models are made of what this worker serves."""
        if wanted.fault is not None:
            raise ServingError(wanted.fault.kind, wanted.fault.message, what=wanted.fault.what)
        spec = wanted.spec or await self._origins.open_spec(name, version, wanted.origin)
        spec = replace(spec, name=name, version=version, revision=wanted.revision)
        if not spec.steps:
            return spec, await self._explained(spec, await self._engines.open(spec))
        try:
            if spec.runtime == RUNTIME:
                return spec, await open_router(spec, self._gateway, self._engines.open)
            ensemble = Ensemble(spec, self._gateway)
            ensemble.check_members()
        except ServingError as error:
            if error.retry_after_s is None and any(self._expected(step.model) for step in spec.steps):
                error.retry_after_s = _MEMBER_S
            raise
        return spec, ensemble

    async def _explained(self, spec: ModelSpec, servable: Servable) -> Servable:
        """With explanations, where the operator wants them and the model has none."""
        if not spec.explainer:
            return servable
        try:
            return await explained(spec, servable)
        except BaseException:
            await servable.close()
            raise

    def _expected(self, name: str) -> bool:
        """Whether a model is not served yet, and should be."""
        desired = self._registry.desired(name)
        return desired is not None and bool(desired.versions) and not any(e.name == name for e in self._gateway.entries())

    async def load(self, progress: Progress) -> Loaded:
        """Load everything side by side; one bad model does not stop the others. Composed targets come after their members."""
        found = self._chosen(await self._polling.first())
        self._gateway.named = tuple(f.name for f in found)
        named = set(self._gateway.named)
        deployed = [name for name in self._registry.names() if name not in named and self._registry.document(name).get("versions")]
        restoring = asyncio.gather(*(self._settle(name, progress) for name in deployed))
        reasons: dict[int, str] = {}
        later = [i for i, each in enumerate(found) if self._may_come(each)]
        try:
            for wave in waves(found):
                here = [i for i in wave if i not in later]
                results = await asyncio.gather(*(self._load_target(found[i], progress) for i in here))
                reasons |= dict(zip(here, results, strict=True))
            self._polling.start()
            self._reloading.start()
            if not (self._strict and any(reasons.values())):
                came = await asyncio.gather(*(self._await_target(found[i], progress) for i in later))
                reasons |= {i: reason for i, reason in zip(later, came, strict=True) if reason is not None}
            outcomes = [(f.name, reasons[i]) for i, f in enumerate(found) if i in reasons]
            outcomes += zip(deployed, await restoring, strict=True)
        finally:
            restoring.cancel()
        self._gateway.starting = False
        return Loaded(
            tuple(name for name, reason in outcomes if not reason),
            tuple((name, reason) for name, reason in outcomes if reason),
            tuple(self._samples()),
            hopeless=any(reasons.values())
            if self._strict
            else bool(found) and len(reasons) == len(found) and all(reasons.values()) and not deployed,
        )

    def _chosen(self, found: Sequence[Found]) -> list[Found]:
        """What of the targets is loaded now: all, or with --load request what is named, with the members of what is composed."""
        if self._named is None:
            return list(found)
        by_name = {f.name: f for f in reversed(found)}
        chosen: dict[str, Found] = {}
        names = list(self._named)
        while names:
            name = names.pop(0)
            each = by_name.get(name)
            if each is None and name in self._named:
                each = broken(name, f"there is no model '{name}' among the targets")
            if each is not None and name not in chosen:
                chosen[name] = each
                names += [step.model for spec in each.versions.values() for step in spec.steps]
        return list(chosen.values())

    async def _load_target(self, found: Found, progress: Progress) -> str:
        """Serve one target; returns the reason, which is in the log by then, when it cannot be served, "" when it is."""
        if not found.error or found.faults:
            try:
                self._polling.serve(found)
            except ServingError as error:
                found = Found(found.name, error=error.message, source=found.source)
            else:
                return await self._settle(found.name, progress) or self._unready_label(found)
        self._polling.refuse(found)
        progress(f"{found.name}: failed")
        return found.error

    def _may_come(self, found: Found) -> bool:
        """Whether a target that is not there may be served as soon as it is."""
        looked_after = self._polling.follows(found.name) and found.lack is not Lack.NOTHING
        return looked_after and (self._waits or found.lack is Lack.VERSIONS)

    async def _await_target(self, found: Found, progress: Progress) -> str | None:
        """The same for one that may come: where the start waits for it, once it is there. None when it need not be there now."""
        self._polling.refuse(found)
        progress(f"{found.name}: not there yet")
        if not self._waits:
            return None
        while (desired := self._registry.desired(found.name)) is None or not desired.versions:
            await self._registry.changes.after(self._registry.changes.count)
        return await self._settle(found.name, progress) or self._unready_label(found)

    def _unready_label(self, found: Found) -> str:
        """Why a label of the list of models cannot be given, "" when all can."""
        label = self._reloading.unready_label(found.name, found.labels, EMPTY)
        if not label:
            return ""
        reason = unavailable_label(found.name, found.labels[label]).message
        log.error("%s", reason)
        return reason

    async def _settle(self, name: str, progress: Progress) -> str:
        """Wait until a model is loaded; returns as above."""
        progress(f"{name}: loading")
        reason = ""
        failures = await self._registry.settled(name)
        # Another version of the same model may well be ready.
        if failures and not any(s.state is State.READY for s in self._gateway.statuses(name)):
            version, why = next(iter(failures.items()))
            reason = f"model '{name}' version {version} failed to load: {why}"
        progress(f"{name}: {'failed' if reason else 'ready'}")
        return reason

    def _samples(self) -> Iterator[Sample]:
        """An example request of each model that is small enough to show."""
        for entry in self._gateway.entries():
            signature = entry.signatures[""]
            if signature.whole:
                yield {"name": entry.name, "points": [point_example(signature)]}
                continue
            row, inputs, rows = row_example(signature), v2_inputs(signature), instances(signature)
            if signature.form is Form.TENSORS and len(json.dumps(row)) > _LONG_ROW:
                row = None
            if row is not None or (inputs is not None and rows is not None):
                yield {"name": entry.name, "rows": None if row is None else [row], "inputs": inputs, "instances": rows}


def waves(found: Sequence[Found]) -> list[list[int]]:
    """Indexes of models in the order in which to load them: each wave needs only members of earlier ones, as far as there are any."""
    names_of = {f.name for f in found}
    waiting = {i: {s.model for spec in f.versions.values() for s in spec.steps} & names_of - {f.name} for i, f in enumerate(found)}
    done: set[str] = set()
    result: list[list[int]] = []
    while waiting:
        wave = [i for i, needs in waiting.items() if needs <= done] or list(waiting)  # a circle fails by itself, with its reason
        result.append(wave)
        done |= {found[i].name for i in wave}
        waiting = {i: needs for i, needs in waiting.items() if i not in wave}
    return result
