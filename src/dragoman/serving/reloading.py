"""Another list of models while the server runs: from TensorFlow Serving's HandleReloadConfigRequest, or from its file, which has changed.

The list becomes wishes of this run, one per model, so that every worker of the server looks for itself (polling.py) and all are waited for.
Called by operations.py; the worker makes it.
"""

import asyncio
import logging
from collections.abc import Mapping

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import State
from dragoman.serving.gateway import Gateway
from dragoman.serving.model_config import ConfiguredModel, Models, read_models
from dragoman.serving.reading import Found, Lack
from dragoman.serving.registry import Registry
from dragoman.serving.repository import Repository
from dragoman.serving.wishes import Document, tried_again
from dragoman.store import Wish

log = logging.getLogger("dragoman.models")

_LOADS_S = 10.0
"""How long the models of a new file are waited for before the file is looked at again."""


class Reloading:
    """`file` is read again every `file_s`; `listed` is what it held at start. `early_labels`: see `unready_label`.

    `start` once the first models are loaded; `close` ends it.
    """

    def __init__(
        self,
        registry: Registry,
        repository: Repository,
        gateway: Gateway,
        *,
        file: str = "",
        file_s: float = 0.0,
        listed: Models = (),
        early_labels: bool = False,
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._gateway = gateway
        self._file = file
        self._file_s = file_s
        self._listed = listed
        """What the file held when it was last applied."""
        self._early_labels = early_labels
        self._one = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._file and self._file_s:
            self._task = asyncio.get_running_loop().create_task(self._reread())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def reload(self, models: Models, gone: frozenset[str] | None = None) -> None:
        """Serve these models in every worker, and no longer the `gone`.

        Without `gone` somebody has asked for it: no other model of the command line or of a list is served any more, and what could not be
        loaded is tried again.

        Returns when each has loaded or failed everywhere; one that is not there yet is not waited for. Raises INVALID_INPUT for what cannot
        be read and CONFLICT (what="label") for a label of a version that will not be there, before anything changes; CONFLICT for one that
        did not load, which leaves the label where it was, and UNAVAILABLE (what="load") with the reason when a version did not load. What was
        served before goes on in its place.
        """
        async with self._one:
            found = {model.name: await asyncio.to_thread(self._repository.look, model) for model in models}
            labels = {model.name: self._gateway.labels(model.name) for model in models}
            for model in models:
                self._check(model, found[model.name], labels[model.name])
            asked = gone is None
            if gone is None:
                gone = frozenset([*await asyncio.to_thread(self._repository.names), *self._registry.models()])
            wished = {name: await self._wish(name, {}) for name in sorted(gone - found.keys())}
            wished |= {model.name: await self._wish(model.name, _document(model, model.labels), again=asked) for model in models}
            failures = {name: await self._registry.settled(name, generation, self._registry.run) for name, generation in wished.items()}
            for model in models:
                await self._check_labels(model, labels[model.name])
            for name, each in failures.items():
                for version, reason in each.items():
                    raise ServingError(Kind.UNAVAILABLE, f"model '{name}' version {version} failed to load: {reason}", what="load")

    def unready_label(self, name: str, labels: Mapping[str, str], before: Mapping[str, str]) -> str:
        """The first label whose version does not answer, and may not be named before it does; "" for none.

        With `early_labels` a label that is new may: it will lead to its version once that is loaded.
        """
        ready = {status.version for status in self._gateway.statuses(name) if status.state is State.READY}
        early = self._early_labels
        return next((label for label, version in labels.items() if version not in ready and not (early and label not in before)), "")

    # --- how ---

    def _check(self, model: ConfiguredModel, found: Found, before: Mapping[str, str]) -> None:
        if found.error and not found.faults and found.lack is Lack.NOTHING:
            raise invalid(f"model '{model.name}' cannot be loaded: {found.error}", "model")
        for label, version in model.labels.items():
            if version not in found.versions and not (self._early_labels and label not in before):
                raise unavailable_label(model.name, version)

    async def _wish(self, name: str, document: Document, *, again: bool = False) -> int:
        """With `again`, what is wished for already and has failed is tried again."""

        def rewrite(standing: Wish | None) -> Document:
            same = standing is not None and {**standing.document, "again": 0} == {**document, "again": 0}
            if again and same and self._registry.failures(name):
                return tried_again(standing) or document
            return document

        return (await self._registry.wish(name, rewrite, run=self._registry.run)).generation

    async def _check_labels(self, model: ConfiguredModel, before: Mapping[str, str]) -> None:
        """What a label was to lead to has not loaded: it leads where it led before, if anywhere."""
        label = self.unready_label(model.name, model.labels, before)
        if not label:
            return
        kept = {each: version for each, version in model.labels.items() if not self.unready_label(model.name, {each: version}, before)}
        kept |= {each: before[each] for each in model.labels if each not in kept and each in before}
        generation = await self._wish(model.name, _document(model, kept))
        await self._registry.settled(model.name, generation, self._registry.run)
        raise unavailable_label(model.name, model.labels[label])

    async def _reread(self) -> None:
        """Apply the file whenever it holds something else. What is wrong with it is told once, and it is tried again."""
        told = ""
        while True:
            await asyncio.sleep(self._file_s)
            try:
                problem = await self._follow()
            except ServingError as error:
                problem = error.message
            except Exception as error:
                log.exception("applying the list of models failed")
                problem = str(error)
            if problem and problem != told:
                log.error("the list of models is not applied, and what was served goes on: %s", problem)
            told = problem

    async def _follow(self) -> str:
        """Read the file, and apply it if it is not applied yet. Models that take long go on loading, and a newer file need not wait for them."""
        models = await asyncio.to_thread(read_models, self._file)
        if models == self._listed:
            return ""
        gone = frozenset({*(model.name for model in self._listed), *self._registry.models()})
        try:
            async with asyncio.timeout(max(self._file_s, _LOADS_S)):
                await self.reload(models, gone)
        except TimeoutError:
            return "its models are still loading"
        self._listed = models
        log.info("the list of models is applied: %s", ", ".join(model.name for model in models) or "no model")
        return ""


def unavailable_label(name: str, version: str) -> ServingError:
    text = f"Request to assign label to version {version} of model {name}, which is not currently available for inference"
    return ServingError(Kind.CONFLICT, text, what="label")


def _document(model: ConfiguredModel, labels: Mapping[str, str]) -> Document:
    return {"fixed": True, "model": {**model.to_json(), "labels": dict(labels)}}
