"""What the program prints: from one pipe into the job's log, up to a size, and its last words for the reason why it ended."""

from __future__ import annotations

import os
import re
import time

_PIECE = 65536
_TAIL = 8192
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Failure)\b")


class Log:
    """Keeps the beginning: who follows a log has been shown it already."""

    def __init__(self, target: int, size: int) -> None:
        self._target = target
        self._left = max(0, size - os.fstat(target).st_size) if size else -1
        self._cut = False
        self._tail = b""
        self._at_start = True

    def follow(self, source: int, limit: int = 1 << 20) -> bool:
        """Takes what is there, about `limit` bytes at most. False: nobody can write into it any more."""
        while limit > 0:
            try:
                piece = os.read(source, _PIECE)
            except BlockingIOError:
                return True
            if not piece:
                return False
            limit -= len(piece)
            self._tail = (self._tail + piece)[-_TAIL:]
            self._keep(piece)
        return True

    def say(self, text: str) -> None:
        """A line of ours, with the time as the server's own lines have it; kept whatever the size is."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC  ", time.gmtime())
        self._write((b"" if self._at_start else b"\n") + (stamp + text).encode("utf-8", "replace") + b"\n")

    def last_error(self) -> str:
        """The line that names an exception, when the program's last words do; else nothing."""
        for line in reversed(self._tail.decode("utf-8", "replace").splitlines()):
            if line.strip():
                return line.strip()[:500] if _ERROR.match(line) else ""
        return ""

    def _keep(self, piece: bytes) -> None:
        if self._cut:
            return
        if self._left >= 0:
            if len(piece) > self._left:
                self._write(piece[: self._left])
                self._cut = True
                self.say("The log is full: what the program prints from here on is not kept.")
                return
            self._left -= len(piece)
        self._write(piece)

    def _write(self, piece: bytes) -> None:
        if not piece:
            return
        self._at_start = piece.endswith(b"\n")
        try:
            while piece:
                piece = piece[os.write(self._target, piece) :]
        except OSError:  # the disk is full: the program goes on without a log
            return
