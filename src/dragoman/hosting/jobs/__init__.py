"""What runs inside a job: its first process, and the gate that the rest of the server talks to. Started by engines/jobs/launch.py.

This folder is all that a job sees of Dragoman: it needs the standard library of Python 3.8 or newer and imports nothing from outside itself.

How one start is begun: `PYTHON -I -S FOLDER N`, where FOLDER is this folder, wherever it lies (it must keep its name, `jobs`), and N is the
number of an inherited descriptor that the orders, one JSON object, are read from to its end. The fields are those of `Orders` below. Three
more descriptors are inherited, so that nothing of the machine has to be visible inside: the listening unix socket, the log and the ending.
Any others that are inherited stay open as long as the process lives; the program gets none of them.
The process becomes the job's first: pid 1 where it is that already (bwrap --as-pid-1), else the one that orphans are given to.

How it ends: when no process of the job is left, one line of JSON, the fields of `core.jobs.End`, is written to the ending in one piece, sent to
who holds the gate, and the process exits with 0. SIGTERM means `stop`. Until then the ending has `ran_s` and `calls` only, as they are: without
`how` it is none, and the first process was killed.

The gate. One JSON object per line each way; at most one question is open on a connection:

    {"ask": "permit"}  {"answer": "wait", "ahead": N} when it must wait: N requests are before it, those that run included. Then
                       {"answer": "go", "prefix": "keep" | "strip"} and, with SCM_RIGHTS beside that line, a socket that is connected to
                       the program; or {"answer": "no", "state": "starting" | "ending", "reason": TEXT, "ran_s": S} at once while the
                       program accepts no connections yet or any more; or {"answer": "failed", "reason": TEXT} when it did and refuses now.
    {"ask": "done"}    gives the permit back, without an answer; closing the connection does that too, and leaves the queue.
    {"ask": "last"}    gives the permit back, too, but goes on with the program in another protocol (WebSocket), for as long as the
                       connection is open: no request waits for that, and the job is not idle meanwhile. There is no answer.
    {"ask": "look"}    {"answer": "seen", ...} with the fields of `core.jobs.Seen`.
    {"ask": "hold"}    the same at once, and again whenever `ready` changes; at the end {"answer": "ended", ...} with those of `End`.
                       While one who holds is connected, the job has somebody who looks after it; else it ends after `orphan_s`.
    {"ask": "stop", "grace_s": S, "how": HOW, "reason": TEXT}   {"answer": "stopping"}; HOW and TEXT are those of the ending.
                       With HOW "idle" {"answer": "busy"}, and nothing is stopped, while there are requests.

Permits are granted in order, `concurrency` at a time. One that is given back counts until the program has let go of its connection, for a
minute at most: it may still be at work for a sender who has hung up, and programs expect one request at a time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, Mapping

PORT = 5000
"""Where a program listens, as it sees it."""


@dataclass(frozen=True)
class Limits:
    """Those of `core.jobs.Limits`, under the same names. 0, or of times infinity: no limit."""

    max_runtime_s: float = 0.0
    start_timeout_s: float = 0.0
    idle_s: float = 0.0
    """Not kept here: who holds the gate sees how long the job has been idle, and stops it."""
    memory: int = 0
    cpus: int = 0
    processes: int = 0
    file_size: int = 0
    log_size: int = 0
    concurrency: int = 1


@dataclass(frozen=True)
class Orders:
    """What one start is to do. As JSON: an object with these names."""

    mode: str
    """serve, jupyter (both have an endpoint) or command."""
    argv: tuple[str, ...]
    """As inside; the first is looked for on the PATH of `environ`. In serve mode the last is the program's file, app.py."""
    python: str
    """The job's interpreter, as inside: a second-era app.py is served with it."""
    cwd: str
    environ: Mapping[str, str]
    """All that the program sees. PORT, PYTHONUNBUFFERED and what the shim needs are added."""
    gate: int
    """Descriptor of the listening unix socket."""
    log: int
    """Descriptor of the log, opened to append."""
    end: int
    """Descriptor of the ending, an empty file opened to write."""
    limits: Limits = Limits()
    ran_s: float = 0.0
    """What counts against max_runtime_s already."""
    port: int = PORT
    """Where the program is reached. Not 5000 where jobs share a network: then 0 (one is chosen), or a free port. The shim moves it there."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Path that the program uses (/output) -> the real one. Only where the job has no files of its own: the shim maps them."""
    isolation: str = ""
    """For `Seen`."""
    grace_s: float = 10.0
    """Between SIGTERM and SIGKILL, when nobody says otherwise."""
    orphan_s: float = 60.0


def orders_from(text: bytes) -> Orders:
    """Raises ValueError, TypeError or KeyError for what are no orders; names that are not known are left out, so that both ends may grow."""
    found: Any = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("orders are an object")
    known = {f.name for f in fields(Orders)}
    limits = {f.name for f in fields(Limits)}
    orders = {name: value for name, value in found.items() if name in known}
    orders["argv"] = tuple(orders["argv"])
    orders["limits"] = Limits(**{name: value for name, value in orders.get("limits", {}).items() if name in limits})
    return Orders(**orders)
