"""Who is alive: each worker holds a lock on a file of its own under the data directory, for as long as its process lives.

Predictions of a dead worker are taken over, and deploys do not wait for one, without waiting for leases. The kernel frees a lock when
its process dies, however it dies. Owners of another data directory, perhaps on another machine, are never judged: for them leases decide.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from dragoman.serving.place import make_place

_OWNER = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{32})\Z")


class Owner:
    """This process, as others know it (serving/predictions, members.py): `name` is unique for ever.

    Blocking, for some tens of microseconds. Close it last.
    """

    def __init__(self, folder: Path) -> None:
        """Raises OSError where the folder cannot be written."""
        self._folder = folder
        self._place = make_place(folder)
        self._own = uuid4().hex
        self._heard = 0
        self.name = f"{self._place}.{self._own}"
        draft = folder / f"{self._own}.new"
        self._file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        draft.rename(self._path(self._own))  # it is never seen unlocked
        for path in folder.glob("*.lock"):  # of those that died without leaving anything to take over
            self._is_dead(f"{self._place}.{path.stem}")

    def dead(self, names: Iterable[str]) -> list[str]:
        """Which of these owners, of this folder, have no process any more. What they left behind here is removed."""
        return [name for name in names if name != self.name and self._is_dead(name)]

    def heard(self) -> bool:
        """Whether somebody has called `wake` for this owner since this was asked last. One system call, on an open file."""
        size = os.fstat(self._file).st_size
        called, self._heard = size != self._heard, size
        return called

    def close(self) -> None:
        """Give the name up: from now on others see this owner as dead."""
        self._path(self._own).unlink(missing_ok=True)
        os.close(self._file)

    def _is_dead(self, name: str) -> bool:
        parts = _OWNER.match(name)
        if parts is None or parts[1] != self._place:
            return False
        path = self._path(parts[2])
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            path.unlink(missing_ok=True)
            return True
        finally:
            os.close(file)

    def _path(self, own: str) -> Path:
        return self._folder / f"{own}.lock"


def wake(folder: Path, name: str) -> None:
    """Tell an owner to look into the store now, and not with its next beat. One that is elsewhere or gone does not hear it."""
    parts = _OWNER.match(name)
    if parts is not None:
        with contextlib.suppress(OSError):
            file = os.open(folder / f"{parts[2]}.lock", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(file, b".")  # the file grows: unlike a time of change, that cannot be missed
            finally:
                os.close(file)
