"""Targets that are no path: names in the model store, `models:/` URIs, and URIs of other places. Made by the worker from its settings.

Two clients fetch: for the operator's own words on the command line every host may be asked, for what requests name only those that
--allow-fetch opens (and the public internet).
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from dragoman.server.settings import Settings
from dragoman.serving.artifacts import FOLDER, Artifacts, Progress, RegistryAddress, name_of
from dragoman.serving.catalog import Catalog
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.late_store import LateStore
from dragoman.serving.library.library import Stored
from dragoman.serving.library.opening import lookup
from dragoman.serving.model_uris import is_model_uri
from dragoman.serving.roots import Roots
from dragoman.serving.targets import Elsewhere
from dragoman.store import Store

_LARGEST = 1 << 40
"""Bytes of one file that is fetched: the disk is full before."""
_PAUSE_S = 60.0
"""That a server may take between two pieces."""
_EVERY_S = 1.0
_MB = 1e6


def artifacts_for_targets(settings: Settings, progress: Callable[[str], None]) -> Artifacts:
    """What fetches for the command line."""
    policy = FetchPolicy.parse(["0.0.0.0/0", "::/0"], max_bytes=_LARGEST, timeout_s=_PAUSE_S)
    return Artifacts(settings.data_path / FOLDER, policy, registry_of(settings), lines(progress))


def artifacts_for_requests(settings: Settings, roots: Roots) -> Artifacts:
    """What fetches for sources of registered versions: guarded, and files of this machine only below a model root."""
    policy = replace(FetchPolicy.parse(settings.allow_fetch), max_bytes=_LARGEST, timeout_s=_PAUSE_S)
    return Artifacts(settings.data_path / FOLDER, policy, registry_of(settings), local=lambda path: roots.resolve(str(path)))


def registry_of(settings: Settings) -> RegistryAddress:
    """The MLflow registry that `models:/` URIs mean: the setting, else what MLflow's own variables say."""
    variables = (settings.mlflow_registry, os.environ.get("MLFLOW_REGISTRY_URI", ""), os.environ.get("MLFLOW_TRACKING_URI", ""))
    base = next((text for text in variables if text.startswith(("http://", "https://"))), "")
    return RegistryAddress(base, os.environ.get("MLFLOW_TRACKING_TOKEN", ""))


def elsewhere(settings: Settings, roots: Roots, opener: Callable[[], Awaitable[Store]], progress: Callable[[str], None]) -> Elsewhere:
    """For threads without a loop."""
    artifacts = artifacts_for_targets(settings, progress)
    by_name = lookup(settings.place)

    async def registered(uri: str) -> Stored:
        store = LateStore(opener)
        try:
            version = await Catalog(store, roots, settings.data_path).resolve(uri)
        finally:
            await store.close()
        return Stored(version.model, "", (), version, settings.data_path.absolute() / version.folder)

    def stored(text: str) -> Stored:
        return asyncio.run(registered(text)) if is_model_uri(text) else by_name(text)

    return Elsewhere(stored, lambda uri: asyncio.run(artifacts.fetch(uri)), registry=bool(artifacts.registry.base))


def lines(progress: Callable[[str], None]) -> Progress:
    """A line a second at most."""
    last: dict[str, float] = {}

    def told(uri: str, done: int, whole: int) -> None:
        now = time.monotonic()
        if now - last.get(uri, -_EVERY_S) >= _EVERY_S or done == whole:
            last[uri] = now
            progress(f"{name_of(uri)}: fetching {uri}, {done / _MB:.1f} MB" + (f" of {whole / _MB:.1f}" if whole else ""))

    return told
