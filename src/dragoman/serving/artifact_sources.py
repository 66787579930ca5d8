"""Where models that are fetched come from: web servers, buckets, MLflow registries. Each brings all files of one model into a folder.

Called by artifacts.py. What a source has brought stays in its folder when it fails, and the next attempt asks only for the rest.
"""

import asyncio
import json
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from dragoman.core.data_uris import bare_name
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY
from dragoman.serving.fetch import FetchPolicy, Have, download, fetch, shown
from dragoman.serving.library.packing import MOST_FILES
from dragoman.serving.library.remotes import Part, told, tree_of, without_secrets
from dragoman.serving.paths import confine

Progress = Callable[[int, int], None]
"""Bytes so far, and all of them (0: unknown)."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Between attempts to go on with a download that breaks off; one that came further begins with the first again."""
_TRANSIENT = frozenset({Kind.UNAVAILABLE, Kind.TIMEOUT})
_LARGEST_ANSWER = 16 << 20
_STATE = ".state.json"
"""What of a folder is complete, and by what its server knows it."""
_REGISTERED = re.compile(r"models:/+(?P<name>[^/@]+)(?:/(?P<version>[^/@]+)|@(?P<alias>[^/@]+))")
_LOGGED = re.compile(r"models:/+(m-[0-9a-f]{32})")


class Source(Protocol):
    """One model at one place."""

    @property
    def leaf(self) -> str:
        """What its file or folder is called."""
        ...

    async def bring(self, folder: Path, known: Mapping[str, str], progress: Progress) -> dict[str, str] | None:
        """Write its files into `folder`, where some may be from an attempt before; returns path -> validator ("" where nobody says).

        None: nothing has changed since `known`, what was returned last time. Raises ServingError.
        """
        ...


@dataclass(frozen=True)
class Web:
    """One file behind an http or https URL."""

    url: str
    policy: FetchPolicy
    headers: Mapping[str, str] = EMPTY
    pauses_s: Sequence[float] = PAUSES_S

    @property
    def leaf(self) -> str:
        return bare_name(urlsplit(self.url).path) or "model"

    async def bring(self, folder: Path, known: Mapping[str, str], progress: Progress) -> dict[str, str] | None:
        state = _State(folder)
        have = state.have(self.leaf)
        attempt = 0
        while True:
            before = have.size
            try:
                done = await download(
                    self.url,
                    folder / self.leaf,
                    self.policy,
                    have=have,
                    known=known.get(self.leaf, ""),
                    headers=self.headers,
                    progress=progress,
                )
            except ServingError as error:
                state.keep(self.leaf, have)
                attempt = 0 if have.size > before else attempt + 1
                if error.kind not in _TRANSIENT or attempt >= len(self.pauses_s) or not (have.size and have.validator):
                    raise
                await asyncio.sleep(self.pauses_s[attempt])
            except BaseException:
                state.keep(self.leaf, have)
                raise
            else:
                return None if done is None else {self.leaf: done.validator}


@dataclass(frozen=True)
class Bucket:
    """An object, or everything below a prefix, in an object store."""

    url: str

    @property
    def leaf(self) -> str:
        return bare_name(urlsplit(self.url).path.rstrip("/")) or urlsplit(self.url).netloc

    async def bring(self, folder: Path, known: Mapping[str, str], progress: Progress) -> dict[str, str] | None:
        stopped = threading.Event()
        try:
            return await asyncio.to_thread(self._bring, folder, known, progress, stopped)
        finally:
            stopped.set()  # a thread cannot be cancelled, but it looks here between two pieces

    def _bring(self, folder: Path, known: Mapping[str, str], progress: Progress, stopped: threading.Event) -> dict[str, str] | None:
        with told(self.url):
            tree = tree_of(self.url)
            parts = tree.parts()
            if not parts:
                raise ServingError(Kind.NOT_FOUND, f"there is nothing at {without_secrets(self.url)}", what="source")
            if len(parts) > MOST_FILES:
                raise invalid(f"{without_secrets(self.url)} holds more than {MOST_FILES} files; is it a model?", "source")
            found = {part.path: part.tag for part in parts}
            if found == known and all(found.values()):
                return None
            state, whole, done = _State(folder), sum(part.size for part in parts), 0
            for part in parts:
                target = confine(folder, part.path, f"an object of {without_secrets(self.url)}")
                target.parent.mkdir(parents=True, exist_ok=True)
                have = state.have(part.path)
                place = have.size if have.validator == part.tag and part.tag else 0
                self._one(tree.pieces(part, place), part, target, place, state, stopped, partial(_beyond, progress, done, whole))
                done += part.size
            return found

    def _one(
        self, pieces: Any, part: Part, target: Path, place: int, state: "_State", stopped: threading.Event, progress: Progress
    ) -> None:
        try:
            with target.open("r+b" if target.exists() else "wb") as out:
                out.truncate(place)
                out.seek(place)
                for piece in pieces:
                    if stopped.is_set():
                        raise ServingError(Kind.CANCELLED, "the download was given up")
                    out.write(piece)
                    place += len(piece)
                    progress(place, part.size)
        finally:
            state.keep(part.path, Have(place, part.tag))
        if place != part.size:
            raise ServingError(Kind.UNAVAILABLE, f"an object of {without_secrets(self.url)} is shorter than its store says")


@dataclass(frozen=True)
class Mlflow:
    """A registered version, or a logged model, of an MLflow registry at `base`: finds out where its files are."""

    base: str
    policy: FetchPolicy
    token: str = ""
    pauses_s: Sequence[float] = PAUSES_S

    async def source(self, uri: str) -> "Source | Path":
        """Where the files of a `models:/` URI are; a path when they are on this machine. Raises NOT_FOUND, UNAVAILABLE."""
        logged = _LOGGED.fullmatch(uri)
        if logged is not None:
            found = await self._get(f"logged-models/{logged[1]}")
            return await self._at(str(found.get("model", {}).get("info", {}).get("artifact_uri", "")), logged[1])
        named = _REGISTERED.fullmatch(uri)
        if named is None:
            raise invalid(
                f"'{uri}' is no model of a registry: expected models:/NAME/VERSION, models:/NAME/STAGE or models:/NAME@ALIAS", "source"
            )
        name, version = named["name"], await self._version(named["name"], named["version"] or "", named["alias"] or "")
        found = await self._get("model-versions/get-download-uri", name=name, version=version)
        return await self._at(str(found.get("artifact_uri", "")), name)

    async def _version(self, name: str, version: str, alias: str) -> str:
        if alias:
            found = await self._get("registered-models/alias", name=name, alias=alias)
            return str(found.get("model_version", {}).get("version", ""))
        if version.isascii() and version.isdigit():
            return version
        stages = {} if version.lower() == "latest" else {"stages": version}
        listed = (await self._get("registered-models/get-latest-versions", name=name, **stages)).get("model_versions", [])
        versions = [str(each.get("version", "")) for each in listed if isinstance(each, dict)]
        if not versions:
            raise ServingError(Kind.NOT_FOUND, f"model '{name}' has no version in the stage '{version}'", what="version")
        return max(versions, key=lambda text: int(text) if text.isdigit() else 0)

    async def _at(self, uri: str, leaf: str) -> "Source | Path":
        scheme = urlsplit(uri).scheme
        if uri.startswith("models:/"):
            return await self.source(uri)
        if scheme == "mlflow-artifacts":
            return _Served(self, urlsplit(uri).path.strip("/"), leaf)
        if scheme in ("http", "https") and "/api/2.0/mlflow-artifacts/artifacts/" in uri:
            return _Served(self, uri.partition("/api/2.0/mlflow-artifacts/artifacts/")[2].strip("/"), leaf)
        if scheme in ("http", "https"):
            return Web(uri, self.policy, pauses_s=self.pauses_s)
        if scheme in ("", "file"):
            return Path(urlsplit(uri).path)
        return Bucket(uri)

    async def _get(self, path: str, **query: str) -> dict[str, Any]:
        url = f"{self.base.rstrip('/')}/api/2.0/mlflow/{path}" + (f"?{urlencode(query)}" if query else "")
        return await self.json(url)

    async def json(self, url: str) -> dict[str, Any]:
        policy = replace(self.policy, max_bytes=min(self.policy.max_bytes, _LARGEST_ANSWER))
        answer = await fetch(url, policy, headers=self.headers)
        try:
            found = json.loads(answer.data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ServingError(Kind.UNAVAILABLE, f"{shown(self.base)} does not answer as an MLflow registry does")
        return found

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else EMPTY


@dataclass(frozen=True)
class _Served:
    """A folder that an MLflow server keeps."""

    registry: Mlflow
    path: str
    name: str

    @property
    def leaf(self) -> str:
        return self.name

    async def bring(self, folder: Path, known: Mapping[str, str], progress: Progress) -> dict[str, str] | None:
        sizes = await self._listed(self.path)
        if not sizes:
            raise ServingError(Kind.NOT_FOUND, f"the registry has no files of '{self.leaf}'", what="source")
        done, whole = 0, sum(sizes.values())
        state = _State(folder)
        for path, size in sizes.items():
            target = confine(folder, path, f"a file of '{self.leaf}' in the registry")
            if state.have(path).size != size or not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                url = f"{self.registry.base.rstrip('/')}/api/2.0/mlflow-artifacts/artifacts/{quote(f'{self.path}/{path}')}"
                await download(
                    url,
                    target,
                    self.registry.policy,
                    have=Have(),
                    headers=self.registry.headers,
                    progress=partial(_beyond, progress, done, whole),
                )
                state.keep(path, Have(target.stat().st_size))
            done += size
        return dict.fromkeys(sizes, "")

    async def _listed(self, path: str, below: str = "", depth: int = 0) -> dict[str, int]:
        """Every file below, relative to the model's folder, with its size."""
        if depth > 32:
            raise invalid(f"the files of '{self.leaf}' in the registry lie too deep", "source")
        url = f"{self.registry.base.rstrip('/')}/api/2.0/mlflow-artifacts/artifacts?{urlencode({'path': path})}"
        sizes: dict[str, int] = {}
        for each in (await self.registry.json(url)).get("files", []):
            name = str(each.get("path", "")).rstrip("/").rpartition("/")[2]
            if each.get("is_dir"):
                sizes |= await self._listed(f"{path}/{name}", f"{below}{name}/", depth + 1)
            else:
                sizes[f"{below}{name}"] = int(each.get("file_size") or 0)
            if len(sizes) > MOST_FILES:
                raise invalid(f"'{self.leaf}' has more than {MOST_FILES} files in the registry; is it a model?", "source")
        return sizes


def _beyond(progress: Progress, before: int, whole: int, more: int, _: int) -> None:
    progress(before + more, whole)


class _State:
    """How far each file of a folder has come, in a file beside them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.parent / f"{folder.name}{_STATE}"
        try:
            content = json.loads(self._path.read_text("utf-8"))
            self._files = {str(path): Have(int(size), str(tag)) for path, (size, tag) in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._files = {}
        self._folder = folder

    def have(self, path: str) -> Have:
        """No more than what is on the disk."""
        try:
            size = os.stat(self._folder / path).st_size
        except OSError:
            return Have()
        known = self._files.get(path, Have())
        return Have(min(size, known.size), known.validator)

    def keep(self, path: str, have: Have) -> None:
        self._files[path] = Have(have.size, have.validator)
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps({path: [each.size, each.validator] for path, each in self._files.items()}), "utf-8")
        draft.replace(self._path)
