"""Where models that are fetched come from: web servers and buckets. Each brings all files of one model into a folder.

Called by artifacts.py; registries, which lead to one of these or keep files themselves, are in mlflow_registries.py.
What a source has brought stays in its folder when it fails, and the next attempt asks only for the rest.
"""

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from dragoman.core.data_uris import bare_name
from dragoman.core.disk import write_whole
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY
from dragoman.serving.fetch import FetchPolicy, Have, download
from dragoman.serving.library.packing import MOST_FILES
from dragoman.serving.library.remotes import Part, told, tree_of, without_secrets
from dragoman.serving.paths import confine

log = logging.getLogger("dragoman.models")

Progress = Callable[[int, int], None]
"""Bytes so far, and all of them (0: unknown)."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Between attempts to go on with a download that breaks off; one that came further begins with the first again."""
_TRANSIENT = frozenset({Kind.UNAVAILABLE, Kind.TIMEOUT})
_STATE = ".state.json"
"""What of a folder is complete, and by what its server knows it."""


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
        return leaf_of(urlsplit(self.url).path)

    async def bring(self, folder: Path, known: Mapping[str, str], progress: Progress) -> dict[str, str] | None:
        state = State(folder)
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
        return leaf_of(urlsplit(self.url).path.rstrip("/") or urlsplit(self.url).netloc)

    async def bring(self, folder: Path, known: Mapping[str, str], progress: Progress) -> dict[str, str] | None:
        stopped = threading.Event()
        try:
            return await asyncio.to_thread(self._bring, folder, known, progress, stopped)
        except ServingError as error:
            if error.__cause__ is None or error.kind is not Kind.UNAVAILABLE:
                raise
            # The library's words name endpoints and roles, which are nothing for whoever sent a URI.
            log.warning("%s", error.message)
            raise ServingError(
                Kind.UNAVAILABLE, f"{without_secrets(self.url)} cannot be reached or read; the server's log says why"
            ) from error
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
            only(folder, found)
            state, whole, done = State(folder), sum(part.size for part in parts), 0
            for part in parts:
                target = confine(folder, part.path, f"an object of {without_secrets(self.url)}")
                target.parent.mkdir(parents=True, exist_ok=True)
                have = state.have(part.path)
                place = have.size if have.validator == part.tag and part.tag else 0
                self._one(tree.pieces(part, place), part, target, place, state, stopped, partial(beyond, progress, done, whole))
                done += part.size
            return found

    def _one(self, pieces: Any, part: Part, target: Path, place: int, state: "State", stopped: threading.Event, progress: Progress) -> None:
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


def only(folder: Path, paths: Container[str]) -> None:
    """Remove the files of an attempt before that are not part of the model any more."""
    for path in folder.rglob("*"):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in paths:
            path.unlink()


def leaf_of(text: str) -> str:
    """What a file or folder is called here that is called so elsewhere: one part of a path, and never '..'."""
    return bare_name(text) or "model"


def beyond(progress: Progress, before: int, whole: int, more: int, _: int) -> None:
    """Progress with one file of several, of which `before` bytes are there."""
    progress(before + more, whole)


class State:
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
        write_whole(self._path, json.dumps({path: [each.size, each.validator] for path, each in self._files.items()}))
