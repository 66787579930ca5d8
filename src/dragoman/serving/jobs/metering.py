"""What all jobs of this place have used: seconds, calls, and how those that run are now. Shown on the metrics page, and by the API per job."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dragoman.core.jobs import Phase, Seen
from dragoman.engines.jobs import gate_line
from dragoman.serving.jobs.kept import Kept

_LOOK_S = 1.0
"""Longer nobody waits for a gate."""


@dataclass(frozen=True, slots=True)
class Metering:
    """Seconds and calls are those of all jobs that there ever were, deleted ones included: they never get less."""

    phases: Mapping[Phase, int] = field(default_factory=dict)
    seconds: float = 0.0
    calls: int = 0
    waiting: int = 0
    """Requests in the queues of jobs."""
    memory: int = 0
    """Bytes, of all processes of all jobs."""


async def seen(folder: Path) -> Seen | None:
    """How the job in a folder is, by its gate; None when nothing answers."""
    try:
        async with asyncio.timeout(_LOOK_S):
            return await gate_line.look(folder)
    except (OSError, TimeoutError):
        return None


async def metering(kept: Kept, now: float) -> Metering:
    """Of now. Raises UNAVAILABLE while the store is."""
    jobs = kept.board.jobs()
    if not jobs and not kept.board.place:
        return Metering()
    running = [job for job in jobs if job.phase is Phase.RUNNING]
    looks = [look for look in await asyncio.gather(*(seen(kept.board.folder(job)) for job in running)) if look is not None]
    projects = await kept.projects()
    return Metering(
        Counter(job.phase for job in jobs),
        sum(job.duration_s(now) for job in jobs) + sum(project.deleted_s for project in projects),
        sum(job.calls for job in jobs) + sum(look.calls for look in looks) + sum(project.deleted_calls for project in projects),
        sum(look.waiting for look in looks),
        sum(look.memory for look in looks),
    )
