"""What a job may use, and what happens to one that uses more: its first process ends it and says why. With real programs."""

import os
import sys
from pathlib import Path

import pytest

from tests.jobs_inside import HTTP, command, inside, kinds, unstamped, until

each_kind = pytest.mark.parametrize("kind", kinds())


@each_kind
def test_too_long(tmp_path: Path, kind: str) -> None:
    """The seconds of earlier starts count (F23); the program is asked first and has its time."""
    code = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\ntime.sleep(600)"
    end = command(tmp_path, code, kind=kind, limits={"max_runtime_s": 100.0}, ran_s=99.0)
    assert (end["how"], end["code"], end["reason"]) == ("timeout", 7, "it has run for 100 s, which is its maximum")
    assert end["ran_s"] >= 1


@pytest.mark.parametrize("limits", [{}, {"max_runtime_s": float("inf"), "start_timeout_s": float("inf")}, {"max_runtime_s": 0}])
def test_no_limits(tmp_path: Path, limits: dict[str, float]) -> None:
    """None and infinity are the same."""
    with inside(tmp_path, HTTP + "serve()", limits=limits, ran_s=1e9) as job:
        assert job.ready()["processes"] >= 0
        assert job.stop()["how"] == "stopped"


@each_kind
def test_a_program_that_listens_elsewhere(tmp_path: Path, kind: str) -> None:
    """Is told where it is looked for, and where it is (all addresses and both families are found)."""
    code = "import socket, time\ns = socket.create_server(('127.0.0.1', 0)); t = socket.create_server(('::1', 0), family=socket.AF_INET6)\n"
    code += "print(*sorted(x.getsockname()[1] for x in (s, t)), sep=', ')\ntime.sleep(600)"
    with inside(tmp_path, code, kind=kind, limits={"start_timeout_s": 1.0}) as job:
        end = job.end()
        ports = job.log.strip()
    assert end["how"] == "start_timeout"
    assert end["reason"] == f"the program has not accepted connections on port 5000 within 1 s; it listens on port {ports}"


def test_a_program_that_never_listens(tmp_path: Path) -> None:
    """Nor does it wait for ever when it accepted once."""
    with inside(tmp_path, "import time; time.sleep(600)", limits={"start_timeout_s": 0.5}) as job:
        end = job.end()
    assert end["reason"] == "the program has not accepted connections on port 5000 within 0.5 s; it listens on no port"


def test_a_command_need_not_listen(tmp_path: Path) -> None:
    """It has no endpoint."""
    end = command(tmp_path, "import time; time.sleep(1.2)", limits={"start_timeout_s": 0.5})
    assert (end["how"], end["code"]) == ("exit", 0)


@each_kind
def test_too_much_memory(tmp_path: Path, kind: str) -> None:
    """Of all its processes together: each of these alone would be allowed to."""
    code = "import os, time\nfor _ in range(3):\n    if not os.fork(): break\nkept = bytearray(os.urandom(1)) * (50 << 20)\ntime.sleep(600)"
    end = command(tmp_path, code, kind=kind, limits={"memory": 120 << 20})
    assert (end["how"], end["code"]) == ("memory", -9)
    assert end["reason"].endswith(" MiB of memory, 120 MiB are allowed")


def test_shared_memory_counts_once(tmp_path: Path) -> None:
    """Processes that were forked from a large one use no more than it."""
    code = "import os, time\nkept = bytearray(b'x') * (50 << 20)\nfor _ in range(4):\n    if not os.fork(): break\nprint('up')\ntime.sleep(600)"
    with inside(tmp_path, mode="command", argv=(sys.executable, "-c", code), limits={"memory": 120 << 20}) as job:
        until(lambda: job.ask(ask="look")["memory"] > 240 << 20)
        until(lambda: job.ask(ask="look")["ran_s"] > 2)
        assert job.stop(grace_s=0)["how"] == "stopped"


def test_one_that_grows_at_once(tmp_path: Path) -> None:
    """Has a second limit of its own, in case it is faster than who looks."""
    end = command(tmp_path, "print(len(bytearray(4 << 30)))", limits={"memory": 100 << 20})
    assert (end["how"], end["reason"]) == ("exit", "the program ended with exit code 1: MemoryError")


@each_kind
def test_too_many_processes(tmp_path: Path, kind: str) -> None:
    """All of them end, however fast they come."""
    code = "import os, time\nfor _ in range(40):\n    if not os.fork(): time.sleep(600)\ntime.sleep(600)"
    end = command(tmp_path, code, kind=kind, limits={"processes": 20})
    assert (end["how"], end["reason"].split()[-3:]) == ("processes", ["20", "are", "allowed"])


def test_a_file_too_large(tmp_path: Path) -> None:
    """Cannot be written."""
    code = "import pathlib\nfor name, size in (('a', 1000), ('b', 1001)): pathlib.Path(name).write_bytes(b'x' * size)"
    end = command(tmp_path, code, limits={"file_size": 1000})
    assert end["reason"] == "the program ended with exit code 1: OSError: [Errno 27] File too large"
    assert [(tmp_path / "home" / name).stat().st_size for name in "ab"] == [1000, 1000]


def test_cores(tmp_path: Path) -> None:
    """As many as it may use, and not more than there are."""
    command(tmp_path, "import os; print(len(os.sched_getaffinity(0)))", limits={"cpus": 1})
    command(tmp_path, "import os; print(len(os.sched_getaffinity(0)))", limits={"cpus": 4000})
    assert (tmp_path / "log").read_text().split() == ["1", str(len(os.sched_getaffinity(0)))]


def test_too_much_output(tmp_path: Path) -> None:
    """The beginning is kept, a line says so, and the program goes on; what is there from before counts."""
    (tmp_path / "log").write_text("placed\n")
    end = command(tmp_path, "for n in range(200_000): print('line', n)\nprint('done', file=open('done', 'w'))", limits={"log_size": 30})
    assert (end["how"], end["code"], (tmp_path / "home" / "done").exists()) == ("exit", 0, True)
    kept, note = unstamped((tmp_path / "log").read_text()).split("\n@")
    assert kept == "placed\nline 0\nline 1\nline 2\nli"
    assert note == "The log is full: what the program prints from here on is not kept.\n"


def test_the_last_words_of_a_long_log(tmp_path: Path) -> None:
    """Say why it ended, kept or not."""
    end = command(tmp_path, "print('x' * 100_000)\nraise ValueError('so')", limits={"log_size": 10})
    assert end["reason"] == "the program ended with exit code 1: ValueError: so"
