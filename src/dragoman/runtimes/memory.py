"""Give a closed model's memory back to the operating system. Called by every runtime's close, after it has dropped its references."""

import ctypes
import gc
import sys
from collections.abc import Callable


def _find_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # a C library other than glibc
        return None
    trim.argtypes = [ctypes.c_size_t]
    trim.restype = ctypes.c_int
    return lambda pad: int(trim(pad))


_trim = _find_trim()


def release(*, cycles: bool = False) -> None:
    """Return freed memory to the system; blocks for milliseconds.

    glibc keeps freed blocks of every size below its growing mmap threshold, so that without the trim a server that swaps models only grows.
    `cycles` runs the garbage collector first, for frameworks whose objects refer to each other; it stops every Python thread meanwhile.
    """
    if cycles:
        gc.collect()
    if _trim is not None:
        _trim(0)
