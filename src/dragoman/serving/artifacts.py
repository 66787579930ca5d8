"""Models from elsewhere: `s3://`, `gs://`, `az://`, `https://` and `models:/` are fetched once into a cache below the data directory.

Called by the repository for targets of the command line, and by the catalog for sources of registered versions. Contents are kept by their
digest, so that two names of the same files are one folder; what was fetched is usable when the place it came from cannot be reached.
"""

import asyncio
import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.core.disk import write_whole
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.engines.locks import FileLock
from dragoman.serving.artifact_sources import PAUSES_S, Bucket, Source, Web
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.library.archives import digest_of_file
from dragoman.serving.library.packing import File, digest_of, files_of, manifest, recorded
from dragoman.serving.library.remotes import without_secrets
from dragoman.serving.mlflow_registries import Mlflow
from dragoman.serving.model_uris import is_model_uri, parse_uri
from dragoman.serving.paths import private_folder
from dragoman.serving.unpacking import bare, is_archive, unpack

log = logging.getLogger("dragoman.models")

FOLDER = "cache"
"""In the data directory."""
_REMOTE = re.compile(r"(?:https?|s3|s3a|gs|az|azure|adl|abfs|abfss)://.|models:/+[^/]", re.IGNORECASE)
_CHECKSUM = re.compile(r"(?P<url>[^#]+)#sha256=(?P<sha256>[0-9a-fA-F]{64})")
_AWAY = frozenset({Kind.UNAVAILABLE, Kind.TIMEOUT})

Progress = Callable[[str, int, int], None]
"""The URI as it may be shown, bytes so far, all of them (0: unknown)."""


def is_remote(text: str) -> bool:
    """Whether a target or source is to be fetched, and is no path."""
    return _REMOTE.match(text) is not None


def name_of(uri: str) -> str:
    """What a model at a URI is called when nobody says: the last part of its path, or its name in the registry."""
    plain = without_secrets(_unpinned(uri)[0]).partition("#")[0].rstrip("/")
    if is_model_uri(plain):
        return re.split(r"[/@]", plain.partition(":")[2].lstrip("/"))[0]  # fetching says what is wrong with the rest
    leaf = bare(plain.partition("://")[2].rpartition("/")[2])
    return re.sub(r"\.(onnx|skops|ubj|json|txt|pt2?|pkl|joblib)$", "", leaf)


@dataclass(frozen=True)
class RegistryAddress:
    """Where an MLflow registry is, and the key it asks for."""

    base: str = ""
    token: str = ""


@dataclass(frozen=True)
class Artifacts:
    """`root` is a folder in the data directory. `policy` says which hosts may be asked: guarded for what requests name. `local` turns a path
    on this machine, which an MLflow registry may answer, into one that may be used, or raises."""

    root: Path
    policy: FetchPolicy
    registry: RegistryAddress = RegistryAddress()
    progress: Progress = lambda uri, done, whole: None
    local: Callable[[Path], Path] = lambda path: path
    pauses_s: Sequence[float] = PAUSES_S

    async def fetch(self, uri: str) -> Path:
        """The folder or file of the model at a URI, fetched unless it is here; `URL#sha256=HEX` of one file is checked.

        A URI whose content may change is asked for news each time; when its place cannot be reached, what is here is used. Raises
        INVALID_INPUT for what is no such URI, NOT_FOUND, UNAVAILABLE and what the source raises.
        """
        url, checksum = _unpinned(uri)
        if not is_remote(url):
            raise invalid(f"'{without_secrets(uri)}' is no place that models are fetched from", "source")
        try:
            await asyncio.to_thread(private_folder, self.root)
            key = hashlib.sha256(uri.encode("utf-8", "replace")).hexdigest()[:24]
            with await FileLock.wait(self.root / f"{key}.lock"):
                return await self._current(uri, url, key, checksum)
        except OSError as error:
            message = f"what {without_secrets(uri)} holds cannot be kept here: {error.strerror or error}"
            raise ServingError(Kind.UNAVAILABLE, message) from error

    async def _current(self, uri: str, url: str, key: str, checksum: str) -> Path:
        """What is here, if that will do, else fetched; called with the lock on this URI."""
        known = await asyncio.to_thread(self._known, key)
        if known is not None and (checksum or (is_model_uri(url) and parse_uri(url).pinned)):
            return known.path
        try:
            source = await self._source(url)
            if isinstance(source, Path):
                return await asyncio.to_thread(self.local, source)
            return await self._fetched(source, uri, key, checksum, known)
        except ServingError as error:
            if known is None or error.kind not in _AWAY:
                raise
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(known.fetched))
            log.warning("%s; what was fetched on %s is used", error.message, when)
            return known.path

    async def _fetched(self, source: Source, uri: str, key: str, checksum: str, known: "_Known | None") -> Path:
        partial = self.root / "partial" / key
        await asyncio.to_thread(private_folder, partial)
        shown = without_secrets(uri)
        before = known.validators if known is not None else {}
        validators = await source.bring(partial, before, lambda done, whole: self.progress(shown, done, whole))
        if validators is None and known is not None:
            return known.path
        return await asyncio.to_thread(self._kept, partial, source.leaf, uri, key, checksum, validators or {})

    async def _source(self, url: str) -> "Source | Path":
        if url.lower().startswith(("http://", "https://")):
            return Web(url, self.policy, pauses_s=self.pauses_s)
        if not is_model_uri(url):
            return Bucket(url)
        if not self.registry.base:
            raise invalid(
                f"'{url}' names a model in an MLflow registry, and none is known: set MLFLOW_REGISTRY_URI or --mlflow-registry", "source"
            )
        return await Mlflow(self.registry.base, self.policy, self.registry.token, self.pauses_s).source(url)

    # --- on the disk, in threads ---

    def _kept(self, partial: Path, leaf: str, uri: str, key: str, checksum: str, validators: Mapping[str, str]) -> Path:
        """Move what was brought to its place by content, and write down where that is."""
        single = partial / leaf
        state = partial.with_name(f"{partial.name}.state.json")
        if checksum and list(validators) != [leaf]:
            raise invalid(f"{without_secrets(uri)} holds several files, and a checksum is that of one", "source")
        if checksum and digest_of_file(single) != checksum:
            shutil.rmtree(partial)
            state.unlink(missing_ok=True)
            raise invalid(f"{without_secrets(uri)} does not hold what its checksum says", "source")
        place = partial
        if list(validators) == [leaf] and is_archive(leaf):
            place = partial.with_name(f"{partial.name}.unpacked")
            shutil.rmtree(place, ignore_errors=True)
            unpack(single, place)
            leaf = bare(leaf) or "model"
        files = recorded(place)
        digest = digest_of("fetched", {}, files)
        alone = len(files) == 1 and files[0].path == leaf and place == partial
        folder = self.root / "content" / digest[:24]
        target = folder if alone else folder / leaf
        if not _whole(target, files):
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.rename(target)
        record = {
            "uri": without_secrets(uri),
            "path": str((target / leaf if alone else target).relative_to(self.root)),
            "folder": str(target.relative_to(self.root)),
            "digest": digest,
            "validators": dict(validators),
            "fetched": time.time(),
            "manifest": manifest(files),
        }
        write_whole(self.root / f"{key}.json", json.dumps(record, indent=1))
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(partial.with_name(f"{partial.name}.unpacked"), ignore_errors=True)
        state.unlink(missing_ok=True)
        return self.root / str(record["path"])

    def _known(self, key: str) -> "_Known | None":
        """What was fetched before, if all of it is still there."""
        try:
            record: Any = json.loads((self.root / f"{key}.json").read_text("utf-8"))
            files = files_of(record["manifest"])
            if not _whole(self.root / str(record["folder"]), files):
                return None
            return _Known(self.root / str(record["path"]), dict(record["validators"]), float(record["fetched"]))
        except (OSError, ValueError, TypeError, KeyError, ServingError):
            return None


@dataclass(frozen=True)
class _Known:
    path: Path
    validators: dict[str, str]
    fetched: float


def _whole(folder: Path, files: tuple[File, ...]) -> bool:
    """Whether every file is there with its size. Contents are checked when they are fetched, and nobody changes them here."""
    try:
        return folder.is_dir() and all((folder / file.path).stat().st_size == file.size for file in files)
    except OSError:
        return False


def _unpinned(uri: str) -> tuple[str, str]:
    """The URL and the checksum behind it, "" for none."""
    found = _CHECKSUM.fullmatch(uri)
    return (found["url"], found["sha256"].lower()) if found is not None else (uri, "")
