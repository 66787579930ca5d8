"""The file that says how a job has ended, and until then how far it has come: whoever finds the job killed knows what it has used. By inside.py."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Mapping

_SIZE = 4096
"""One page of spaces, which JSON allows around everything: what is written into it later needs no more room on the disk, and is written at once."""
_REASON = 2000


class Ending:
    """On this descriptor, of an empty file."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._write(b"")

    def progress(self, ran_s: float, calls: int) -> None:
        """What has been used so far. Cheap enough for every request."""
        self._write(b'{"ran_s": %.3f, "calls": %d}\n' % (ran_s, calls))

    def final(self, ending: Mapping[str, Any]) -> None:
        """The fields of core.jobs.End."""
        self._write(json.dumps({**ending, "reason": ending["reason"][:_REASON]}, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        with contextlib.suppress(OSError):
            os.fsync(self._target)

    def _write(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # the disk was full before: then who holds the gate hears it
            os.pwrite(self._target, text.ljust(_SIZE), 0)
