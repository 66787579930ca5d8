"""Settings that clients change while the server runs (logging, tracing), common to all workers. Read and changed by their sections.

One small JSON file in the server's own directory, replaced whole under a lock; every worker looks once a second whether it changed.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

try:
    import fcntl
except ImportError:  # this platform has one worker, and nobody to lock out
    fcntl = None  # type: ignore[assignment] # the name is a module or nothing

from dragoman.core.disk import write_whole

log = logging.getLogger("dragoman")

Section: TypeAlias = Mapping[str, Any]


class LiveSettings:
    """`directory` is the server's own and the same for all its workers; None keeps the settings to this process."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._content: dict[str, Section] = {}
        self._stamp = 0
        self._appliers: dict[str, Callable[[Section], None]] = {}

    def join(self, section: str, apply: Callable[[Section], None]) -> None:
        """Take part: `apply` is called now, and whenever this worker or another one changes the section."""
        self._appliers[section] = apply
        self.refresh()
        apply(self._content.get(section, {}))

    def refresh(self) -> None:
        """Apply what other workers changed since the last look. Costs one stat when nothing did."""
        if self._directory is None:
            return
        try:
            stamp = (self._directory / "settings.json").stat().st_mtime_ns
        except FileNotFoundError:
            return
        if stamp != self._stamp:
            self._stamp = stamp
            self._take(self._read())

    def update(self, section: str, change: Callable[[Section], Section]) -> None:
        """Replace a section by what `change` makes of it, in all workers; nothing changes when that raises."""
        with self._locked():
            content = self._read()
            altered = {**content, section: change(content.get(section, {}))}
            if altered == content:
                return
            self._write(altered)
        self._take(altered)

    def _take(self, content: dict[str, Section]) -> None:
        before, self._content = self._content, content
        for section, apply in self._appliers.items():
            if content.get(section, {}) != before.get(section, {}):
                apply(content.get(section, {}))

    def _read(self) -> dict[str, Section]:
        if self._directory is None:
            return self._content
        try:
            content = json.loads((self._directory / "settings.json").read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("the settings that workers share cannot be read: %s", error)
            return self._content
        return {name: section for name, section in content.items() if isinstance(section, dict)} if isinstance(content, dict) else {}

    def _write(self, content: dict[str, Section]) -> None:
        if self._directory is None:
            return
        path = self._directory / "settings.json"
        # Two changes within one tick of the file system's clock must not look like one.
        changed_ns = time.time_ns()
        with contextlib.suppress(FileNotFoundError):
            changed_ns = max(changed_ns, path.stat().st_mtime_ns + 1)
        write_whole(path, json.dumps(content), changed_ns=changed_ns)
        self._stamp = path.stat().st_mtime_ns

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One worker at a time reads, changes and writes. The lock goes with its holder, also when that is killed."""
        if self._directory is None or fcntl is None:
            yield
            return
        descriptor = os.open(self._directory / "settings.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def shown(value: Any) -> str:
    """A value that came from outside, for an error message."""
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists in lists
        return f"a very large {type(value).__name__}"
