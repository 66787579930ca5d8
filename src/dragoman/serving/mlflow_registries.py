"""MLflow registries of others: where the files of a `models:/` URI are, and how they are brought. Called by artifacts.py.

What a registry answers is nobody's word for anything: it is looked at field by field, and paths in it are confined by whoever writes files.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import version_order
from dragoman.core.model import EMPTY
from dragoman.serving.artifact_sources import PAUSES_S, Bucket, Progress, Source, State, Web, beyond, leaf_of, only
from dragoman.serving.fetch import ACCESS, FetchPolicy, Have, download, fetch, shown
from dragoman.serving.library.packing import MOST_FILES
from dragoman.serving.model_uris import LATEST, ModelUri, is_model_uri, parse_uri
from dragoman.serving.paths import confine

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_LARGEST_ANSWER = 16 << 20
_MOST_STEPS = 4
"""From URI to URI: a version may be that of a logged model, and a copy of another version."""
_DEEPEST = 32
_DIGITS = 18


@dataclass(frozen=True)
class Mlflow:
    """The registry at `base`."""

    base: str
    policy: FetchPolicy
    token: str = ""
    pauses_s: Sequence[float] = PAUSES_S

    async def source(self, uri: str, steps: int = _MOST_STEPS) -> Source | Path:
        """Where the files of a `models:/` URI are; a path when they are on this machine. Raises INVALID_INPUT, NOT_FOUND, UNAVAILABLE."""
        asked = parse_uri(uri)
        if asked.logged:
            found = await self._get(f"logged-models/{asked.logged}")
            return await self._at(_text(found, "model", "info", "artifact_uri"), asked.logged, steps)
        version = await self._version(asked)
        if not version:
            raise self.foreign()
        found = await self._get("model-versions/get-download-uri", name=asked.name, version=version)
        return await self._at(_text(found, "artifact_uri"), asked.name, steps)

    async def _version(self, asked: ModelUri) -> str:
        if asked.alias:
            found = await self._get("registered-models/alias", name=asked.name, alias=asked.alias)
            return _text(found, "model_version", "version")
        if asked.numbered:
            return asked.version
        stages = {} if asked.version.lower() == LATEST else {"stages": asked.version}
        listed = (await self._get("registered-models/get-latest-versions", name=asked.name, **stages)).get("model_versions") or []
        if not isinstance(listed, list):
            raise self.foreign()
        if not listed:
            raise ServingError(Kind.NOT_FOUND, f"model '{asked.name}' has no version in the stage '{asked.version}'", what="version")
        return max((text[:_DIGITS] for each in listed if (text := _text(each, "version"))), key=version_order, default="")

    async def _at(self, uri: str, leaf: str, steps: int) -> Source | Path:
        """The source that the registry names."""
        scheme = urlsplit(uri).scheme
        if is_model_uri(uri):
            if not steps:
                raise invalid("the registry leads from model to model", "source")
            return await self.source(uri, steps - 1)
        if scheme == "mlflow-artifacts":
            return _Served(self, urlsplit(uri).path.strip("/"), leaf_of(leaf))
        if scheme in ("http", "https"):
            below = uri.partition(f"{_ARTIFACTS}/")[2]
            return _Served(self, below.strip("/"), leaf_of(leaf)) if below else Web(uri, self.policy, pauses_s=self.pauses_s)
        if scheme == "file" or (not scheme and uri):
            return Path(urlsplit(uri).path)
        if not scheme:
            raise self.foreign()
        return Bucket(uri)

    async def _get(self, path: str, **query: str) -> dict[str, Any]:
        return await self.json(f"{_API}/{path}" + (f"?{urlencode(query)}" if query else ""))

    async def json(self, path: str) -> dict[str, Any]:
        """The object that the registry answers at a path. Raises UNAVAILABLE when it answers anything else, and as `fetch`."""
        policy = replace(self.policy, max_bytes=min(self.policy.max_bytes, _LARGEST_ANSWER))
        try:
            answer = await fetch(self.at(path), policy, headers=self.headers)
        except ServingError as error:
            if error.what == ACCESS:
                wanted = "it does not take the one in MLFLOW_TRACKING_TOKEN" if self.token else "set MLFLOW_TRACKING_TOKEN"
                raise invalid(f"the registry {shown(self.base)} asks for a key that may read its models: {wanted}", "source") from error
            raise
        try:
            found = json.loads(answer.data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self.foreign()
        return found

    def at(self, path: str) -> str:
        return f"{self.base.rstrip('/')}{path}"

    def foreign(self) -> ServingError:
        """The error about an answer that is none of MLflow's."""
        return ServingError(Kind.UNAVAILABLE, f"{shown(self.base)} does not answer as an MLflow registry does")

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else EMPTY


@dataclass(frozen=True)
class _Served:
    """A folder that an MLflow server keeps."""

    registry: Mlflow
    path: str
    leaf: str

    async def bring(self, folder: Path, known: Mapping[str, str], progress: Progress) -> dict[str, str] | None:
        sizes = await self._listed()
        if not sizes:
            raise ServingError(Kind.NOT_FOUND, f"the registry has no files of '{self.leaf}'", what="source")
        await asyncio.to_thread(only, folder, sizes)
        done, whole = 0, sum(sizes.values())
        state = State(folder)
        for path, size in sizes.items():
            target = confine(folder, path, f"a file of '{self.leaf}' in the registry")
            whole_one = Have(size, self.path)  # of the version that it was brought for: an alias may have moved since
            if state.have(path) != whole_one or not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                await download(
                    self.registry.at(f"{_ARTIFACTS}/{quote(f'{self.path}/{path}')}"),
                    target,
                    self.registry.policy,
                    have=Have(),
                    headers=self.registry.headers,
                    progress=partial(beyond, progress, done, whole),
                )
                state.keep(path, Have(target.stat().st_size, self.path))
            done += size
        return dict.fromkeys(sizes, "")

    async def _listed(self) -> dict[str, int]:
        """Every file below, relative to the model's folder, with its size."""
        sizes: dict[str, int] = {}
        folders = [""]
        for below in folders:  # which grows on the way
            path = f"{self.path}/{below}".rstrip("/")
            listed = (await self.registry.json(f"{_ARTIFACTS}?{urlencode({'path': path})}")).get("files") or []
            if not isinstance(listed, list):
                raise self.registry.foreign()
            for each in listed:
                name = _text(each, "path").rstrip("/").rpartition("/")[2]
                if not name:
                    raise self.registry.foreign()
                if each.get("is_dir"):
                    folders.append(f"{below}{name}/")
                else:
                    sizes[f"{below}{name}"] = self._size(each.get("file_size") or 0)
            if max(len(sizes), len(folders)) > MOST_FILES:
                raise invalid(f"'{self.leaf}' has more than {MOST_FILES} files in the registry; is it a model?", "source")
            if below.count("/") > _DEEPEST:
                raise invalid(f"the files of '{self.leaf}' in the registry lie too deep", "source")
        return sizes

    def _size(self, value: object) -> int:
        """Bytes, as a number or, as protocol buffers have it, as a text."""
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
            return int(value)
        if isinstance(value, int) and value >= 0:
            return value
        raise self.registry.foreign()


def _text(found: Any, *path: str) -> str:
    """The text at the end of a path through objects, "" where there is none. A number is its digits."""
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return str(found) if isinstance(found, str | int) else ""
