"""A bar on the terminal while something is packed, sent or fetched. Nothing is drawn where standard error is no terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WIDTH = 32
_EVERY_S = 0.1


class Progress:
    """How much of a whole is done. Cheap to tell often: it draws ten times a second."""

    def __init__(self, label: str, whole: int) -> None:
        self._label = label
        self._whole = whole
        self._done = 0
        self._drawn = 0.0
        self._terminal = sys.stderr.isatty()

    def add(self, count: int) -> None:
        self._done += count
        if self._terminal and time.monotonic() - self._drawn >= _EVERY_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        share = min(1.0, self._done / self._whole) if self._whole else 0.0
        bar = "=" * round(share * _WIDTH)
        figures = f"{size(self._done)} of {size(self._whole)}" if self._whole else size(self._done)
        sys.stderr.write(f"\r\x1b[K{self._label} [{bar:<{_WIDTH}}] {figures}")
        sys.stderr.flush()

    def end(self) -> None:
        if self._terminal:
            self._draw()
            sys.stderr.write("\n")
            sys.stderr.flush()


@contextmanager
def progress(label: str, whole: int = 0, done: int = 0) -> Iterator[Progress]:
    """A bar for `whole` bytes (0: nobody knows), of which some are there already; the line stays, with what it came to."""
    bar = Progress(label, whole)
    bar.add(done)
    try:
        yield bar
    finally:
        bar.end()


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
