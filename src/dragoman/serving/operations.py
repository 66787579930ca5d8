"""Load and unload a model by name: what every protocol's load and unload calls do. Called by the dialects.

A name is looked for among the targets of the command line (until the server ends), in the registry, and directly below the model roots
(both for ever, see deployments.py).
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY
from dragoman.serving.deployments import Deployments
from dragoman.serving.gateway import Gateway
from dragoman.serving.model_config import models_of
from dragoman.serving.origins import Origins
from dragoman.serving.polling import Polling
from dragoman.serving.registry import Registry
from dragoman.serving.reloading import Reloading
from dragoman.serving.repository import Found, Repository
from dragoman.serving.wishes import FIXED, Document, entry, tried_again, versions_of
from dragoman.store import Wish

if TYPE_CHECKING:
    from google.protobuf.message import Message

_DEEPEST = 16
"""Composed models inside composed models."""


class Operations:
    """Make it on the event loop."""

    def __init__(
        self,
        registry: Registry,
        repository: Repository,
        gateway: Gateway,
        deployments: Deployments,
        origins: Origins,
        polling: Polling,
        reloading: Reloading,
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._gateway = gateway
        self._deployments = deployments
        self._origins = origins
        self._polling = polling
        self._reloading = reloading

    async def load(self, name: str, config: str = "", files: Mapping[str, bytes] = EMPTY, version: str = "", depth: int = 0) -> None:
        """Serve what is there now in every worker; the old version serves until the new one is ready.

        `version` is a number, an alias or a stage of a registered model, else its highest version is meant. Raises NOT_FOUND for a name that
        is nowhere, INVALID_INPUT for files that cannot be read as a model, UNAVAILABLE with the reason when loading failed; then what was
        served before goes on.
        """
        folder = await asyncio.to_thread(self._repository.receive, name, files) if files else ""
        try:
            found = await asyncio.to_thread(self._repository.find, name, config, folder)
            if found is not None:
                await self._load_target(found, config, folder, depth)
                return
        except BaseException:
            if folder:
                await asyncio.to_thread(self._repository.discard, folder)
            raise
        number = await self._deployments.version_of(name, version)
        if number is None:
            await self._load_below(name, config, depth)
        elif config:
            raise invalid(f"model '{name}' is registered, and is served as it was registered: it takes no other configuration", "model")
        else:
            await self._deployments.serve(name, number, stage=None)

    async def unload(self, name: str, *, members_too: bool = False) -> None:
        """Stop serving a model; returns when no worker finds it any more, while requests in flight finish.

        Raises NOT_FOUND for a name that was never served or known.
        """
        if self._registry.desired(name) is None and not self._gateway.statuses(name):
            raise ServingError(Kind.NOT_FOUND, f"model '{name}' is not known to this server", what="model")
        members = self._members(name)
        await self._unload_one(name)
        if members_too:
            for member in sorted(members):
                if self._registry.desired(member) is not None:
                    await self._unload_one(member)

    async def reload_config(self, config: "Message") -> None:
        """Serve the models of a tensorflow.serving.ModelServerConfig, and no others but what is deployed; see `Reloading.reload`.

        Raises INVALID_INPUT, UNSUPPORTED, CONFLICT (what="label") and UNAVAILABLE (what="load").
        """
        await self._reloading.reload(models_of(config))

    async def unloaded(self, limit: int) -> list[str]:
        """Names that could be loaded: targets, registered models, and what lies in the model roots, up to so many."""
        names = await asyncio.to_thread(self._repository.names)
        with contextlib.suppress(ServingError):  # without the store the rest is still true
            names += await self._deployments.registered(limit)
        names += await self._origins.names(limit)
        return list(dict.fromkeys(names))[:limit]

    # --- how ---

    async def _load_target(self, found: Found, config: str, folder: str, depth: int) -> None:
        """What one worker has read others read again: the wish says where, and is one of this run."""
        if found.error:
            raise invalid(f"model '{found.name}' cannot be loaded: {found.error}", "model")
        await self._load_members(found, depth)
        if not config and not folder and self._polling.follows(found.name):
            await self._follow(found)
            return
        origin = {"target": found.name, "config": config, "files": folder}
        versions = {version: entry(spec.revision, origin) for version, spec in found.versions.items()}
        replaced: set[str] = set()

        def rewrite(standing: Wish | None) -> Document | None:
            before = EMPTY if standing is None else standing.document
            same = {v: each["revision"] for v, each in versions_of(before).items()} == {v: s.revision for v, s in found.versions.items()}
            if same and not any(v in self._registry.failures(found.name) for v in found.versions):
                return None
            replaced.update(_folders(before))
            return {"versions": versions, "labels": dict(found.labels)}

        wish = await self._registry.deploy(found.name, rewrite, run=self._registry.run, required=tuple(found.versions))
        kept = _folders(wish.document)
        for each in ({folder} | replaced) - kept - {""}:
            await asyncio.to_thread(self._repository.discard, each)

    async def _follow(self, found: Found) -> None:
        """A target that every worker looks at again and again, or that the list of models names, is served as each finds it."""
        await self._polling.look(at_once=found.name)

        def rewrite(standing: Wish | None) -> Document | None:
            document = FIXED if standing is None else standing.document
            if not document.get("fixed"):
                return FIXED
            return tried_again(standing) if standing and any(v in self._registry.failures(found.name) for v in found.versions) else None

        await self._registry.deploy(found.name, rewrite, run=self._registry.run, required=tuple(found.versions))

    async def _load_below(self, name: str, config: str, depth: int) -> None:
        below = await self._origins.below(name, config)
        if below is None:
            raise ServingError(Kind.NOT_FOUND, f"model '{name}' is not in any of this server's repositories", what="model")
        specs = {version: await self._origins.open_spec(name, version, origin) for version, origin in below.versions.items()}
        await self._load_members(Found(name, specs), depth)
        versions = {version: entry(spec.revision, below.versions[version]) for version, spec in specs.items()}
        document = {"versions": versions, "labels": dict(below.labels)}
        await self._registry.deploy(name, lambda _: document, required=tuple(versions))

    async def _load_members(self, found: Found, depth: int) -> None:
        members = {step.model for spec in found.versions.values() for step in spec.steps}
        for member in sorted(members):
            if depth >= _DEEPEST:
                raise invalid(f"model '{found.name}' is composed of models more than {_DEEPEST} deep", "model")
            if not self._served(member):
                await self.load(member, depth=depth + 1)

    async def _unload_one(self, name: str) -> None:
        run = self._registry.run
        if self._registry.fixed(name) or self._registry.document(name, run) or not self._registry.document(name):
            before: set[str] = set()

            def rewrite(standing: Wish | None) -> Document | None:
                document = FIXED if standing is None else standing.document
                before.update(_folders(document))
                return {} if document else None

            wish = await self._registry.wish(name, rewrite, run=run)
            await self._registry.settled(name, wish.generation, run)
            for folder in before:
                await asyncio.to_thread(self._repository.discard, folder)
        if self._registry.document(name):
            await self._deployments.undeploy(name)

    def _members(self, name: str) -> set[str]:
        desired = self._registry.desired(name)
        specs = [] if desired is None else [wanted.spec for wanted in desired.versions.values() if wanted.spec is not None]
        specs += [entry.spec for entry in self._gateway.entries() if entry.name == name]
        return {step.model for spec in specs for step in spec.steps}

    def _served(self, name: str) -> bool:
        try:
            self._gateway.find(name)
        except ServingError:
            return False
        return True


def _folders(document: Document) -> set[str]:
    """Where the files lie that load requests brought for this document."""
    return {folder for each in versions_of(document).values() if (folder := each["origin"].get("files"))}
