"""Process trees of the benchmarks: what belongs to one, what it has used, and that nothing of it is left."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from benchmarks.processes import BenchmarkError, Process, Processes, cpu_of, environment, free_port, memory_of, snapshot, tree

# a parent with a child that leads a session of its own, as supervisors start their workers; both wait to be ended
FAMILY = """\
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], start_new_session=True)
time.sleep(600)
"""


def test_tree_holds_descendants_and_members_of_the_session() -> None:
    """A worker in a session of its own belongs to it, and so does a daemon whose parent has gone."""
    processes = {
        1: Process(0, 1, 0),
        10: Process(1, 10, 0),
        11: Process(10, 11, 0),
        12: Process(11, 11, 0),
        13: Process(1, 10, 0),
        20: Process(1, 20, 0),
    }
    assert tree(10, processes) == [10, 11, 12, 13]
    assert tree(99, processes) == []


def test_the_whole_tree_is_ended(tmp_path: Path) -> None:
    """Also the child that would survive a signal to the session."""
    with Processes([sys.executable, "-c", FAMILY], environment(), tmp_path / "log") as family:
        family.wait_until(lambda: "up" in family.output(), 60, "the child")
        ids = family.ids()
        (child,) = family.workers()
        assert set(ids) == {family.pid, child}
        assert family.memory_mb() > 1
    assert not set(ids) & snapshot().keys()


def test_waiting_for_what_has_ended_says_why(tmp_path: Path) -> None:
    """The exit code and the end of the output are in the error."""
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    with (
        Processes(command, environment(), tmp_path / "log") as ended,
        pytest.raises(BenchmarkError, match="the server ended with 3: no such model"),
    ):
        ended.wait_until(lambda: False, 60, "the server")


def test_waiting_has_an_end(tmp_path: Path) -> None:
    """What never comes is an error after the time-out."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Processes(command, environment(), tmp_path / "log") as mute, pytest.raises(BenchmarkError, match="was not there"):
        mute.wait_until(lambda: False, 0.01, "the server")


def test_cpu_and_memory_of_a_process() -> None:
    """This process has used some; one that does not exist has none."""
    until = time.process_time() + 0.05
    before = cpu_of(os.getpid())
    while time.process_time() < until:
        pass
    assert cpu_of(os.getpid()) > before
    assert memory_of(os.getpid(), "Rss") >= memory_of(os.getpid(), "Pss") > 1_000_000
    assert cpu_of(2**30) == memory_of(2**30) == 0


def test_free_ports_are_in_a_row() -> None:
    """All of them can be bound."""
    first = free_port(3)
    for port in range(first, first + 3):
        socket.create_server(("127.0.0.1", port)).close()


def test_environment_carries_no_settings() -> None:
    """Variables of the user would change what is measured; the package must be found from any folder."""
    seen = environment({"DRAGOMAN_EXTRA": "1"})
    assert seen["DRAGOMAN_EXTRA"] == "1"
    assert [name for name in seen if name.startswith(("DRAGOMAN_", "PYTHON"))] == ["PYTHONPATH", "DRAGOMAN_EXTRA"]
    assert all(Path(path).is_absolute() for path in seen["PYTHONPATH"].split(os.pathsep))


def test_a_port_of_somebody_else_is_not_taken_for_ours(tmp_path: Path) -> None:
    """The socket must be held by a process of the tree."""
    listener = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(600)"
    )
    with (
        Processes([sys.executable, "-c", listener], environment(), tmp_path / "log") as ours,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        ours.wait_until(lambda: ours.output().endswith("\n"), 60, "the listener")
        assert ours.listens(int(ours.output()))
        assert not ours.listens(other.getsockname()[1])
    assert not ours.listens(free_port())
