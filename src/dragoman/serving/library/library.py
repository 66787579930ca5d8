"""The models that are built: which there are, what a name means, tags, removal. Records in the store, files below `root`.

Called by the command line, and by the server for targets that are names. Blocking work runs in threads; several processes may use one
library at the same time, because a version's folder is complete before its record is written and is removed after it.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.library.packing import ONLY, File, digest_of, files_of, manifest, recorded, verify
from dragoman.serving.library.references import LATEST, Reference, default_tag, parse
from dragoman.serving.paths import private_folder
from dragoman.store import ModelStore, StoredVersion

_ABANDONED_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of a stored model. `tag` is the one by which it was asked for, or its best one; `tags` are all of them."""

    repository: str
    tag: str
    tags: tuple[str, ...]
    version: StoredVersion
    folder: Path

    @property
    def name(self) -> str:
        return str(Reference(self.repository, self.tag or self.version.version))

    @property
    def served_name(self) -> str:
        return Reference(self.repository).served_name

    @property
    def model_class(self) -> str:
        """`module:class` of a Python model, "" of others."""
        arguments = self.version.spec.get("arguments", {})
        return f"{arguments.get('module', '')}:{arguments.get('class', '')}" if arguments else ""

    @property
    def files(self) -> tuple[File, ...]:
        return files_of(self.version.manifest)

    @property
    def built(self) -> bool:
        """Whether it was built or pulled by the operator, and so lies in the library; others lie where they were when they were registered."""
        return _built(self.version)

    @property
    def place(self) -> Path:
        """The file or folder that is the model."""
        return self.folder / str(self.version.manifest.get(ONLY, ""))

    def check(self, within: Callable[[Path], bool] | None = None) -> None:
        """Raise UNAVAILABLE when its files are not what was stored. Reads all of them; blocks. `within` as for `verify`."""
        verify(self.folder, self.files, self.name, within)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is about to be stored: `folder` is below the library's staging place and is moved from there."""

    folder: Path
    kind: str
    spec: Mapping[str, Any]
    source: str = ""


class Library:
    """`root` is the folder of models in the server's data directory."""

    def __init__(self, store: ModelStore, root: Path) -> None:
        self._store = store
        self.root = root.absolute()  # what is served from it must not depend on where the command was started

    # --- what there is ---

    async def all(self) -> list[Stored]:
        """Every tag of every version, the newest version first; a version without a tag has one row with an empty one."""
        aliases = await self._store.aliases()
        rows: list[Stored] = []
        for version in await self._store.versions():
            tags = _tags(aliases, version)
            rows += [self._stored(version, tag, tags) for tag in tags or ("",)]
        return rows

    async def resolve(self, text: str = "") -> Stored:
        """The version that a name means: with a tag that one; without, `latest` if there is such a tag, else the newest of that repository;
        without a name, the newest of all. A version's number stands for it, too. Raises NOT_FOUND, INVALID_INPUT for what is no name."""
        if not text:
            versions = [v for v in await self._store.versions() if _built(v)]  # what was registered waits to be asked for
            if not versions:
                raise ServingError(Kind.NOT_FOUND, "no model is stored; make one with `dragoman build`", what="model")
            return await self._with_tags(versions[0])
        reference = parse(text)
        aliases = await self._store.aliases(reference.repository)
        tag = reference.tag or LATEST
        number = aliases.get((reference.repository, tag), reference.tag)
        version = await self._store.version(reference.repository, number) if number else None
        if version is None and not reference.tag:
            versions = await self._store.versions(reference.repository)
            version = versions[0] if versions else None
        if version is None:
            raise ServingError(Kind.NOT_FOUND, f"no model '{reference}' is stored", what="model")
        tags = _tags(aliases, version)
        return self._stored(version, tag if tag in tags else tags[0] if tags else "", tags)

    # --- changes ---

    def stage(self) -> Path:
        """A new, empty folder to prepare a model in. What builds that were killed have left there is removed after a day."""
        staging = self.root / ".staging"
        private_folder(staging)
        for old in staging.iterdir():
            if time.time() - old.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(old, ignore_errors=True)
        place = staging / f"{time.time_ns():x}"
        place.mkdir()
        return place

    async def add(self, prepared: Prepared, repository: str, tag: str = "") -> Stored:
        """Keep a model under a tag, by default the beginning of its digest. Content that is there already only gets the tag."""
        files = await asyncio.to_thread(recorded, prepared.folder)
        digest = digest_of(prepared.kind, prepared.spec, files)
        leaf = str(prepared.spec.get("leaf") or "model")
        folder = self.root / quote(repository, safe="") / digest[:20] / leaf
        await asyncio.to_thread(_place, prepared.folder, folder, files)
        version = StoredVersion(
            model=repository,
            version="",
            digest=digest,
            created=time.time(),
            kind=prepared.kind,
            spec=dict(prepared.spec),
            manifest=manifest(files),
            folder=str(folder.relative_to(self.root.parent)),
            source=prepared.source,
        )
        return await self._record(version, tag or default_tag(digest))

    async def tag(self, source: str, target: str) -> Stored:
        """Give a version a second name, in its own repository or in another one. Without a tag, the target gets `latest`."""
        found = await self.resolve(source)
        reference = parse(target)
        tag = reference.tag or LATEST
        if reference.repository == found.repository:
            await self._store.set_alias(found.repository, tag, found.version.version)
            return await self.resolve(f"{reference.repository}:{tag}")
        return await self._record(replace(found.version, model=reference.repository, created=time.time()), tag)

    async def remove(self, text: str) -> Stored:
        """Take a tag away; the version and its files go with their last one. Raises NOT_FOUND when nothing has this name."""
        found = await self.resolve(text)
        if found.tag and len(found.tags) > 1:
            await self._store.remove_alias(found.repository, found.tag)
        else:
            await self._remove(found.version)
        return found

    async def clear(self, repository: str = "") -> list[Stored]:
        """Remove every version of a repository, or all there are. Returns what there was."""
        removed = [row for row in await self.all() if repository in ("", row.repository)]
        if repository and not removed:
            raise ServingError(Kind.NOT_FOUND, f"no model '{repository}' is stored", what="model")
        for version in {row.version.model + ":" + row.version.version: row.version for row in removed}.values():
            await self._remove(version)
        return removed

    # --- how ---

    async def _record(self, version: StoredVersion, tag: str) -> Stored:
        """Write a version under the next number of its repository, unless the same content is there; then that gets the tag."""
        await self._store.add_version(replace(version, version=""), aliases=[tag], reuse=_built)
        return await self.resolve(f"{version.model}:{tag}")

    async def _remove(self, version: StoredVersion) -> None:
        await self._store.remove_version(version.model, version.version)
        await self.sweep(version)

    async def sweep(self, version: StoredVersion) -> None:
        """Remove the files of a version whose record is gone, if they lie here and are no other version's. Registered files are their owner's."""
        place = self._folder(version).parent
        if place.parent.parent == self.root and not any(v.folder == version.folder for v in await self._store.versions()):
            await asyncio.to_thread(shutil.rmtree, place, True)
            with suppress(OSError):  # not empty: other versions
                place.parent.rmdir()

    async def _with_tags(self, version: StoredVersion) -> Stored:
        tags = _tags(await self._store.aliases(version.model), version)
        return self._stored(version, tags[0] if tags else "", tags)

    def _stored(self, version: StoredVersion, tag: str, tags: tuple[str, ...]) -> Stored:
        return Stored(version.model, tag, tags, version, self._folder(version))

    def _folder(self, version: StoredVersion) -> Path:
        return self.root.parent / version.folder


def _built(version: StoredVersion) -> bool:
    return version.folder != "" and not Path(version.folder).is_absolute()


def _tags(aliases: Mapping[tuple[str, str], str], version: StoredVersion) -> tuple[str, ...]:
    """The tags of a version; names that people chose before those made of its digest."""
    tags = [tag for (model, tag), number in aliases.items() if (model, number) == (version.model, version.version)]
    return tuple(sorted(tags, key=lambda tag: (tag == default_tag(version.digest), tag)))


def _place(staged: Path, folder: Path, files: Sequence[File]) -> None:
    """Move a staged folder to its place. What is there already stays if it is whole; a damaged one is replaced."""
    try:
        if folder.is_dir():
            try:
                verify(folder, files, folder.parent.name)
            except ServingError:
                shutil.rmtree(folder)
            else:
                shutil.rmtree(staged)
                return
        private_folder(folder.parent)
        staged.rename(folder)
    except OSError as error:
        raise ServingError(Kind.UNAVAILABLE, f"the folder of stored models cannot be written: {error.strerror}") from error
