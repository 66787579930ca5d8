"""Processes of this machine that may be nobody's children: which one has a number, when it ends, and what is left of a job. Linux only.

Called by started.py. Elsewhere than on Linux numbers cannot be told apart, so nothing is adopted there and nothing looked for.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

_LOOK_S = 0.05
JOB = "DRAGOMAN_JOB"
"""In the environment of every process of a job: its id."""


def born(pid: int) -> int:
    """When the process with this number started, in ticks since the machine did; 0 when there is none or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    state, *fields = stat.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(fields[18])


def boot() -> str:
    """Names this run of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def kill(pid: int, birth: int) -> None:
    """End the process with this number, if it is still the one that was born then."""
    if birth and born(pid) == birth:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


async def gone(pid: int, birth: int) -> None:
    """Wait until a process is no more, or only its exit code."""
    if not birth:
        return
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.pidfd_open(pid)
        try:
            if born(pid) == birth:
                await _readable(descriptor)
        finally:
            os.close(descriptor)
    while born(pid) == birth:  # noqa: ASYNC110 # of a process that is not ours the kernel tells nobody here
        await asyncio.sleep(_LOOK_S)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


def sweep(job: str) -> int:
    """Kill whatever has this job in its environment; returns how many. For jobs without a pid namespace whose first process was killed."""
    marker = f"{JOB}={job}".encode()
    killed = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marker in (folder / "environ").read_bytes().split(b"\0") and born(pid := int(folder.name)):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed
