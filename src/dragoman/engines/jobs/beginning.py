"""Begins a start: its folders, its gate, its first process, and the orders of that. Blocking; called by launch.py in a thread."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO

from dragoman.core.disk import write_whole
from dragoman.core.jobs import Start
from dragoman.engines.jobs import bubble, gate_line, processes, sandbox
from dragoman.engines.jobs.allowed import Isolation
from dragoman.engines.jobs.bubble import First
from dragoman.engines.jobs.orders import PROGRAMS, SEARCHED, View, mounted, orders
from dragoman.engines.jobs.started import END, START, Record
from dragoman.engines.removal import remove_tree

_ENVIRON = {"PATH": os.pathsep.join(SEARCHED), "LANG": "C.UTF-8"}
"""Of the first process; that of the program is in its orders."""


_PASSING = ("tmp", "bin", "root")


def begin(start: Start, isolation: Isolation, words: IO[bytes]) -> tuple[Record, socket.socket, Callable[[], int]]:
    """What start.json says now, a line to the gate, and what waits for the end. Raises OSError; nothing runs then.

    `words` gets what the first process says when it cannot begin.
    """
    folder = start.folder
    for name in ("home", "output"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    clean(folder)
    for name in _PASSING:
        (folder / name).mkdir(mode=0o700)
    for name in PROGRAMS:
        (folder / "bin" / name).symlink_to(start.python)
    with contextlib.ExitStack() as opened:
        gate = opened.enter_context(gate_line.listen(folder))
        log = _open(opened, folder / "log", os.O_WRONLY | os.O_APPEND)
        (folder / END).unlink(missing_ok=True)
        end = _open(opened, folder / END, os.O_WRONLY | os.O_EXCL)
        reader, writer = os.pipe()
        theirs = opened.enter_context(open(reader, "rb", 0))
        ours = opened.enter_context(open(writer, "wb"))
        line = gate_line.connect(folder)
        with contextlib.ExitStack() as failed:
            failed.callback(line.close)
            first, view = _first(start, isolation, theirs.fileno(), (gate.fileno(), log, end), words)
            failed.callback(first.kill)
            said, contained = isolation.sentence(start.network), bool(isolation.bwrap)
            record = Record(start.job, first.pid, processes.born(first.pid), processes.boot(), time.time(), said, contained)
            write_whole(folder / START, json.dumps(asdict(record)).encode())
            with contextlib.suppress(BrokenPipeError):  # it has ended already, and has said why
                ours.write(orders(start, view, said, gate=gate.fileno(), log=log, end=end))
                ours.close()
            failed.pop_all()
    return record, line, first.reap


def clean(folder: Path) -> None:
    """Remove from the folder of a start what is of that one only; nothing of it may run."""
    for name in _PASSING:
        remove_tree(folder / name)


def _first(start: Start, isolation: Isolation, told: int, inherited: tuple[int, int, int], words: IO[bytes]) -> tuple[First, View]:
    """The first process, which waits for its orders, and what its program will find."""
    if isolation.bwrap:
        described, view = sandbox.job(start, isolation, told)
        return bubble.begin(described, (told, *inherited), words, _ENVIRON), view
    child = bubble.spawn([str(start.python), "-I", "-S", str(sandbox.INSIDE), str(told)], (told, *inherited), words, _ENVIRON)
    return First(child, child.pid), _plain(start)


def _plain(start: Start) -> View:
    """What a job without namespaces finds, where it really is."""
    folder = start.folder
    paths = {"/output": folder / "output", "/floyd/output": folder / "output", "/floyd/home": folder / "home"}
    paths |= {at: path for path, at in mounted(start)}
    paths["/"] = folder / "root"
    return View(str(folder / "home"), str(folder / "tmp"), str(folder / "bin"), {name: str(path) for name, path in paths.items()}, port=0)


def _open(opened: contextlib.ExitStack, path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    opened.callback(os.close, descriptor)
    return descriptor
