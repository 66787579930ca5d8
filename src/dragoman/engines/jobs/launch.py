"""Starts a job, and takes over one that another server has started. Called by serving/jobs/runner.py, in the one process that runs the jobs.

Nothing of a job depends on this process: its first process (hosting/jobs) writes the log and the ending, and ends the job if no server holds it.
"""

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import IO

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import Start
from dragoman.engines.jobs import gate_line, processes
from dragoman.engines.jobs.allowed import Isolation
from dragoman.engines.jobs.beginning import begin
from dragoman.engines.jobs.started import Record, Started, read_end, read_left, read_record

__all__ = ["Record", "Started", "adopt", "launch", "read_end", "read_left"]

_ANSWER_S = 30.0
"""How long a first process may take to answer: a Python that starts, on a machine that has other things to do."""
_SHOWN = 300


async def launch(start: Start, isolation: Isolation) -> Started:
    """Start a job; returns when its first process answers, which starts the program then.

    Makes home/, output/ and tmp/ in the folder of the start where they are not there; tmp/ is emptied. Raises UNAVAILABLE with the reason when that
    cannot be done, or the job cannot be kept off the network as it asks for; nothing is left then, nor when this is cancelled.
    """
    isolation.check(start.network, f"job '{start.job}'")
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as words:
        beginning = asyncio.ensure_future(asyncio.to_thread(begin, start, isolation, words))
        try:
            record, line, reap = await asyncio.shield(beginning)
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                record, line, reap = await beginning
                line.close()
                processes.kill(record.pid, record.born)
                await loop.run_in_executor(None, reap)
            raise
        except OSError as error:
            raise _failed(start, _said(words) or error.strerror or str(error)) from error
        started = Started(start.folder, record, line, reap)
        try:
            async with asyncio.timeout(_ANSWER_S):
                if await started.answers():
                    return started
        except TimeoutError:
            reason = f"its first process has not answered within {_ANSWER_S:g} s"
        except BaseException:
            await _end(started)
            raise
        else:
            if await asyncio.to_thread(read_end, start.folder) is not None:
                return started  # the program was done before anybody could ask: its ending says how
            reason = "its first process ended at once"
        await _end(started)
        raise _failed(start, _said(words) or reason)


async def adopt(folder: Path) -> Started | None:
    """Take over the job whose start in this folder another server has made.

    None when it has ended; nothing is left of it then, and `read_end` says how it ended, if it could say so itself.
    """
    record = await asyncio.to_thread(read_record, folder)
    if record is None:
        return None
    alive = record.boot == processes.boot() and bool(record.born) and processes.born(record.pid) == record.born
    try:
        line = gate_line.connect(folder) if alive else None
    except OSError:
        line = None
    if line is None:
        if alive:
            processes.kill(record.pid, record.born)
            await processes.gone(record.pid, record.born)
        if not record.contained:
            await asyncio.to_thread(processes.sweep, record.job)
        return None
    started = Started(folder, record, line)
    try:
        async with asyncio.timeout(_ANSWER_S):
            if await started.answers():
                return started
    except TimeoutError:
        pass
    except BaseException:
        await started.release()
        raise
    await _end(started)
    return None


async def _end(started: Started) -> None:
    """Nothing is left of it when this returns, also when it is cancelled meanwhile: it takes moments."""
    started.kill()
    burial = asyncio.ensure_future(started.ended())
    try:
        await asyncio.shield(burial)
    except asyncio.CancelledError:
        await burial
        raise


def _said(words: IO[bytes]) -> str:
    words.seek(0)
    return words.read().decode("utf-8", "replace").strip()[-_SHOWN:]


def _failed(start: Start, reason: str) -> ServingError:
    return ServingError(Kind.UNAVAILABLE, f"job '{start.job}' cannot be started: {reason}", what="job")
