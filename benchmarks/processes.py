"""Servers as process trees: start one in a session of its own, read what it has used, end it by its ids. Used by every section.

Linux only: figures come from /proc.
"""

import contextlib
import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

ROOT = Path(__file__).resolve().parents[1]
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LISTENING = "0A"
"""In /proc/net/tcp."""
_GRACE_S = 15.0
_POLL_S = 0.002
_SETTLE_S = 10.0
_LOOK_S = 0.2
_AT_REST = 0.15
"""Of one core. A process of which the clock sees two ticks while we look is still at rest."""


class BenchmarkError(Exception):
    """A measurement that cannot be made; the message is for whoever runs the benchmarks."""


def free_port(count: int = 1) -> int:
    """The first of `count` ports in a row that nobody uses at the moment: some peers also take the ones above."""
    for _ in range(100):
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            try:
                for above in range(first + 1, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", above)))
            except OSError:
                continue
            return int(first)
    raise BenchmarkError("no free ports")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for our own commands: this tree importable from any folder, and nobody's settings of Dragoman or Python."""
    paths = [str(ROOT), str(ROOT / "src"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRAGOMAN_", "PYTHON"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in paths), **(extra or {})}


class Processes:
    """A command and every process that descends from it. A context manager: the whole tree is gone afterwards."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path = ROOT) -> None:
        self._log = log
        self._output: IO[bytes] = log.open("wb")
        self._root = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.pid = self._root.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text("utf-8", "replace")

    def ids(self) -> list[int]:
        """Every living process of the tree: descendants, and members of the session whose parent has gone."""
        return tree(self.pid, snapshot())

    def workers(self) -> list[int]:
        """The processes that were started by the first one, without that."""
        return [pid for pid in self.ids() if pid != self.pid]

    def listens(self, port: int) -> bool:
        """Whether the listening socket of this port is one of ours: an answer alone may come from somebody else who took the port first."""
        wanted = {f"socket:[{inode}]" for inode in _listeners(port)}
        return any(wanted & _links(pid) for pid in self.ids()) if wanted else False

    def cpu_s(self) -> float:
        """User and system time of the whole tree so far. What a process that has ended used counts while its parent lives."""
        return sum(cpu_of(pid) for pid in self.ids())

    def memory_mb(self) -> float:
        """Memory of the whole tree, shared pages counted once (PSS)."""
        return sum(memory_of(pid, "Pss") for pid in self.ids()) / 1e6

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for a condition; raise when it takes too long or the command has ended, with the end of what it printed."""
        until = time.monotonic() + timeout_s
        while not condition():
            ended = self._root.poll()
            if ended is not None or time.monotonic() > until:
                reason = f"ended with {ended}" if ended is not None else f"was not there after {timeout_s:g} s"
                raise BenchmarkError(f"{what} {reason}: {' '.join(self.output().split())[-400:]}")
            time.sleep(_POLL_S)

    def settle(self) -> None:
        """Wait until it has come to rest: some servers go on computing answers that nobody waits for any more. Not longer than a while."""
        until = time.monotonic() + _SETTLE_S
        used_s = math.inf
        while used_s > _AT_REST * _LOOK_S and time.monotonic() < until:
            before_s = self.cpu_s()
            time.sleep(_LOOK_S)
            used_s = self.cpu_s() - before_s

    def stop(self) -> None:
        """SIGTERM to the first process, then SIGKILL to everything that is left."""
        before = snapshot()
        ours = {pid: before[pid] for pid in tree(self.pid, before) if pid in before}
        if self._root.poll() is None:
            self._root.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._root.wait(_GRACE_S)
        until = time.monotonic() + _GRACE_S
        while left := _left(self.pid, ours, snapshot()):
            if time.monotonic() > until:
                raise BenchmarkError(f"the processes {left} do not end")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_S)
        self._root.wait()
        self._output.close()


@dataclass(frozen=True, slots=True)
class Process:
    """Where a process belongs; `began` tells it from a later one with the same number."""

    parent: int
    session: int
    began: int


def tree(root: int, processes: Mapping[int, Process]) -> list[int]:
    """The process `root`, the members of its session, and the descendants of all these."""
    found = {pid for pid, process in processes.items() if root in (pid, process.session)}
    more = found
    while more:
        more = {pid for pid, process in processes.items() if process.parent in found} - found
        found |= more
    return sorted(found)


def _left(root: int, known: Mapping[int, Process], now: Mapping[int, Process]) -> list[int]:
    """What is still there of a tree: those known before, unless another one has got the number since, and new ones."""
    same = {pid for pid, process in known.items() if pid in now and now[pid].began == process.began}
    return sorted(same | set(tree(root, now)))


def snapshot() -> dict[int, Process]:
    """Every process of the machine that has not ended."""
    found = {}
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else []
        if fields and fields[0] != "Z":
            found[int(entry.name)] = Process(int(fields[1]), int(fields[3]), int(fields[19]))
    return found


def _listeners(port: int) -> list[str]:
    """The inodes of the IPv4 sockets that listen on a port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [fields[9] for fields in lines if fields[3] == _LISTENING and int(fields[1].partition(":")[2], 16) == port]


def _links(pid: int) -> set[str]:
    """What the descriptors of a process lead to."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may itself hold blanks and brackets; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_of(pid: int) -> float:
    """User and system seconds of one process and of its children that have ended."""
    fields = _stat(pid)
    return sum(int(field) for field in fields[11:15]) / _TICKS_PER_S if fields else 0.0


def memory_of(pid: int, kind: str = "Rss") -> int:
    """Bytes of one process: Rss, or Pss with pages that are shared divided among those who share them."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(f"{kind}:"))
