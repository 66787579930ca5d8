"""Begins a start: its folders, its gate, its first process, and the orders of that. Blocking; called by launch.py in a thread."""

import contextlib
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO

import dragoman.hosting.jobs
from dragoman.core.jobs import Start
from dragoman.engines.jobs import gate_line, processes
from dragoman.engines.jobs.first import First, spawn
from dragoman.engines.jobs.isolation import Isolation
from dragoman.engines.jobs.orders import View, orders
from dragoman.engines.jobs.started import END, START, Record

INSIDE = Path(dragoman.hosting.jobs.__file__).parent
"""What a job's first process runs."""


def begin(start: Start, isolation: Isolation, words: IO[bytes]) -> tuple[Record, socket.socket, Callable[[], int]]:
    """What start.json says now, a line to the gate, and what waits for the end. Raises OSError; nothing runs then.

    `words` gets what the first process says when it cannot begin.
    """
    folder = start.folder
    for name in ("home", "output"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("tmp", "bin"):
        clear(folder / name)
        (folder / name).mkdir(mode=0o700)
    (folder / "bin" / "python").symlink_to(start.python)
    view = _plain(start)
    with contextlib.ExitStack() as opened:
        gate = opened.enter_context(gate_line.listen(folder))
        log = _open(opened, folder / "log", os.O_WRONLY | os.O_APPEND)
        with contextlib.suppress(FileNotFoundError):
            (folder / END).unlink()
        end = _open(opened, folder / END, os.O_WRONLY | os.O_EXCL)
        theirs, ours = os.pipe()
        said = open(ours, "wb", closefd=True)  # noqa: SIM115 # closed below, by the stack
        opened.callback(os.close, theirs)
        opened.callback(said.close)
        line = gate_line.connect(folder)
        inherited = (theirs, gate.fileno(), log, end)
        try:
            child = spawn([str(start.python), "-I", "-S", str(INSIDE), str(theirs)], inherited, words)
            first = First(child, child.pid)
        except BaseException:
            line.close()
            raise
        try:
            record = Record(
                start.job,
                first.pid,
                processes.born(first.pid),
                processes.boot(),
                time.time(),
                isolation.sentence(start.network),
                contained=False,
            )
            _write(folder / START, json.dumps(asdict(record)).encode())
            said.write(orders(start, view, record.isolation, gate=gate.fileno(), log=log, end=end))
            said.flush()
        except BaseException:
            line.close()
            first.kill()
            raise
    return record, line, first.reap


def clear(folder: Path) -> None:
    """Remove a folder that a program has filled: whatever modes it has given what is in there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        for path, names, _ in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    each = os.path.join(path, name)
                    if not stat.S_ISLNK(os.lstat(each).st_mode):
                        os.chmod(each, 0o700)
        shutil.rmtree(folder)


def _plain(start: Start) -> View:
    """What a job without namespaces finds, where it really is."""
    folder = start.folder
    paths = {"/output": folder / "output", "/floyd/output": folder / "output", "/floyd/home": folder / "home"}
    for name, path in start.mounts.items():
        paths |= {f"/{name}": path, f"/floyd/input/{name}": path}
    return View(str(folder / "home"), str(folder / "tmp"), str(folder / "bin"), {name: str(path) for name, path in paths.items()}, port=0)


def _open(opened: contextlib.ExitStack, path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    opened.callback(os.close, descriptor)
    return descriptor


def _write(path: Path, content: bytes) -> None:
    """At once or not at all."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, path)
