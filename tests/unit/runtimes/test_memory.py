"""Closed models give their memory back to the system."""

import gc
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from dragoman.runtimes import memory
from tests.models import build
from tests.models.calls import load


def resident_megabytes() -> int:
    """What the process holds in memory, as the system counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    raise AssertionError("the system does not say")


class Knot:
    """Refers to itself, so that counting references never frees it."""

    def __init__(self) -> None:
        self.self = self


def test_cycles_are_collected_on_request_only() -> None:
    """The garbage collector runs when a framework needs it, and not otherwise."""
    gc.collect()
    gc.disable()
    try:
        watched = weakref.ref(knot := Knot())
        del knot
        memory.release()
        assert watched() is not None
        memory.release(cycles=True)
        assert watched() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory by the proc file system")
def test_freed_blocks_go_back() -> None:
    """Many small blocks, which glibc would keep for later, leave the process."""
    blocks = [np.empty(4096, np.uint8) for _ in range(20_000)]
    for block in blocks:
        block[:] = 1
    keep = blocks[::1000]
    full = resident_megabytes()
    del blocks, block
    memory.release()
    assert resident_megabytes() < full - 40
    assert len(keep) == 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory by the proc file system")
def test_models_come_and_go(tmp_path: Path) -> None:
    """Loading and closing a model of 32 MB again and again ends where it began."""
    path = build.large(tmp_path / "large.onnx", 32)
    load("onnx", path).close()
    before = resident_megabytes()
    for _ in range(4):
        load("onnx", path).close()
    assert resident_megabytes() < before + 16
