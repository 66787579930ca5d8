"""Real first processes of jobs (hosting/jobs), started as engines/jobs/launch.py does, but from here: with any Python, alone or as pid 1."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import dragoman.hosting.jobs

FOLDER = Path(dragoman.hosting.jobs.__file__).parent
DEADLINE_S = 60.0
NAMESPACES = (
    "bwrap",
    "--dev-bind",
    "/",
    "/",
    "--unshare-user",
    "--unshare-pid",
    "--unshare-net",
    "--cap-drop",
    "ALL",
    "--as-pid-1",
    "--proc",
    "/proc",
    "--",
)

HTTP = """
import http.server, os, socket, sys, threading, time
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    options = {"/": 200}
    def do_OPTIONS(self):
        self.answer(self.options.get(self.path, self.options.get("*", 404)), b"")
    def do_GET(self):
        self.answer(200, self.path.encode())
    def answer(self, status, body):
        self.send_response(status); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
def serve(app=App):
    http.server.ThreadingHTTPServer(("0.0.0.0", 5000), app).serve_forever()
"""
"""The beginning of programs that serve."""


_T = TypeVar("_T")


@cache
def oldest_python() -> str:
    """The oldest that this machine has, of those that jobs may have."""
    for minor in range(8, sys.version_info[1]):
        found = shutil.which(f"python3.{minor}")
        own = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        for path in (*([found] if found else []), *map(str, own)):
            told = subprocess.run([path, "-c", "import sys; print(sys.version_info[1])"], capture_output=True, text=True, check=False)
            if told.stdout.strip() == str(minor):
                return path
    return sys.executable


@cache
def kinds() -> list[str]:
    """`plain`: beside other processes of the machine. `first`: pid 1, and a network of its own, where this machine allows it."""
    try:
        allowed = subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False, timeout=DEADLINE_S).returncode == 0
    except FileNotFoundError:
        allowed = False
    return ["plain", "first"] if allowed else ["plain"]


def until(what: Callable[[], _T]) -> _T:
    """Its first true value."""
    limit = time.monotonic() + DEADLINE_S
    while not (found := what()):
        assert time.monotonic() < limit, "it did not come true in time"
        time.sleep(0.01)
    return found


def unstamped(log: str) -> str:
    """With a mark instead of the time before lines that are not the program's."""
    return re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  ", "@", log, flags=re.MULTILINE)


class Line:
    """A connection to the gate."""

    def __init__(self, folder: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        descriptor = os.open(folder, os.O_PATH)
        self.socket.connect(f"/proc/self/fd/{descriptor}/gate")
        os.close(descriptor)
        self._read = b""
        self.passed: list[socket.socket] = []

    def say(self, **question: Any) -> "Line":
        self.socket.sendall(json.dumps(question).encode() + b"\n")
        return self

    def hear(self) -> dict[str, Any]:
        """The next answer; {} when there is none any more. A socket beside it is in `passed`."""
        while b"\n" not in self._read:
            piece, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 1)
            if not piece:
                return {}
            self.passed += [socket.socket(fileno=number) for number in descriptors]
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def get(self, path: str = "/") -> bytes:
        """Over the socket that was passed, whole."""
        (there,) = self.passed
        there.settimeout(DEADLINE_S)
        there.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        return b"".join(iter(lambda: there.recv(65536), b""))

    def close(self) -> None:
        for there in (*self.passed, self.socket):
            there.close()


class Inside:
    """One first process, and its job."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        self.folder = folder
        self.process = process
        self._lines: list[Line] = []

    def line(self, **question: Any) -> Line:
        line = Line(self.folder)
        self._lines.append(line)
        return line.say(**question) if question else line

    def ask(self, **question: Any) -> dict[str, Any]:
        line = self.line(**question)
        found = line.hear()
        line.close()
        return found

    def ready(self) -> dict[str, Any]:
        """Wait until the program accepts connections; returns what is seen then."""
        holder = self.line(ask="hold")
        while not (seen := holder.hear())["ready"]:
            assert seen["answer"] == "seen", seen
        return seen

    def permit(self) -> Line:
        """The next one; nobody else has one for long."""
        line = self.line(ask="permit")
        while (found := line.hear())["answer"] == "wait":
            pass
        assert found["answer"] == "go", found
        return line

    def end(self) -> dict[str, Any]:
        """Wait for it."""
        assert self.process.wait(DEADLINE_S) == 0
        found: dict[str, Any] = json.loads((self.folder / "end.json").read_text())
        return found

    def stop(self, grace_s: float = 5.0) -> dict[str, Any]:
        assert self.ask(ask="stop", grace_s=grace_s, how="stopped", reason="it was asked to") == {"answer": "stopping"}
        return self.end()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def close(self) -> None:
        for line in self._lines:
            line.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def inside(
    folder: Path,
    code: str | None = None,
    *,
    kind: str = "plain",
    python: str = sys.executable,
    argv: Sequence[str] = (),
    mode: str = "serve",
    environ: Mapping[str, str] | None = None,
    limits: Mapping[str, float] | None = None,
    before: Sequence[str] = (),
    **orders: Any,
) -> Iterator[Inside]:
    """Starts app.py with this text, or `argv` in command mode. `before`: a program that starts the first process."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    if code is not None:
        (home / "app.py").write_text(code)
    (folder / "gate").unlink(missing_ok=True)
    place = os.open(folder, os.O_PATH)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"/proc/self/fd/{place}/gate")
    os.close(place)
    listener.listen(1024)
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    end = os.open(folder / "end.json", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    theirs, ours = os.pipe()
    descriptors = {"gate": listener.fileno(), "log": log, "end": end}
    told = {
        "mode": mode,
        "argv": argv or (python, "app.py"),
        "python": python,
        "cwd": str(home),
        "limits": limits or {},
        "environ": {"PATH": os.environ["PATH"], **(environ or {})},
        "port": 5000 if kind == "first" else 0,
        "orphan_s": 600.0,
        **descriptors,
        **orders,
    }
    command = [*before, *(NAMESPACES if kind == "first" else ()), python, "-I", "-S", str(FOLDER), str(theirs)]
    process = subprocess.Popen(command, pass_fds=(theirs, *descriptors.values()), stdin=subprocess.DEVNULL, cwd="/")
    for number in (theirs, log, end):
        os.close(number)
    listener.close()
    with open(ours, "wb") as file:
        file.write(json.dumps(told).encode())
    job = Inside(folder, process)
    try:
        yield job
    finally:
        job.close()


def command(folder: Path, code: str, **orders: Any) -> dict[str, Any]:
    """Runs a Python text in command mode to its end."""
    with inside(folder, mode="command", argv=(orders.get("python", sys.executable), "-c", code), **orders) as job:
        return job.end()
