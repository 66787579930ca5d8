"""The log of a job, as far as the server writes it: lines in front of the program's own output, and the last ones. The rest, its inside appends.

The words of the last line are FloydHub's: its client follows a log until it has seen one of them.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from dragoman.core.jobs import Phase

LOG = "log"
"""Its name in a job's folder."""

LAST_LINES: Mapping[Phase, str] = {
    Phase.SUCCESS: "[success] Finished execution",
    Phase.FAILED: "[failed] Task execution failed",
    Phase.SHUTDOWN: "[shutdown] Task execution cancelled",
    Phase.TIMEOUT: "[timeout] Task execution cancelled",
}


def say(folder: Path, text: str, *, mode: int = 0o600) -> None:
    """Append lines of the server's own, each with the time in UTC. Blocks for some tens of microseconds. Raises OSError.

    The end of the line before is seen to: a program may have ended in the middle of one.
    """
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    lines = "".join(f"{stamp} UTC  {line}\n" for line in text.splitlines() or [""])
    descriptor = os.open(folder / LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
    try:
        size = os.fstat(descriptor).st_size
        broken = size and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (("\n" if broken else "") + lines).encode("utf-8", "replace"))
    finally:
        os.close(descriptor)


def read(folder: Path) -> str:
    """All of it, "" before there is any. Blocks; what is no UTF-8 is replaced."""
    try:
        return (folder / LOG).read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
