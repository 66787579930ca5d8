"""Commands that run strangers' code to build something, such as installers: what they see, and how they end."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs import RefusedError, Server, Setting, eventually, own_folder, processes_with, settings

CONTAINED = [setting for setting in settings() if setting.contained and not setting.user]
_SHELL = ["/bin/sh", "-c"]
_LONG = "10007.25"
"""Seconds; by this its processes are found."""


@pytest.fixture(scope="module", params=CONTAINED, ids=lambda setting: setting.name)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Of each isolation that has files of a command's own."""
    server = Server(request.param)
    yield server
    server.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a folder of its own, and one beside it."""
    with own_folder(Setting("whole")) as folder:
        for name in ("own", "given", "other"):
            (folder / name).mkdir()
            (folder / name / "file.txt").write_text(name)
        yield folder


def run(server: Server, folder: Path, script: str, *, network: bool = True) -> "subprocess.CompletedProcess[str]":
    paths = {"writable": [folder / "own"], "readable": [folder / "given"]}
    command = server.ask("sandboxed", command=[*_SHELL, script], network=network, **paths)
    environ = {"PATH": os.defpath, "GIVEN": "yes"}
    return subprocess.run(command, env=environ, cwd=folder / "own", capture_output=True, text=True, check=False, timeout=60)


def test_it_sees_what_it_is_given(server: Server, folder: Path) -> None:
    """Paths are the same inside and outside, the environment and the working directory are kept, output and exit code come through."""
    done = run(server, folder, f"pwd; echo $GIVEN; cat {folder}/given/file.txt; echo new > {folder}/own/new.txt; echo said >&2; exit 7")
    assert done.stdout.splitlines() == [str(folder / "own"), "yes", "given"]
    assert done.stderr.splitlines() == ["said"]
    assert done.returncode == 7
    assert (folder / "own" / "new.txt").read_text() == "new\n"


def test_it_sees_nothing_else(server: Server, folder: Path) -> None:
    """What it may read it may not write, and the rest is not there."""
    done = run(
        server,
        folder,
        f"ls {folder}; echo x > {folder}/given/new.txt; echo x > /usr/new.txt; cat {folder}/other/file.txt; cat /etc/shadow; ls /root",
    )
    assert done.stdout.splitlines() == ["given", "own"]
    assert len(done.stderr.splitlines()) == 5, done.stderr
    assert sorted(path.name for path in (folder / "given").iterdir()) == ["file.txt"]


def test_its_network(server: Server, folder: Path) -> None:
    """It reaches the machine's loopback only where it has no network of its own; without a network it reaches nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        reach = f"(echo > /dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo reached"
        script = f"bash -c '{reach}'; cut -d: -f1 /proc/net/dev | tail -n +3 | sort"
        said = run(server, folder, script).stdout.split()
        assert ("reached" in said) == (server.setting.kind != "whole")
        assert (said == ["lo", "tap0"]) == (server.setting.kind == "whole")
        if server.setting.alone:
            assert run(server, folder, script, network=False).stdout.split() == ["lo"]
        else:
            with pytest.raises(RefusedError, match="a command is to have no network: this machine does not allow"):
                run(server, folder, script, network=False)


def test_it_ends_with_its_group(server: Server, folder: Path) -> None:
    """Whoever kills the process group of the command leaves nothing of it, not even what has a session of its own."""
    marker = f"{600 + os.getpid() / 1e7:.7f}"
    command = server.ask("sandboxed", command=[*_SHELL, f"setsid sleep {marker} & sleep {marker}"], network=True)
    with subprocess.Popen(command, start_new_session=True) as running:
        sleeping = eventually(lambda: [pid for pid in processes_with(marker) if _name(pid) == "sleep"] if _sleeps(marker) == 2 else None)
        os.killpg(running.pid, 9)
    eventually(lambda: not set(sleeping) & set(processes_with(marker)), "something of it is left")


def test_without_namespaces_it_is_itself() -> None:
    """Where there are none the command is not changed."""
    server = Server(Setting("shim"))
    try:
        assert server.ask("sandboxed", command=["pip", "install"]) == ["pip", "install"]
    finally:
        server.close()


def test_one_that_cannot_be_run(server: Server, folder: Path) -> None:
    """A command that is not there fails with words that say so."""
    command = server.ask("sandboxed", command=[str(folder / "own" / "none")])
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr
    assert sys.executable in command


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _sleeps(marker: str) -> int:
    return sum(_name(pid) == "sleep" for pid in processes_with(marker))


def test_it_ends_with_who_started_it(server: Server, folder: Path) -> None:
    """A server that is killed leaves no installer behind."""
    command = server.ask("sandboxed", command=[*_SHELL, f"echo began; exec sleep {_LONG}"], network=not server.setting.alone)
    script = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", script, *command], stdout=subprocess.PIPE, env={"PATH": os.defpath}) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"began\n"
        assert processes_with(_LONG)
        starter.kill()
    eventually(lambda: processes_with(_LONG) == [], "it lives on")
