"""Removing folders that programs of others have filled: those of jobs, and virtualenvs that packages' own code has been built in.

Called by serving/jobs and by environment.py, when no process of such a program is left.
"""

import contextlib
import itertools
import os
import secrets
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove a folder that somebody's program has filled, as far as that goes: however deep, and whatever it forbids. No link is followed. Blocks.

    Python's own way ends in a RecursionError below about a thousand folders, and at folders that their owner may not read.
    """
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700)
    token, waiting = secrets.token_hex(8), [folder]
    for count in itertools.count():
        if not waiting:
            break
        at = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(at) as entries:
            for entry in list(entries):
                with contextlib.suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)
                        continue
                    os.chmod(entry.path, 0o700)
                    flat = folder / f"{token}-{count}-{len(waiting)}"  # so that no path grows longer than the system takes
                    os.rename(entry.path, flat)
                    waiting.append(flat)
        if at != folder:
            with contextlib.suppress(OSError):
                os.rmdir(at)
    with contextlib.suppress(OSError):
        os.rmdir(folder)
