"""The name of a folder, made once by whoever is first: it tells this folder from every other one, also from a copy of its path elsewhere.

Owners of predictions and jobs have it in their records (owners.py, jobs/board.py), so that servers that share a store leave alone what is not
in their folders.
"""

import contextlib
import os
import re
import secrets
from pathlib import Path

from dragoman.core.disk import write_whole
from dragoman.serving.paths import private_folder

FILE = "place"
_NAME = re.compile(r"[0-9a-f]{32}\Z")


def read_place(folder: Path) -> str:
    """Its name, "" while it has none."""
    try:
        found = (folder / FILE).read_text("ascii", "replace").strip()
    except OSError:
        return ""
    return found if _NAME.match(found) else ""


def make_place(folder: Path) -> str:
    """The name that it has from now on; of several who ask at once all get the same. Blocks. Raises OSError."""
    private_folder(folder)
    path = folder / FILE
    while not (found := read_place(folder)):
        path.unlink(missing_ok=True)  # what is no name was damaged
        draft = folder / f"{FILE}.{secrets.token_hex(16)}"
        try:
            write_whole(draft, secrets.token_hex(16))
            os.link(draft, path)  # complete or not at all, and never over another's
        except FileExistsError:
            continue
        except OSError:  # a file system without links: whoever is last wins
            draft.replace(path)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()
    return found
