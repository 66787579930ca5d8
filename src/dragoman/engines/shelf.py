"""Virtualenvs on the disk: which are complete, who uses them, and how they go. Used by environment.py only; it builds nothing.

Under the root: `HASH.json` names the directory that is complete (written last, so what has none is not), `HASH-xxxxxxxx/` is a virtualenv
(they cannot be moved, so each build has a place of its own; with `.tmp` what its builder writes besides), `HASH.failed` is why the last build
failed, and `locks/HASH.build` and `locks/HASH.use` keep builders, users and removers apart.
"""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.core.disk import write_whole
from dragoman.engines.locks import FileLock
from dragoman.engines.removal import remove_tree

_ENTRY = re.compile(r"([0-9a-f]{20})(?:-[0-9a-f]{8}(?:\.tmp)?|\.json|\.failed)\Z")


@dataclass(frozen=True, slots=True)
class Installed:
    """One environment that is ready. Times are seconds since 1970."""

    hash: str
    python: str
    packages: tuple[str, ...]
    size_bytes: int
    created: float
    last_used: float
    in_use: bool


class Shelf:
    """The files of all environments under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folders; what is in them is nobody else's business, since an index may need a password."""
        for folder in reversed(self.root.parents):  # `parents=True` alone would open those to everybody
            with contextlib.suppress(OSError):
                folder.mkdir(mode=0o700)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.root / "locks").mkdir(mode=0o700, exist_ok=True)

    def used(self, key: str) -> Path:
        """The lock of users, shared; builders are users. Its time is when the environment was used last."""
        return self.root / "locks" / f"{key}.use"

    def building(self, key: str) -> Path:
        """The lock of the one that builds."""
        return self.root / "locks" / f"{key}.build"

    @contextmanager
    def alone(self, key: str) -> Iterator[bool]:
        """Whether nobody uses or builds it; then nobody begins to within the block."""
        self.prepare()
        lock = FileLock.attempt(self.used(key))
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.close()

    def hashes(self) -> list[str]:
        """Of everything that is there, complete or not."""
        names = [path.name for path in self.root.iterdir()] if self.root.is_dir() else []
        return sorted({m[1] for m in map(_ENTRY.match, names) if m})

    def new_directory(self, key: str) -> Path:
        """Where the next build may put its virtualenv."""
        return self.root / f"{key}-{secrets.token_hex(4)}"

    def ready(self, key: str) -> Path | None:
        """The interpreter of an environment that is complete and whose Python is still there."""
        name = self._named(key)
        python = self.root / name / "bin" / "python"
        return python if name and os.access(python, os.X_OK) else None

    def complete(self, key: str, directory: Path, facts: Mapping[str, Any]) -> None:
        """From here on this directory is the environment."""
        write_whole(self.root / f"{key}.json", json.dumps({"directory": directory.name, **facts}), flush=True)

    def note_failure(self, key: str, facts: Mapping[str, Any]) -> None:
        write_whole(self.root / f"{key}.failed", json.dumps(facts), flush=True)

    def failure(self, key: str) -> dict[str, Any]:
        """What was noted, empty without a failure since the last build."""
        return _read(self.root / f"{key}.failed")

    def installed(self, key: str) -> Installed:
        """All about an environment that is ready."""
        marker = _read(self.root / f"{key}.json")
        with self.alone(key) as alone:
            return Installed(
                hash=key,
                python=str(marker.get("python", "")),
                packages=tuple(map(str, marker.get("packages", ()))),
                size_bytes=_size(self.root / self._named(key)),
                created=float(marker.get("created", 0)),
                last_used=self.used(key).stat().st_mtime,
                in_use=not alone,
            )

    def erase(self, key: str) -> None:
        """Remove all of an environment. The marker goes first: half a directory is never ready."""
        for suffix in ("json", "failed"):
            (self.root / f"{key}.{suffix}").unlink(missing_ok=True)
        self.tidy(key)

    def tidy(self, key: str) -> None:
        """Remove the directories that are not the environment: what is left of builders that were killed."""
        named = self._named(key)
        for path in self.root.glob(f"{key}-*"):
            if path.name != named and _ENTRY.match(path.name):
                remove_tree(path)

    def _named(self, key: str) -> str:
        """The directory that is the environment, "" without one."""
        name = str(_read(self.root / f"{key}.json").get("directory", ""))
        match = _ENTRY.match(name)
        return name if match and match[1] == key else ""


def _read(path: Path) -> dict[str, Any]:
    """A JSON object of ours; an empty one for what is missing or broken."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _size(directory: Path) -> int:
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(directory) for name in names)
