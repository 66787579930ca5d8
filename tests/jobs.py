"""Jobs for tests: which isolations this machine allows, a server of each that can be killed, and programs that say what they find inside."""

import asyncio
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dragoman.engines.jobs import gate_line
from dragoman.engines.jobs.isolation import find

_ROOT = Path(__file__).parents[1]
_DEADLINE_S = 60.0
_PROGRAMS = (str(Path(sys.executable).resolve()), "/usr/bin/python3", "/usr/local/bin/python3")


@dataclass(frozen=True, slots=True)
class Setting:
    """One way of running jobs on this machine."""

    kind: str
    """A key of job_driver.KINDS."""
    user: int = 0
    """Who the server runs as; 0: whoever runs the tests."""

    @property
    def name(self) -> str:
        return self.kind if not self.user else f"{self.kind} as somebody else"

    @property
    def python(self) -> Path:
        found = python_of(self.user)
        assert found is not None
        return found

    @property
    def contained(self) -> bool:
        """Whether jobs have files and processes of their own."""
        return self.kind != "shim"

    @property
    def alone(self) -> bool:
        """Whether they have a network of their own, at least when it needs no way out."""
        return self.kind in ("whole", "uplinkless")


@cache
def settings() -> tuple[Setting, ...]:
    """All that this machine allows: found by trying."""
    found = asyncio.run(find())
    kinds = ["whole"] * bool(found.uplink) + ["uplinkless"] * found.own_network + ["files"] * bool(found.bwrap) + ["shim"]
    others = []
    if os.geteuid() == 0 and (nobody := _nobody()) and python_of(nobody):
        others = [Setting(kind, nobody) for kind in ("uplinkless", "shim") if kind in kinds]
    return (*(Setting(kind) for kind in kinds), *others)


@cache
def python_of(user: int) -> Path | None:
    """An interpreter that this user may run."""
    for path in _PROGRAMS:
        try:
            done = subprocess.run(
                [path, "-I", "-c", ""], user=user or None, group=user or None, extra_groups=[] if user else None, check=False
            )
        except OSError:
            continue
        if not done.returncode:
            return Path(path).resolve()
    return None


def _nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 0


class Server:
    """A process that runs jobs (job_driver.py)."""

    def __init__(self, setting: Setting, environ: dict[str, str] | None = None) -> None:
        self.setting = setting
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.job_driver", setting.kind, str(setting.user), str(setting.python)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **(environ or {})},
        )  # fmt: skip
        assert self._process.stdout is not None
        self._process.stdout.readline()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **asked: Any) -> Any:
        """What it answers. Raises RefusedError with the message of a ServingError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **asked}, default=str) + "\n")
        said = json.loads(self._process.stdout.readline())
        if "error" in said:
            raise RefusedError(said["error"])
        return said["result"]

    def launch(self, folder: Path, **asked: Any) -> Any:
        """Start a job in this folder, with the interpreter of the setting."""
        return self.ask("launch", **{"folder": folder, "python": self.setting.python, "readable": installed(self.setting), **asked})

    def kill(self) -> None:
        """As a machine that is short of memory does it."""
        self._process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_DEADLINE_S)
        self._process.stdout.close()


def installed(setting: Setting) -> list[Path]:
    """What its interpreter needs of the machine beyond what every job sees."""
    return [] if setting.python.is_relative_to("/usr") else [setting.python.parents[1]]


class RefusedError(Exception):
    """The server has answered with an error."""


@contextmanager
def own_folder(setting: Setting) -> Iterator[Path]:
    """A folder that belongs to whoever the server of this setting runs as."""
    folder = Path(tempfile.mkdtemp(prefix="jobs-"))
    try:
        if setting.user:
            os.chown(folder, setting.user, setting.user)
        yield folder
    finally:
        shutil.rmtree(folder)


def job_folder(setting: Setting, root: Path, name: str, program: str) -> Path:
    """The folder of a job whose app.py is this."""
    folder = root / name
    (folder / "home").mkdir(parents=True)
    (folder / "home" / "app.py").write_text(program)
    for path in (folder, folder / "home", folder / "home" / "app.py"):
        if setting.user:
            os.chown(path, setting.user, setting.user)
    return folder


def eventually(condition: Callable[[], Any], what: str = "") -> Any:
    """What the condition says once it is true; fails when that takes too long."""
    end = time.monotonic() + _DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < end, what or "it did not happen in time"
        time.sleep(0.02)
    return found


def processes_with(marker: str) -> list[int]:
    """Those whose command line has this text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if marker.encode() in words and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def parent_of(pid: int) -> int:
    """0 when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@contextmanager
def permit(folder: Path) -> Iterator[socket.socket]:
    """A connection to the program of the job in this folder, when it accepts any."""
    while True:
        line = gate_line.connect(folder)
        line.settimeout(_DEADLINE_S)
        with line:
            line.sendall(b'{"ask": "permit"}\n')
            text = b""
            passed: list[int] = []
            while not text.endswith(b"\n"):
                more, descriptors, _, _ = socket.recv_fds(line, 4096, 1)
                assert more, "the gate has gone"
                text, passed = text + more, passed + list(descriptors)
            answer = json.loads(text.splitlines()[-1])
            if answer["answer"] == "go":
                with socket.socket(fileno=passed[0]) as connected:
                    connected.settimeout(_DEADLINE_S)
                    yield connected
                return
            assert answer.get("state") == "starting", answer
        time.sleep(0.05)
