"""Where the content of files is laid down when a model asks for their path: private temporary folders outside of the model's own.

One folder lives as long as the process; while a batch is predicted, a folder of its own takes its place and is removed after it.
"""

import atexit
import os
import re
import shutil
import tempfile
import uuid
from pathlib import Path

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class Scratch:
    """A folder that is made when the first file needs it. `cleared` says that its files are gone."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._owner = os.getpid()
        self.cleared = False
        atexit.register(self.clear)

    def place(self, stem: str, suffix: str) -> Path:
        """A path that nothing else has, with this suffix; `stem` is kept as far as it is harmless."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="dragoman-"))
        name = _UNSAFE.sub("", stem)[:40]
        ending = suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,16}", suffix) else ""
        return self._folder / f"{name + '-' if name else ''}{uuid.uuid4().hex}{ending}"

    def clear(self) -> None:
        """Remove the folder with all that is in it, also what the model put there. Errors are no reason to fail a prediction."""
        if os.getpid() != self._owner:
            return  # a child that a model forked must not remove its parent's files when it ends
        self.cleared = True
        atexit.unregister(self.clear)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


_lasting = Scratch()
_current = _lasting


def current() -> Scratch:
    """Where a file goes now."""
    return _current


def begin() -> Scratch:
    """From now on files are a batch's own. Only one batch runs at a time."""
    global _current  # files are made anywhere in a model's code and cannot be told where they belong
    _current = Scratch()
    return _current


def end(scratch: Scratch) -> None:
    """Remove a batch's files. Ending twice does no harm."""
    global _current
    scratch.clear()
    if _current is scratch:
        _current = _lasting
