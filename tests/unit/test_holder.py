"""The lock of a SQLite store: who holds it, who is told, and when it is free again."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dragoman.core.errors import Kind
from dragoman.server.holder import Holder, TakenError
from dragoman.store.addresses import store_url

ROOT = Path(__file__).parents[2]


def taken(folder: Path, wait_s: float = 0.0) -> str:
    """What somebody who comes second is told."""
    with pytest.raises(TakenError) as caught, Holder(store_url(folder), [], wait_s=wait_s):
        pass
    assert caught.value.kind is Kind.UNAVAILABLE
    return caught.value.message


@contextmanager
def program(folder: Path, code: str, *descriptors: int) -> "Iterator[subprocess.Popen[str]]":
    """A process that runs this, with `held()` to take the lock."""
    script = (
        "import subprocess, sys\nfrom pathlib import Path\nfrom dragoman.server.holder import Holder\n"
        "from dragoman.store.addresses import store_url\n"
        "def held():\n    return Holder(store_url(Path(sys.argv[1])), ['http://127.0.0.1:7777'])\n" + code
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        env={"PYTHONPATH": str(ROOT / "src")}, stdin=pipe, stdout=pipe, stderr=pipe, text=True, pass_fds=descriptors,
    ) as started:  # fmt: skip
        try:
            yield started
        finally:
            started.kill()


def line(started: "subprocess.Popen[str]") -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


def test_whoever_comes_second_learns_who_is_there(tmp_path: Path) -> None:
    """Process, addresses, since when, and what to do; in a data directory that was not there before."""
    folder = tmp_path / "data" / "dragoman"
    with Holder(store_url(folder), ["http://127.0.0.1:0"]) as holder:
        holder.say(["http://127.0.0.1:3000", "http://127.0.0.1:3001"])
        words = taken(folder)
        about = json.loads((folder / "dragoman.db.lock").read_text())
        assert f"(process {os.getpid()}, http://127.0.0.1:3000, http://127.0.0.1:3001, since {about['since']})" in words
        assert str(folder) in words
        assert "--data-dir" in words
        assert "postgresql://" in words
        holder.say(["http://h"])
        assert "http://127" not in taken(folder)
    with Holder(store_url(folder), []):
        assert "not listening yet" in taken(folder)


def test_another_store_is_another_lock(tmp_path: Path) -> None:
    """Whatever directories are shared; and one that is a server of its own needs none."""
    with (
        Holder(store_url(tmp_path), []),
        Holder(f"sqlite:///{tmp_path}/other.db", []) as other,
        Holder("postgresql://u:p@nowhere/db", []) as shared,
        Holder("postgresql://u:p@nowhere/db", []),
    ):
        assert len(other.inherited) == 1
        assert shared.inherited == ()
        shared.say(["http://h"])
        assert "another server" in taken(tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_kernel_gives_it_back(how: signal.Signals, tmp_path: Path) -> None:
    """However its process ends."""
    with program(tmp_path, "holder = held()\nprint('held', flush=True)\nsys.stdin.read()") as other:
        assert line(other) == "held"
        assert f"process {other.pid}, http://127.0.0.1:7777" in taken(tmp_path)
        other.send_signal(how)
        other.wait(30)
        with Holder(store_url(tmp_path), []):
            pass


def test_workers_hold_it_after_their_supervisor(tmp_path: Path) -> None:
    """A supervisor that is killed leaves workers behind for a moment: the next server waits for them, and for no other child."""
    theirs, ours = os.pipe()
    code = f"""
holder = held()
subprocess.Popen(["cat"], stdin={theirs}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=holder.inherited)
other = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("held", flush=True)
sys.stdin.read()
"""
    with program(tmp_path, code, theirs) as supervisor:
        os.close(theirs)
        assert line(supervisor) == "held"
        supervisor.kill()
        supervisor.wait(30)
        assert f"process {supervisor.pid}" in taken(tmp_path)
        with program(tmp_path, "holder = held()\nprint('held', flush=True)") as second:
            assert second.stderr is not None
            assert "waiting for them" in second.stderr.readline()
            os.close(ours)  # the last worker ends
            assert line(second) == "held"
            assert second.wait(30) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "not json",
        '{"pid": "x"}',
        '{"pid": 1, "host": "h", "addresses": 3, "since": "s"}',
        "\0" * 100_000,
        '{"pid": 1' + " " * 70_000,
    ],
    ids=range(8),
)
def test_a_lock_that_says_nonsense(text: str, tmp_path: Path) -> None:
    """It is held all the same, by somebody."""
    path = tmp_path / "dragoman.db.lock"
    path.write_text(text)
    file = os.open(path, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    assert taken(tmp_path, wait_s=30.0).startswith("another server serves from the store in ")
    os.close(file)
    with Holder(store_url(tmp_path), []):
        assert f"process {os.getpid()}" in taken(tmp_path)


@pytest.mark.parametrize("pid", [-5, 0, 2**70])
def test_a_process_that_cannot_be(pid: int, tmp_path: Path) -> None:
    """A number that is no process ends nothing and is not waited for."""
    path = tmp_path / "dragoman.db.lock"
    path.write_text(json.dumps({"pid": pid, "host": socket.gethostname(), "addresses": ["http://h"], "since": "then"}))
    file = os.open(path, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    assert "since then" in taken(tmp_path, wait_s=0.0)
    os.close(file)


def test_a_place_that_cannot_be_locked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be written either: what needs no store is served all the same."""
    (tmp_path / "data").write_text("a file")
    with Holder(store_url(tmp_path / "data"), []) as holder:
        holder.say(["http://h"])
        assert holder.inherited == ()
    assert "cannot be locked" in caplog.text
