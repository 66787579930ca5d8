"""One start of a job that runs: how it is, how it ends, how it is ended. Made by launch.py; used by serving/jobs/runner.py.

The job's first process (hosting/jobs/inside.py) watches over the rest of it. This keeps a line to it, the "hold": while there is one, the job has
a server. When the line ends the job has ended, and its first process has said how, or it was killed and could not.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dragoman.core.jobs import End, Seen
from dragoman.engines.jobs import gate_line, processes

START = "start.json"
END = "end.json"
_END_S = 10.0
"""How long a first process may take to be gone after its last word; and to begin to end when it is told to."""
_SWEEPS = 20
_ENDED = {field.name for field in fields(End)}


@dataclass(frozen=True, slots=True)
class Record:
    """What start.json says of a start, so that another server can take it over."""

    job: str
    pid: int
    """Of the first process, as this machine sees it."""
    born: int
    boot: str
    at: float
    """Seconds since the epoch."""
    isolation: str
    contained: bool
    """Whether the end of the first process ends all others."""


class Started:
    """A job that has been started. Owns a task; it ends with the job, or with `release`."""

    def __init__(self, folder: Path, record: Record, line: socket.socket, reap: Callable[[], int | None] = lambda: None) -> None:
        self.folder = folder
        self.record = record
        self._reap = reap
        """Waits for the processes that are children of this server; returns the exit code of the job's first one. Called in a thread."""
        self._last = Seen()
        self._told: End | None = None
        """What the first process has said at its end: on a full disk it can write nothing."""
        self._begun: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._end = asyncio.get_running_loop().create_task(self._follow(line))

    @property
    def isolation(self) -> str:
        """Which isolation is in force, in a sentence."""
        return self.record.isolation

    @property
    def pid(self) -> int:
        return self.record.pid

    async def answers(self) -> bool:
        """Wait until its first process has answered: true. False when it ended without an answer."""
        return await asyncio.shield(self._begun)

    async def seen(self) -> Seen:
        """How it is now. When it has ended: how it was when it was last seen."""
        if not self._end.done():
            with contextlib.suppress(OSError):  # a time-out as well
                async with asyncio.timeout(_END_S):
                    self._last = await gate_line.look(self.folder)
        return self._last

    async def ended(self) -> End:
        """Wait until no process of it is left; returns how it ended."""
        return await asyncio.shield(self._end)

    async def stop(self, grace_s: float, how: str = "stopped", reason: str = "") -> End:
        """Ask all of its processes to end, and end them after `grace_s`; returns when none is left."""
        try:
            async with asyncio.timeout(_END_S):
                await gate_line.stop(self.folder, grace_s, how, reason)
            async with asyncio.timeout(grace_s + _END_S):
                return await self.ended()
        except (OSError, TimeoutError):
            self.kill()
        return await self.ended()

    def kill(self) -> None:
        """End it at once."""
        processes.kill(self.record.pid, self.record.born)

    async def release(self) -> None:
        """Let go of it while it runs: for a server that ends and leaves it to the next one."""
        self._end.cancel()
        await asyncio.gather(self._end, return_exceptions=True)

    async def _follow(self, line: socket.socket) -> End:
        reader, writer = await asyncio.open_unix_connection(sock=line)
        try:
            writer.write(b'{"ask": "hold"}\n')
            with contextlib.suppress(OSError, ValueError):
                while told := await reader.readline():
                    answer = gate_line.answered(told)
                    if answer.get("answer") == "ended":  # the line ends with it
                        self._told = _end_in(answer)
                        continue
                    self._last = gate_line.seen_in(answer)
                    if not self._begun.done():
                        self._begun.set_result(True)
        finally:
            writer.close()
            if not self._begun.done():
                self._begun.set_result(False)
        return await self._bury()

    async def _bury(self) -> End:
        """The line has ended: see to it that everything has."""
        try:
            async with asyncio.timeout(_END_S):
                await processes.gone(self.record.pid, self.record.born)
        except TimeoutError:
            self.kill()
            await processes.gone(self.record.pid, self.record.born)
        code = await asyncio.to_thread(self._reap)
        end = await asyncio.to_thread(read_end, self.folder) or self._told
        if not self.record.contained and end is None:
            for _ in range(_SWEEPS):  # what is being started meanwhile is found the next time
                if not await asyncio.to_thread(processes.sweep, self.record.job):
                    break
        return end or self._lost(code)

    def _lost(self, code: int | None) -> End:
        now = time.time()
        reason = "the first process of the job was killed, and all others with it: by somebody on this machine, or because memory ran out"
        if code is None:
            code = -9  # of somebody else's child nobody tells
        elif code > 128:
            code = 128 - code  # as bubblewrap tells of a signal
        used = _used(_read(self.folder / END))
        return End("lost", code, reason, max(self._last.ran_s, now - self.record.at), max(self._last.calls, used.calls), now)


def read_end(folder: Path) -> End | None:
    """How the last start in this folder ended; None while it runs, and when its first process did not live to say so."""
    return _end_in(_read(folder / END))


def read_left(folder: Path) -> End | None:
    """The same of a start that nobody has watched and that does not run: one that was killed, or lost with its machine, has ended, too.

    None when there was none.
    """
    used = _used(_read(folder / END))
    return read_end(folder) or (used if used.ran_s else None)


def forget_end(folder: Path) -> None:
    """The last start in this folder has been accounted for. Blocks. Raises OSError."""
    (folder / END).unlink(missing_ok=True)


def read_record(folder: Path) -> Record | None:
    """The last start in this folder; None when there was none."""
    told = _read(folder / START)
    try:
        return Record(**told)
    except TypeError:
        return None


def _end_in(told: dict[str, Any]) -> End | None:
    """None where it does not say how; names that are not known are left out."""
    if not isinstance(told.get("how"), str):
        return None
    return End(**{name: value for name, value in told.items() if name in _ENDED})


def _used(told: dict[str, Any]) -> End:
    """What a start has used of which nobody can say how it ended."""
    ran_s, calls = told.get("ran_s"), told.get("calls")
    return End("lost", -9, ran_s=ran_s if isinstance(ran_s, float) else 0.0, calls=calls if isinstance(calls, int) else 0)


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
