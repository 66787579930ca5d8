"""From what a wish says of a version to the spec that is loaded: made anew by every process, under the settings and the trust of now.

Called by server/loading.py for every load, and by operations.py. Disks are read in threads; nothing is loaded and no code is run here.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from dragoman.core.artifacts import detect
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import version_order
from dragoman.core.model import EMPTY, ModelSpec
from dragoman.serving import layouts
from dragoman.serving.late_store import LateStore
from dragoman.serving.library.library import Stored
from dragoman.serving.library.packing import listed
from dragoman.serving.reading import Found, Place
from dragoman.serving.repository import Repository
from dragoman.serving.roots import Roots
from dragoman.serving.words import check_name

Origin = Mapping[str, Any]
"""JSON, one of: {"model": name, "version": number} a registered version; {"path": path, "config": JSON} a folder or file below a root;
{"target": name, "config": JSON, "files": folder} a target of the command line, or what a load request brought.
`config` is a Triton model configuration, and may be left out, as may "instances", how many of the model are to be loaded."""


@dataclass(frozen=True, slots=True)
class Below:
    """A model that lies in a model root under its name: an origin for each version that its own policy serves."""

    versions: Mapping[str, Origin]
    labels: Mapping[str, str] = EMPTY


class Origins:
    def __init__(self, store: LateStore, roots: Roots, repository: Repository, data_path: Path) -> None:
        self._store = store
        self._roots = roots
        self._repository = repository
        self._data_path = data_path.absolute()

    async def open_spec(self, name: str, version: str, origin: Origin) -> ModelSpec:
        """What to load for a version that is served as `name`. Raises ServingError with the reason when it cannot be read, or no longer may be."""
        config = str(origin.get("config", ""))
        match origin:
            case {"model": str() as model, "version": str() as number}:
                stored = await self._stored(model, number)
                found = await asyncio.to_thread(self._registered, name, stored, config)
            case {"path": str() as path}:
                found = await asyncio.to_thread(self._below, name, path, config)
            case {"target": str() as target}:
                found = await asyncio.to_thread(self._target, target, config, str(origin.get("files", "")))
            case _:
                raise invalid(f"model '{name}' version {version} comes from nowhere that this server knows", "model")
        if "model" in origin:  # a version of the registry is one, whatever numbers its folder has
            (spec,) = found.versions.values() if len(found.versions) == 1 else [found.versions[max(found.versions, key=version_order)]]
        elif version in found.versions:
            spec = found.versions[version]
        else:
            raise ServingError(Kind.NOT_FOUND, f"model '{name}' has no version {version} where it lies", what="version")
        instances = origin.get("instances")
        return replace(spec, name=name, version=version, instances=instances if isinstance(instances, int) else spec.instances)

    async def below(self, name: str, config: str = "") -> Below | None:
        """The model of this name in one of the roots, as a load request names it; None when there is none.

        Raises INVALID_INPUT for a name that cannot be served, and for what is no model.
        """
        check_name(name)
        return await asyncio.to_thread(self._find, name, config)

    async def at(self, name: str, path: str) -> Below:
        """What lies at a path below a root, to be served under a name. Raises INVALID_INPUT or UNSUPPORTED, as `below`."""
        check_name(name)
        real = await asyncio.to_thread(self._roots.resolve, path)  # whoever names a path is told of it by that path
        found = await asyncio.to_thread(self._below, name, str(real), "")
        return Below({version: {"path": path} for version in found.versions}, found.labels)

    async def names(self, limit: int) -> list[str]:
        """What could be named to `below`: models directly in a root, up to so many."""
        return await asyncio.to_thread(self._names, limit)

    # --- blocking ---

    def _names(self, limit: int) -> list[str]:
        names: dict[str, None] = {}
        for root in self._roots.roots:
            with contextlib.suppress(OSError, ServingError):  # a root that is gone has none
                for path in islice(sorted(layouts.visible(root.path)), limit):
                    names.update(dict.fromkeys(_names_of(path)))
        return list(names)[:limit]

    def _find(self, name: str, config: str) -> Below | None:
        for root in self._roots.roots:
            path = _entry(root.path, name)
            if path is None:
                continue
            found = self._below(name, str(path), config)
            origin = {"path": str(path), **({"config": config} if config else {})}
            return Below(dict.fromkeys(found.versions, origin), found.labels)
        return None

    def _below(self, name: str, path: str, config: str) -> Found:
        """What lies at a path below a root now."""
        try:
            real = self._roots.resolve(path)
            listed(real, lambda each: self._roots.same(each, real))  # nothing in it leads out, or would never end when it is read
            return self._repository.reader.layout(self._repository.reader.below_a_root(name, real), config)
        except ServingError as error:
            message = error.message.replace(path, name)
            raise ServingError(error.kind, f"model '{name}' cannot be loaded: {message}", what=error.what or "model") from error
        except OSError as error:
            raise invalid(f"model '{name}' cannot be read: {error.strerror or error}", "model") from error

    def _registered(self, name: str, stored: Stored, config: str) -> Found:
        try:
            return self._repository.reader.stored(Place(name, stored.place, named=True), stored, config)
        except ServingError as error:
            message = error.message.replace(str(stored.place), name)
            raise ServingError(error.kind, message, what=error.what or "model") from error
        except OSError as error:
            raise invalid(f"model '{name}' cannot be read: {error.strerror or error}", "model") from error

    def _target(self, target: str, config: str, folder: str) -> Found:
        found = self._repository.find(target, config, folder)
        if found is None:
            raise ServingError(Kind.NOT_FOUND, f"model '{target}' is not in any of this server's repositories", what="model")
        if found.error:
            raise invalid(f"model '{target}' cannot be loaded: {found.error}", "model")
        return found

    async def _stored(self, model: str, number: str) -> Stored:
        store = await self._store.existing()
        version = None if store is None else await store.version(model, number)
        if version is None:
            raise ServingError(Kind.NOT_FOUND, f"model '{model}' has no version {number} in the registry", what="version")
        return Stored(model, "", (), version, self._data_path / version.folder)


def _names_of(path: Path) -> list[str]:
    """By what name an entry of a root can be loaded, if it is a model that can be served under it."""
    try:
        folder = path.is_dir() and (layouts.is_model(path) or layouts.is_plain(path))
        name = path.name if folder else path.stem if path.is_file() and detect(path) else ""
        if name:
            check_name(name)
    except (ServingError, OSError):
        return []
    return [name] if name else []


def _entry(root: Path, name: str) -> Path | None:
    """The folder or file of a root that is called `name`, a model file also without its suffix."""
    try:
        if (root / name).exists():
            return root / name
        return next((path for path in sorted(root.iterdir()) if path.stem == name and detect(path)), None)
    except OSError:  # a name that is too long for a file, or a root that is gone
        return None
