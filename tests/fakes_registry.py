"""The half of the store in memory that is about models, versions and wishes (tests/fakes_store.py has the other half)."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import EMPTY
from dragoman.store import Bell, RegisteredModel, Report, Rewrite, StoredVersion, Wish

NUMBER = re.compile("[0-9]{1,10}")


class FakeBell:
    """Rung by its store. Of one event loop."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def rung(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.event.wait()
        self.event.clear()

    async def close(self) -> None:
        pass


class FakeRegistry:
    """Implements `ModelStore` and `DeploymentStore`. Set `failure` to make every call raise it, as a database that is gone would."""

    def __init__(self) -> None:
        self.failure: ServingError | None = None
        self.closed = False
        self._models: dict[str, RegisteredModel] = {}
        self._kept: set[str] = set()
        self._versions: dict[tuple[str, str], StoredVersion] = {}
        self._aliases: dict[tuple[str, str], str] = {}
        self._numbers = {"model": 0, "version": 0}
        self._wishes: dict[tuple[str, str], Wish] = {}
        self._generation = 0
        self._workers: dict[str, float] = {}
        self._reports: dict[tuple[str, str], Report] = {}
        self._bells: list[FakeBell] = []

    # --- models ---

    async def add_model(self, model: RegisteredModel) -> RegisteredModel:
        self._check()
        if model.name in self._models:
            raise ServingError(Kind.CONFLICT, f"model '{model.name}' exists", what="model")
        self._kept.add(model.name)
        return self._new_model(model)

    async def model(self, name: str) -> RegisteredModel | None:
        self._check()
        return self._models.get(name)

    async def models(self) -> list[RegisteredModel]:
        self._check()
        return [self._models[name] for name in sorted(self._models)]

    async def change_model(
        self, name: str, *, updated: float, new_name: str | None = None, description: str | None = None
    ) -> RegisteredModel:
        model = self._known(name)
        new = name if new_name is None else new_name
        if new != name and new in self._models:
            raise ServingError(Kind.CONFLICT, f"model '{name}' cannot be called '{new}'", what="model")
        del self._models[name]
        self._models[new] = replace(model, name=new, updated=updated, description=model.description if description is None else description)
        self._kept = {new if kept == name else kept for kept in self._kept}
        moved = {(new if key[0] == name else key[0], key[1]): v for key, v in self._versions.items()}
        self._versions = {key: replace(v, model=key[0]) for key, v in moved.items()}
        self._aliases = {(new if key[0] == name else key[0], key[1]): v for key, v in self._aliases.items()}
        return self._models[new]

    async def remove_model(self, name: str) -> bool:
        self._check()
        self._kept.discard(name)
        self._versions = {key: v for key, v in self._versions.items() if key[0] != name}
        self._aliases = {key: v for key, v in self._aliases.items() if key[0] != name}
        return self._models.pop(name, None) is not None

    async def tag_model(self, name: str, key: str, value: str | None, *, updated: float) -> None:
        model = self._known(name)
        self._models[name] = replace(model, updated=updated, tags=_tagged(model.tags, key, value))

    # --- versions and aliases ---

    async def add_version(
        self,
        version: StoredVersion,
        *,
        aliases: Iterable[str] = (),
        replace: bool = False,
        reuse: Callable[[StoredVersion], bool] | None = None,
    ) -> StoredVersion:
        self._check()
        of_model = self._newest_first(version.model)
        same = next((v for v in of_model if v.digest == version.digest and reuse is not None and reuse(v)), None)
        if same is None:
            same = self._add(version, [v.version for v in of_model], permitted=replace)
        self._aliases |= {(version.model, alias): same.version for alias in aliases}
        return same

    def _add(self, version: StoredVersion, taken: Sequence[str], *, permitted: bool) -> StoredVersion:
        number = version.version or str(max((int(v) for v in taken if NUMBER.fullmatch(v) and int(v) < 2**31 - 1), default=0) + 1)
        old = self._versions.get((version.model, number))
        if old is not None and not permitted:
            raise ServingError(Kind.CONFLICT, f"version '{number}' of model '{version.model}' exists", what="version")
        updated = version.updated or version.created
        if version.model not in self._models:
            self._new_model(RegisteredModel(version.model, version.created, updated))
        tags = dict(sorted(version.tags.items()))
        kept = self._next("version") if old is None else old.number
        self._versions[version.model, number] = replace(version, version=number, updated=updated, tags=tags, number=kept)
        self._touch(version.model, updated)
        return self._versions[version.model, number]

    async def change_version(
        self,
        model: str,
        version: str,
        *,
        updated: float,
        description: str | None = None,
        stage: str | None = None,
        facts: Mapping[str, str] = EMPTY,
        archive: str = "",
    ) -> StoredVersion:
        found = self._known_version(model, version)
        if stage is not None and archive:
            others = [v for v in self._versions.values() if v.model == model and v.version != version and v.stage == stage]
            self._versions |= {(v.model, v.version): replace(v, stage=archive, updated=updated) for v in others}
        self._versions[model, version] = replace(
            found,
            updated=updated,
            description=found.description if description is None else description,
            stage=found.stage if stage is None else stage,
            facts={**found.facts, **facts},
        )
        self._touch(model, updated)
        return self._versions[model, version]

    async def tag_version(self, model: str, version: str, key: str, value: str | None, *, updated: float) -> None:
        found = self._known_version(model, version)
        self._versions[model, version] = replace(found, updated=updated, tags=_tagged(found.tags, key, value))

    async def version(self, model: str, version: str) -> StoredVersion | None:
        self._check()
        return self._versions.get((model, version))

    async def versions(self, model: str = "") -> list[StoredVersion]:
        self._check()
        return self._newest_first(model)

    async def remove_version(self, model: str, version: str) -> bool:
        self._check()
        if self._versions.pop((model, version), None) is None:
            return False
        self._aliases = {key: target for key, target in self._aliases.items() if (key[0], target) != (model, version)}
        if model not in self._kept and not any(key[0] == model for key in self._versions):
            del self._models[model]
        return True

    async def aliases(self, model: str = "") -> dict[tuple[str, str], str]:
        self._check()
        return {key: target for key, target in sorted(self._aliases.items()) if model in ("", key[0])}

    async def set_alias(self, model: str, alias: str, version: str) -> None:
        self._known_version(model, version)
        self._aliases[model, alias] = version

    async def remove_alias(self, model: str, alias: str) -> bool:
        self._check()
        return self._aliases.pop((model, alias), None) is not None

    # --- wishes, and who has applied them ---

    async def wish(self, model: str, rewrite: Rewrite, *, run: str = "", stages: Mapping[tuple[str, str], str] = EMPTY) -> Wish:
        self._check()
        stands = self._wishes.get((model, run))
        document = rewrite(deepcopy(stands))
        if document is not None:
            known = {key: self._known_version(*key) for key in stages}
            restaged = [(key, v) for key, v in known.items() if v.stage != stages[key]]
            now = time.time()
            for key, found in restaged:
                self._versions[key] = replace(found, stage=stages[key], updated=now)
                self._touch(found.model, now)
            text = json.dumps(dict(document), sort_keys=True)
            if restaged or stands is None or json.dumps(dict(stands.document), sort_keys=True) != text:
                self._generation += 1
                stands = self._wishes[model, run] = Wish(model, self._generation, json.loads(text), run)
                self._ring()
        return deepcopy(stands) or Wish(model, 0, {}, run)

    async def wishes(self, *, since: int = 0) -> list[Wish]:
        self._check()
        return deepcopy(sorted((w for w in self._wishes.values() if w.generation > since), key=lambda w: w.generation))

    async def forget_run(self, run: str) -> None:
        self._check()
        if not run:
            raise ValueError("the wishes of no run outlive every server")
        self._wishes = {key: w for key, w in self._wishes.items() if w.run != run}

    async def join(self, worker: str, lease_until: float) -> bool:
        self._check()
        known = worker in self._workers
        self._workers[worker] = lease_until
        return known

    async def leave(self, workers: Sequence[str]) -> None:
        self._check()
        self._workers = {worker: until for worker, until in self._workers.items() if worker not in workers}
        self._reports = {key: one for key, one in self._reports.items() if one.worker not in workers}
        self._ring()

    async def workers(self, *, now: float) -> list[str]:
        self._check()
        return sorted(worker for worker, until in self._workers.items() if until >= now)

    async def report(self, reports: Sequence[Report]) -> None:
        self._check()
        self._reports |= {(one.worker, one.model): one for one in reports if one.worker in self._workers}
        self._ring()

    async def reports(self, model: str) -> list[Report]:
        self._check()
        return sorted((one for one in self._reports.values() if one.model == model), key=lambda one: one.worker)

    async def bell(self) -> Bell:
        self._check()
        self._bells.append(FakeBell())
        return self._bells[-1]

    # --- inside ---

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.closed:
            raise ServingError(Kind.UNAVAILABLE, "the store is closed")

    def _known(self, name: str) -> RegisteredModel:
        self._check()
        if name not in self._models:
            raise ServingError(Kind.NOT_FOUND, f"there is no model '{name}'", what="model")
        return self._models[name]

    def _known_version(self, model: str, version: str) -> StoredVersion:
        self._check()
        if (model, version) not in self._versions:
            raise ServingError(Kind.NOT_FOUND, f"model '{model}' has no version '{version}'", what="version")
        return self._versions[model, version]

    def _newest_first(self, model: str) -> list[StoredVersion]:
        return sorted((v for v in self._versions.values() if model in ("", v.model)), key=lambda v: (-v.created, -v.number))

    def _new_model(self, model: RegisteredModel) -> RegisteredModel:
        tags = dict(sorted(model.tags.items()))
        new = replace(model, updated=model.updated or model.created, tags=tags, number=self._next("model"))
        self._models[model.name] = new
        return new

    def _touch(self, model: str, updated: float) -> None:
        self._models[model] = replace(self._models[model], updated=max(self._models[model].updated, updated))

    def _next(self, what: str) -> int:
        self._numbers[what] += 1
        return self._numbers[what]

    def _ring(self) -> None:
        for bell in self._bells:
            bell.event.set()


def _tagged(tags: Mapping[str, str], key: str, value: str | None) -> dict[str, str]:
    left = {k: v for k, v in tags.items() if k != key}
    return dict(sorted((left if value is None else {**left, key: value}).items()))
