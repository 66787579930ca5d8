"""Our end of a job's gate: the unix socket on which the first process of a job answers. The protocol is in hosting/jobs/__init__.py.

Here is how to reach it, and what is asked about a job; asking for a permit, which brings a socket along, is serving/jobs/permits.py.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from dragoman.core.jobs import Seen

GATE = "gate"
_BACKLOG = 512
_LIMIT = 1 << 16
_SEEN = {field.name for field in fields(Seen)}


def listen(folder: Path) -> socket.socket:
    """A listening socket at folder/gate, for this user alone; what is there is replaced. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        (folder / GATE).unlink()
    gate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(folder) as path:
            gate.bind(path)
        os.chmod(folder / GATE, 0o600)
        gate.listen(_BACKLOG)
    except BaseException:
        gate.close()
        raise
    return gate


def connect(folder: Path) -> socket.socket:
    """A line to the gate of this folder. Raises OSError when nobody listens, or its queue is full."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.setblocking(False)  # to a unix socket this connects at once, or not at all
    try:
        with _short(folder) as path:
            line.connect(path)
    except BaseException:
        line.close()
        raise
    return line


async def opened(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The same, as streams."""
    return await asyncio.open_unix_connection(sock=connect(folder), limit=_LIMIT)


async def ask(folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """One question on a line of its own, and its answer. Raises OSError when there is none."""
    reader, writer = await opened(folder)
    try:
        writer.write(json.dumps(question).encode() + b"\n")
        return answered(await reader.readline())
    finally:
        writer.close()


async def look(folder: Path) -> Seen:
    """How a job is now. Raises OSError when nobody tells."""
    return seen_in(await ask(folder, {"ask": "look"}))


async def stop(folder: Path, grace_s: float, how: str, reason: str) -> bool:
    """Ask a job's first process to end it, with those words in its End. False when it will not: how is "idle", and it is not.

    Raises OSError when nobody answers.
    """
    asked = {"ask": "stop", "grace_s": grace_s, "how": how, "reason": reason}
    return (await ask(folder, asked)).get("answer") == "stopping"


def answered(line: bytes) -> dict[str, Any]:
    """One answer. Raises ConnectionError when it is none: the gate has gone."""
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ConnectionError("the gate of the job does not answer")
    return answer


def seen_in(answer: dict[str, Any]) -> Seen:
    """What an answer to `look` or `hold` says. Raises ConnectionError for any other."""
    if answer.get("answer") != "seen":
        raise ConnectionError("the gate of the job does not say how it is")
    return Seen(**{name: value for name, value in answer.items() if name in _SEEN})


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A path of the gate that has fewer than 107 bytes, whatever those of its folder have."""
    path = str(folder / GATE)
    if len(os.fsencode(path)) < 100:
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{GATE}"
    finally:
        os.close(descriptor)
