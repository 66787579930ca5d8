"""Now and then, in the process that runs the jobs: removes code that nobody needs, gives up uploads that stand still, goes on with unpacking.

Made by server/jobs.py.
"""

import asyncio
import logging

from dragoman.core.errors import ServingError
from dragoman.serving.jobs.code import Code
from dragoman.serving.jobs.data_sets import DataSets
from dragoman.serving.jobs.service import Jobs

log = logging.getLogger("dragoman.jobs")

_EVERY_S = 3600.0


class Sweeping:
    def __init__(self, jobs: Jobs, code: Code, data_sets: DataSets) -> None:
        self._jobs = jobs
        self._code = code
        self._data_sets = data_sets
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """At once, and then every hour."""
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def sweep(self) -> None:
        """Raises UNAVAILABLE while the store is, OSError when the disk refuses."""
        await self._data_sets.sweep()
        await self._code.sweep({job.code for job in await self._jobs.jobs()})

    async def _go_on(self) -> None:
        while True:
            try:
                await self.sweep()
            except (ServingError, OSError) as error:
                log.warning("what jobs no longer need cannot be removed: %s", error)
            await asyncio.sleep(_EVERY_S)
