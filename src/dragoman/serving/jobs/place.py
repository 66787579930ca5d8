"""The name of a data directory, made with its first job: servers that share a store leave the jobs of other places alone. Read by board.py."""

import contextlib
import secrets
from pathlib import Path

from dragoman.serving.paths import private_folder

FILE = "place"


def read(folder: Path) -> str:
    """ "" where there never was a job."""
    try:
        return (folder / FILE).read_text().strip()
    except OSError:
        return ""


def make(folder: Path) -> str:
    """The name that it has from now on; of several who ask at once all get the same. Raises OSError."""
    found = read(folder)
    if not found:
        private_folder(folder)
        draft = folder / f".{FILE}-{secrets.token_hex(8)}"
        draft.write_text(secrets.token_hex(16))
        with contextlib.suppress(FileExistsError):
            (folder / FILE).hardlink_to(draft)
        draft.unlink()
        found = read(folder)
    return found
