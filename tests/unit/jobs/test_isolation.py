"""How the isolation of jobs is found, and what is said of it, with programs that stand for bubblewrap; and what a start is told."""

import asyncio
import json
import math
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import End, Limits, Mode, Start
from dragoman.engines.jobs import gate_line, processes
from dragoman.engines.jobs.allowed import Isolation
from dragoman.engines.jobs.isolation import OPTIONAL, find
from dragoman.engines.jobs.orders import View, environment, mounted, orders, places
from dragoman.engines.jobs.sandbox import bubble_of, devices, job
from dragoman.engines.jobs.started import Record, Started, read_end, read_record
from dragoman.hosting.jobs import orders_from

WHOLE = Isolation("/usr/bin/bwrap", own_network=True, uplink="/usr/bin/slirp4netns")


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def found(path: Path | str, setting: str = "auto") -> Isolation:
    return asyncio.run(find(setting, path=str(path)))


def start_in(folder: Path, **changes: object) -> Start:
    return Start("j1", folder, Mode.SERVE, ("python", "app.py"), Path("/opt/env/bin/python"), **changes)  # type: ignore[arg-type] # any of its fields


def test_without_bubblewrap(tmp_path: Path) -> None:
    """There are no namespaces, and it is said why."""
    isolation = found(tmp_path)
    assert (isolation.bwrap, isolation.own_network, isolation.uplink) == ("", False, "")
    assert isolation.sentence().startswith("no namespaces: the job runs as this server's user")
    assert isolation.sentence().endswith("(bubblewrap is not installed)")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "bubblewrap: No permissions to create new namespace"),
        ("exit 1", "bubblewrap: bubblewrap has not made namespaces"),
        ("exit 0", "bubblewrap: bubblewrap has not made namespaces"),
    ],
)
def test_where_namespaces_are_not_allowed(tmp_path: Path, script: str, why: str) -> None:
    """What bubblewrap says is the reason."""
    program(tmp_path, "bwrap", script)
    isolation = found(tmp_path)
    assert isolation.bwrap == ""
    assert isolation.why == why


def test_namespaces_that_must_be_there(tmp_path: Path) -> None:
    """`--job-isolation namespaces` is refused where there are none, with the reason."""
    with pytest.raises(ServingError, match="--job-isolation namespaces is not possible here: bubblewrap is not installed") as caught:
        found(tmp_path, "namespaces")
    assert caught.value.kind is Kind.UNSUPPORTED


def test_the_shim_can_be_asked_for() -> None:
    """`--job-isolation shim` tries nothing."""
    assert found(os.environ["PATH"], "shim") == Isolation(why="as it was set")


@pytest.mark.parametrize(
    ("isolation", "moved", "moved_alone"),
    [
        (WHOLE, False, False),
        (Isolation("bwrap", own_network=True), True, False),
        (Isolation("bwrap"), True, True),
        (Isolation(), True, True),
        (Isolation(uplink="slirp4netns"), True, True),
    ],
)
def test_when_the_port_moves(isolation: Isolation, moved: bool, moved_alone: bool) -> None:
    """A job listens on 5000 itself only in a network of its own, which one that may go out needs a way out of."""
    assert (isolation.moves_port(network=True), isolation.moves_port(network=False)) == (moved, moved_alone)


def test_an_older_bubblewrap(tmp_path: Path) -> None:
    """Options that older ones lack are left out, and the rest is as it is."""
    real = found(os.environ["PATH"])
    lacking = Isolation("bwrap")
    having = Isolation("bwrap", options=OPTIONAL)
    assert not OPTIONAL & set(bubble_of(lacking, ("true",)).arguments)
    assert set(bubble_of(having, ("true",)).arguments) >= OPTIONAL
    if real.bwrap:
        refuse = 'for word; do case "$word" in --size|--disable-userns) echo "bwrap: Unknown option $word" >&2; exit 1;; esac; done'
        program(tmp_path, "bwrap", f'[ "$1" = --help ] && exec echo usage\n{refuse}\nexec {real.bwrap} "$@"')
        older = found(f"{tmp_path}:{os.environ['PATH']}")
        assert (older.bwrap, older.options, older.own_network) == (str(tmp_path / "bwrap"), frozenset(), real.own_network)


def test_what_a_start_is_told(tmp_path: Path) -> None:
    """The orders are those that hosting/jobs reads, infinity included."""
    start = start_in(tmp_path, limits=Limits(max_runtime_s=math.inf, memory=5), ran_s=1.5, environ={"A": "b"})
    told = orders_from(orders(start, View("/floyd/home", "/tmp", "/floyd/bin", {"/output": "/x"}, 0), "said", gate=3, log=4, end=5))
    assert (told.mode, told.argv, told.python, told.cwd) == ("serve", ("python", "app.py"), "/opt/env/bin/python", "/floyd/home")
    assert (told.gate, told.log, told.end, told.port, told.ran_s, told.isolation) == (3, 4, 5, 0, 1.5, "said")
    assert (told.limits.max_runtime_s, told.limits.memory, told.paths) == (math.inf, 5, {"/output": "/x"})
    assert told.environ["A"] == "b"


def test_a_program_cannot_lose_its_marker(tmp_path: Path) -> None:
    """By the marker in their environment the processes of a job without namespaces are found: what a start gives does not replace it."""
    given = environment(start_in(tmp_path, environ={processes.JOB: "other", "FLOYDHUB": "2"}), View("h", "t", "p"))
    assert (given[processes.JOB], given["FLOYDHUB"]) == ("j1", "2")


def test_where_python_is_found(tmp_path: Path) -> None:
    """In the folder of the interpreter if it is called `python` there, as in a virtualenv; else by links of ours."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyvenv.cfg").touch()
    for name in ("python3.8", "python"):
        (tmp_path / "bin" / name).symlink_to("/bin/sh")
    view = View("h", "t", "/links")
    virtual = Start("j1", tmp_path, Mode.COMMAND, (), tmp_path / "bin" / "python3.8")
    assert environment(virtual, view)["PATH"].startswith(f"{tmp_path}/bin:")
    assert environment(virtual, view)["VIRTUAL_ENV"] == str(tmp_path)
    (tmp_path / "bin" / "python").unlink()
    assert environment(virtual, view)["PATH"].startswith("/links:")


@pytest.mark.parametrize("name", ["usr", "lib64", "output", "tmp", "floyd", "root", "proc"])
def test_names_that_the_system_has(name: str) -> None:
    """A data set of such a name is below /floyd/input only."""
    assert places(name) == (f"/floyd/input/{name}",)
    assert places("input") == ("/input", "/floyd/input/input")


def test_data_beside_what_the_program_runs_with(tmp_path: Path) -> None:
    """Where the program's interpreter lies below a folder of the data's name, the data is mounted entry by entry, but for that folder, and links."""
    data = tmp_path / "data"
    for name in ("a", "b", "env"):
        (data / name).mkdir(parents=True)
    assert mounted(start_in(tmp_path, mounts={"x": data})) == [(data, "/x"), (data, "/floyd/input/x")]
    (data / "link").symlink_to("/etc")
    beside = Start("j1", tmp_path / "run" / "j1", Mode.COMMAND, (), Path("/x/env/bin/python"), (Path("/x/env"),), mounts={"x": data})
    assert sorted(mounted(beside)) == [(data, "/floyd/input/x"), (data / "a", "/x/a"), (data / "b", "/x/b")]
    other = tmp_path / "run" / "other" / "output"  # its program may put a link into it at any moment, and bubblewrap follow that out here
    other.mkdir(parents=True)
    (other / "a").touch()
    assert mounted(replace(beside, mounts={"x": other})) == [(other, "/floyd/input/x")]


def test_folders_above_come_first(tmp_path: Path) -> None:
    """A folder that is mounted below another one is not hidden by it, whatever the order that they are named in."""
    arguments = job(start_in(tmp_path, readable=(Path("/opt/env/lib/deep"), Path("/opt/env"))), WHOLE, 3)[0].arguments
    assert arguments.index("/opt/env") < arguments.index("/opt/env/lib/deep")


def test_devices_can_be_used(tmp_path: Path) -> None:
    """What is named of /dev is mounted so that it works."""
    arguments = job(start_in(tmp_path, readable=(Path("/dev/nvidia0"), Path("/opt/env"))), WHOLE, 3)[0].arguments
    assert arguments[arguments.index("/dev/nvidia0") - 1] == "--dev-bind"
    assert arguments[arguments.index("/opt/env") - 1] == "--ro-bind"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"how": 1}', '{"how": "exit"'])
def test_an_ending_that_is_none(tmp_path: Path, text: str) -> None:
    """An unfinished ending, or none, is no ending; fields that are not known are left out."""
    (tmp_path / "end.json").write_text(text)
    (tmp_path / "start.json").write_text(text)
    assert read_end(tmp_path) is None
    assert read_record(tmp_path) is None
    (tmp_path / "end.json").write_text(json.dumps({"how": "exit", "code": 3, "new": True}))
    end = read_end(tmp_path)
    assert end is not None
    assert (end.how, end.code) == ("exit", 3)


@pytest.mark.parametrize("line", [b"", b"\n", b"{", b"[1]\n", b'"seen"\n'])
def test_a_gate_that_does_not_answer(line: bytes) -> None:
    """What is no answer is an error of the connection."""
    with pytest.raises(ConnectionError):
        gate_line.answered(line)
    with pytest.raises(ConnectionError):
        gate_line.seen_in({"answer": "no"})


def test_nobody_listens(tmp_path: Path) -> None:
    """Neither at a gate that is not there, nor at one that was left."""
    with pytest.raises(FileNotFoundError):
        gate_line.connect(tmp_path)
    gate_line.listen(tmp_path).close()
    with pytest.raises(ConnectionRefusedError):
        gate_line.connect(tmp_path)
    with gate_line.listen(tmp_path), gate_line.connect(tmp_path):
        assert (tmp_path / "gate").stat().st_mode & 0o777 == 0o600


def test_a_process_is_known_by_its_birth() -> None:
    """A number alone names nobody: who has ended, or was born later, is not killed and not waited for."""
    own = processes.born(os.getpid())
    assert own > 0
    assert processes.born(2**22 + 1) == 0
    processes.kill(os.getpid(), own + 1)
    processes.kill(os.getpid(), 0)
    asyncio.run(processes.gone(os.getpid(), own + 1))
    assert processes.boot()


def test_a_gpu_is_seen_by_whoever_asks(tmp_path: Path) -> None:
    """The devices of GPUs are those that are there, as paths that a start may name."""
    assert all(path.parent == Path("/dev") and path.exists() for path in devices())


def test_an_ending_that_could_not_be_written_is_heard(tmp_path: Path) -> None:
    """On a full disk: who holds the gate is told it, too."""

    async def body() -> None:
        ours, theirs = socket.socketpair()
        started = Started(tmp_path, Record("j", 0, 0, "", 0.0, "none", contained=True), ours)
        with theirs:
            theirs.sendall(b'{"answer": "seen", "ready": true}\n')
            assert await started.answers()
            theirs.sendall(b'{"answer": "ended", "how": "exit", "code": 0, "ran_s": 2.5, "calls": 3, "new": 1}\n')
        assert await started.ended() == End("exit", ran_s=2.5, calls=3)

    asyncio.run(body())
