"""What exists in the registry: models, their versions, aliases, tags and stages, behind every protocol. What of it is served is deployments'.

Called by the Submarine and MLflow dialects and the command line. Everything that comes from a client is checked here, so that all faces
refuse the same things: names by Submarine requirement R7, versions by R6, sources by R11.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import version_order
from dragoman.core.model import EMPTY
from dragoman.serving.late_store import LateStore
from dragoman.serving.library.library import Library
from dragoman.serving.library.opening import FOLDER
from dragoman.serving.model_uris import LATEST, is_model_uri, parse_uri
from dragoman.serving.roots import ARTIFACTS, Roots, check_source, scheme_of
from dragoman.serving.settings import quoted
from dragoman.serving.sources import examine
from dragoman.serving.words import (
    LONGEST_VALUE,
    check_alias,
    check_description,
    check_key,
    check_new_name,
    check_tags,
    check_text,
    check_value,
    check_version,
    storable,
)
from dragoman.store import ModelStore, RegisteredModel, StoredVersion

log = logging.getLogger("dragoman")

Follow = Callable[[str], Awaitable[None]]


async def _nobody(model: str) -> None:
    """Where nothing is deployed nobody follows."""


class Catalog:
    """`after` is awaited with the name of each model that changed, `served` says whether a version is deployed.

    `logged` gives the place of a logged model (MLflow's `models:/m-...`), `fetch` brings what a remote URI means into one of the server's own
    places; both raise ServingError. Without them such sources are refused.
    """

    def __init__(
        self,
        store: LateStore,
        roots: Roots,
        data_path: Path,
        *,
        after: Follow = _nobody,
        served: Callable[[str, str], bool] = lambda model, version: False,
        logged: Callable[[str], Awaitable[str]] | None = None,
        fetch: Callable[[str], Awaitable[Path]] | None = None,
    ) -> None:
        self.roots = roots
        self.logged = logged
        self.fetch = fetch
        self._store = store
        self._data_path = data_path
        self._after = after
        self._served = served

    # --- models ---

    async def models(self) -> list[RegisteredModel]:
        """All of them, by name."""
        store = await self._store.existing()
        return [] if store is None else await store.models()

    async def model(self, name: str) -> RegisteredModel:
        """Raises NOT_FOUND (what="model")."""
        store = await self._store.existing()
        found = None if store is None or not storable(name) else await store.model(name)
        if found is None:
            raise _no_model(name)
        return found

    async def create_model(self, name: str, description: str = "", tags: Mapping[str, str] = EMPTY) -> RegisteredModel:
        """Raises CONFLICT when the name is taken, INVALID_INPUT for a name that no protocol could carry."""
        check_new_name(name)
        now = time.time()
        model = RegisteredModel(name, created=now, updated=now, description=check_description(description), tags=check_tags(tags))
        return await (await self._store.get()).add_model(model)

    async def change_model(self, name: str, *, new_name: str | None = None, description: str | None = None) -> RegisteredModel:
        """Change what is not None. Raises NOT_FOUND, and CONFLICT for a name that is taken or, with what="serving", while a version is served.

        What was wished for under the old name ends with it: nothing is deployed under the new one.
        """
        renamed = new_name is not None and new_name != name
        await self.model(name)
        if new_name is not None and renamed:
            check_new_name(new_name)
            self._refuse_served(name, await self.versions(name), "rename")
        store = await self._store.get()
        changed = await store.change_model(
            name,
            updated=time.time(),
            new_name=new_name if renamed else None,
            description=None if description is None else check_description(description),
        )
        if renamed:
            await self._tell(name)
            await self._tell(changed.name)
        return changed

    async def remove_model(self, name: str) -> None:
        """With all its versions. Raises NOT_FOUND, and CONFLICT (what="serving") while a version is served."""
        await self.model(name)
        versions = await self.versions(name)
        self._refuse_served(name, versions, "remove")
        store = await self._store.get()
        if not await store.remove_model(name):
            raise _no_model(name)
        await self._sweep(store, versions)
        await self._tell(name)

    async def tag_model(self, name: str, key: str, value: str | None) -> None:
        """Set a tag, or remove it with None; one that is not there is no error. Raises NOT_FOUND."""
        await self.model(name)
        await (await self._store.get()).tag_model(
            name, check_key(key), None if value is None else check_value(key, value), updated=time.time()
        )

    # --- versions ---

    async def versions(self, model: str = "") -> list[StoredVersion]:
        """Of one model or of all, newest first; none of a model that does not exist."""
        store = await self._store.existing()
        return [] if store is None or not storable(model) else await store.versions(model)

    async def version(self, model: str, version: str) -> StoredVersion:
        """Raises NOT_FOUND (what="model" or "version"), INVALID_INPUT (what="version") for what is no version number."""
        number = check_version(version)
        await self.model(model)
        found = await (await self._store.get()).version(model, number)
        if found is None:
            raise ServingError(Kind.NOT_FOUND, f"model {quoted(model)} has no version {number}", what="version")
        return found

    async def latest(self, model: str, stages: Collection[str] = ()) -> list[StoredVersion]:
        """The highest version in each of these stages, in their order; of every stage that the model's versions have, when none is named.

        Raises NOT_FOUND.
        """
        await self.model(model)
        best = newest_by_stage(await self.versions(model))
        wanted = dict.fromkeys(stage.casefold() or "none" for stage in stages) if stages else sorted(best)
        return [best[stage] for stage in wanted if stage in best]

    async def create_version(
        self,
        model: str,
        source: str,
        *,
        description: str = "",
        tags: Mapping[str, str] = EMPTY,
        facts: Mapping[str, str] = EMPTY,
        stage: str = "",
        kind: str = "",
    ) -> StoredVersion:
        """Register what lies at a source as the next version. Its files stay where they are; nothing is deployed, whatever the stage.

        A source is an absolute path, a `file:` URI, a path relative to the first model root or the server's artifacts, `mlflow-artifacts:`,
        `models:/NAME/VERSION`, `models:/NAME/STAGE`, `models:/NAME@ALIAS`, a logged model `models:/m-...`, or what `fetch` brings. `kind` stands
        for the model type that its files say. Raises NOT_FOUND (what="model"), INVALID_INPUT (what="source"), and what is INTERNAL in `fetch`;
        for whatever else it refuses or does not reach, the source is the bad one.
        """
        await self.model(model)
        check_source(source)
        asked = StoredVersion(
            model=model,
            version="",
            digest="",
            created=0.0,
            source=source,
            description=check_description(description),
            stage=check_text(stage, "the stage"),
            tags=check_tags(tags),
            facts={name: check_text(value, f"'{name}'", LONGEST_VALUE) for name, value in facts.items()},
        )
        filled = await self._filled(asked, source)
        if kind:
            filled = replace(filled, facts={**filled.facts, "model_type": check_text(kind, "the model type")})
        now = time.time()
        added = await (await self._store.get()).add_version(replace(filled, created=now, updated=now))
        await self._tell(model)
        return added

    async def change_version(
        self,
        model: str,
        version: str,
        *,
        description: str | None = None,
        stage: str | None = None,
        facts: Mapping[str, str] = EMPTY,
        archive: str = "",
    ) -> StoredVersion:
        """Change what is not None; `facts` are merged. With `archive`, other versions in the stage `stage` go to that stage.

        A stage is only a word: it deploys nothing, and ends nothing. Raises NOT_FOUND.
        """
        found = await self.version(model, version)
        changed = await (await self._store.get()).change_version(
            model,
            found.version,
            updated=time.time(),
            description=None if description is None else check_description(description),
            stage=None if stage is None else check_text(stage, "the stage"),
            facts={name: check_text(value, f"'{name}'", LONGEST_VALUE) for name, value in facts.items()},
            archive=check_text(archive, "the stage"),
        )
        if stage is not None:
            await self._tell(model)
        return changed

    async def remove_version(self, model: str, version: str) -> None:
        """Raises NOT_FOUND, and CONFLICT (what="serving") while it is served. Files of a version that was built go, others stay."""
        found = await self.version(model, version)
        self._refuse_served(model, [found], "remove")
        store = await self._store.get()
        if not await store.remove_version(model, found.version):
            raise ServingError(Kind.NOT_FOUND, f"model {quoted(model)} has no version {found.version}", what="version")
        await self._sweep(store, [found])
        await self._tell(model)

    async def tag_version(self, model: str, version: str, key: str, value: str | None) -> None:
        """As tag_model."""
        found = await self.version(model, version)
        value = None if value is None else check_value(key, value)
        await (await self._store.get()).tag_version(model, found.version, check_key(key), value, updated=time.time())

    # --- aliases ---

    async def aliases(self, model: str) -> dict[str, str]:
        """Alias -> version."""
        store = await self._store.existing()
        found = {} if store is None or not model or not storable(model) else await store.aliases(model)
        return {alias: version for (_, alias), version in found.items()}

    async def set_alias(self, model: str, alias: str, version: str) -> None:
        """Create or move. Raises NOT_FOUND, INVALID_INPUT (what="alias") for a word that means something else already."""
        check_alias(alias)
        found = await self.version(model, version)
        await (await self._store.get()).set_alias(model, alias, found.version)
        await self._tell(model)

    async def remove_alias(self, model: str, alias: str) -> bool:
        """False when there was none. Raises NOT_FOUND for an unknown model."""
        await self.model(model)
        removed = storable(alias) and await (await self._store.get()).remove_alias(model, alias)
        if removed:
            await self._tell(model)
        return removed

    async def resolve(self, uri: str) -> StoredVersion:
        """The version that a `models:/` URI means. Raises NOT_FOUND (what="model", "version" or "alias"), INVALID_INPUT (what="source")."""
        asked = parse_uri(uri)
        if asked.logged:
            raise invalid(f"{quoted(uri)} is a logged model, expected a version of a registered one", "source")
        name, version, alias = asked.name, asked.version, asked.alias
        if alias:
            found = (await self.aliases((await self.model(name)).name)).get(alias)
            if found is None:
                raise ServingError(Kind.NOT_FOUND, f"model {quoted(name)} has no alias {quoted(alias)}", what="alias")
            return await self.version(name, found)
        if asked.numbered:
            return await self.version(name, version)
        if version.casefold() == LATEST:
            await self.model(name)
            versions = await self.versions(name)
            if versions:
                return max(versions, key=lambda v: version_order(v.version))
            raise ServingError(Kind.NOT_FOUND, f"model {quoted(name)} has no version yet", what="version")
        for each in await self.latest(name, [version]):
            return each
        raise ServingError(Kind.NOT_FOUND, f"model {quoted(name)} has no version in the stage {quoted(version)}", what="version")

    # --- how ---

    async def _filled(self, asked: StoredVersion, source: str, *, follow: bool = True) -> StoredVersion:
        """A version with what lies at a source. `follow`: whether the source may be the name of another model."""
        scheme = scheme_of(source)
        if is_model_uri(source):
            if not follow:
                raise invalid(f"the source {quoted(source)} leads from model to model", "source")
            return await self._named(asked, source)
        if scheme in ("", "file", ARTIFACTS):
            path = await asyncio.to_thread(self.roots.resolve, source)
        elif self.fetch is None or scheme == "runs":
            reason = "cannot be fetched by this server: bring the model into a folder of --model-root and name that"
            raise invalid(f"the source {quoted(source)} {reason}", "source")
        else:
            try:
                fetched = await self.fetch(source)
            except ServingError as error:
                if error.kind in (Kind.INVALID_INPUT, Kind.INTERNAL, Kind.CANCELLED):
                    raise
                # Where it is not open, too large, late or not there, the source is the wrong one (Submarine requirement R11); with a 503
                # clients would ask again for minutes.
                raise invalid(f"the source {quoted(source)} cannot be fetched: {error.message}", "source") from error
            path = await asyncio.to_thread(fetched.resolve)
            if not await asyncio.to_thread(self.roots.open_to, path):
                raise ServingError(Kind.INTERNAL, "what was fetched lies outside of the server's own places")
        model = await asyncio.to_thread(examine, path, source, self.roots)
        return replace(
            asked,
            digest=model.digest,
            kind=model.kind,
            spec=dict(model.spec),
            manifest=model.manifest,
            folder=str(model.folder),
            facts={**model.facts, **asked.facts},
        )

    async def _named(self, asked: StoredVersion, source: str) -> StoredVersion:
        """A version with the files of another one, or of a logged model."""
        logged = parse_uri(source).logged
        if logged:
            if self.logged is None:
                raise invalid(f"the source {quoted(source)} is a logged model, of which this server has none", "source")
            return await self._filled(asked, await self.logged(logged), follow=False)
        try:
            found = await self.resolve(source)
        except ServingError as error:
            raise invalid(f"the source {quoted(source)} is not in this registry: {error.message}", "source") from error
        kept = {name: value for name, value in found.facts.items() if name in ("model_type", "run_id", "model_id")}
        return replace(
            asked,
            digest=found.digest,
            kind=found.kind,
            spec=found.spec,
            manifest=found.manifest,
            folder=found.folder,
            facts={**kept, **asked.facts},
        )

    def _refuse_served(self, model: str, versions: Collection[StoredVersion], what: str) -> None:
        served = [v.version for v in versions if self._served(model, v.version)]
        if served:
            each = f"version {served[0]}" if len(served) == 1 else f"versions {', '.join(sorted(served, key=version_order)[:10])}"
            raise ServingError(
                Kind.CONFLICT,
                f"model {quoted(model)} cannot be changed in this way while {each} of it is served: {what} it after undeploying",
                what="serving",
            )

    async def _sweep(self, store: ModelStore, versions: Collection[StoredVersion]) -> None:
        """Remove the files of versions that were built here and are gone from the registry."""
        library = Library(store, self._data_path / FOLDER)
        for version in versions:
            await library.sweep(version)

    async def _tell(self, model: str) -> None:
        """The registry has changed, and stays changed if a deployment cannot follow: that is then in its status."""
        try:
            await self._after(model)
        except ServingError as error:
            log.warning("the deployment of model '%s' could not follow a change in the registry: %s", model, error.message)


def _no_model(name: str) -> ServingError:
    return ServingError(Kind.NOT_FOUND, f"there is no registered model {quoted(name)}", what="model")


def newest_by_stage(versions: Iterable[StoredVersion]) -> dict[str, StoredVersion]:
    """The highest version of each stage, by its name in lower case. A version that never got a stage is in the stage "None"."""
    return {version.stage.casefold() or "none": version for version in sorted(versions, key=lambda each: version_order(each.version))}
