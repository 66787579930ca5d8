"""The processes of a job, as /proc tells: which there are, what memory they have, and how to be rid of all of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Collection, Iterator

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER"""
_DUMPABLE = 4
"""PR_SET_DUMPABLE"""
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
"""Numbers of a system call that the C library does not have."""
_JOIN_SESSION = 1
"""KEYCTL_JOIN_SESSION_KEYRING"""


def adopt_orphans() -> None:
    """Daemonised processes of the job become children of this one, as they are of a pid 1 anyway."""
    if os.getpid() != 1:
        _prctl(_SUBREAPER, 1)


def set_open(readable: bool) -> None:
    """Whether others of the same user may read this process's memory and take its descriptors. The program must not: it would rule itself."""
    _prctl(_DUMPABLE, 1 if readable else 0)


def leave_keyring() -> None:
    """Get an empty session keyring of the kernel's: who holds the one that was inherited may use the keys of whoever started the server."""
    number = _KEYCTL.get(os.uname().machine)
    if number is not None and sys.maxsize > 1 << 32:
        ctypes.CDLL(None, use_errno=True).syscall(number, _JOIN_SESSION, None)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def is_alone() -> bool:
    """Whether this is the first process of a pid namespace, with a /proc of that namespace: then all others are the job's."""
    return os.getpid() == 1 and os.readlink("/proc/self") == "1"


def told_from_outside(signals: Collection[int]) -> bool:
    """Whether one of these signals, which are blocked, has come from outside of this pid namespace.

    A program that sends one ends nothing: its job would be taken for one whose server has ended, and be started again.
    """
    while (told := signal.sigtimedwait(signals, 0)) is not None:
        if not told.si_pid:
            return True
    return False


def members() -> list[int]:
    """All living processes of the job but this one: those below it. Zombies do not count. Looks at every process that there is."""
    if is_alone():
        return [number for number in _numbers() if number != 1 and _state(number)[0] not in "ZX"]
    children: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    for number in _numbers():
        states[number], parent = _state(number)
        children.setdefault(parent, []).append(number)
    found, below = [], list(children.get(os.getpid(), ()))
    while below:
        number = below.pop()
        below += children.get(number, ())
        if states[number] not in "ZX":
            found.append(number)
    return found


def most() -> list[int]:
    """The same, cheaply where there are many others: one that is being started or has just lost its parent may be missing."""
    if is_alone() or not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return members()
    found, below = [], _children(os.getpid())
    while below:
        number = below.pop()
        below += _children(number)
        if _state(number)[0] not in "ZX":
            found.append(number)
    return found


def signal_all(number: int) -> None:
    """To every process of the job but this one."""
    if is_alone():
        _kill(-1, number)
        return
    for process in members():
        _kill(process, number)


def resident(processes: list[int]) -> int:
    """Bytes, what they share counted for each of them."""
    return sum(_resident(process) for process in processes) * _PAGE


def proportional(processes: list[int]) -> int:
    """Bytes, what they share counted once: exact, and dearer."""
    return sum(_proportional(process) for process in processes)


def reap() -> Iterator[tuple[int, int]]:
    """Process and exit code (negative: a signal) of every child that has ended."""
    while True:
        try:
            number, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not number:
            return
        yield number, -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _numbers() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _children(number: int) -> list[int]:
    found = []
    try:
        for thread in os.listdir(f"/proc/{number}/task"):
            with open(f"/proc/{number}/task/{thread}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
    except OSError:  # it is gone, or some of its threads are
        pass
    return found


def _state(number: int) -> tuple[str, int]:
    """State letter and parent; X for one that is gone."""
    try:
        with open(f"/proc/{number}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[1])
    except (OSError, IndexError):
        return "X", 0


def _resident(number: int) -> int:
    try:
        with open(f"/proc/{number}/statm", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return 0


def _proportional(number: int) -> int:
    try:
        with open(f"/proc/{number}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return _resident(number) * _PAGE


def _kill(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)
