"""The jobs of one worker: builds the parts from the settings, starts and ends them. Called by worker.py.

Every worker has the facade and the board; the first one has the runner, too, which is imported with the first job.
"""

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from dragoman.core.jobs import Limits
from dragoman.server.access import is_local
from dragoman.server.settings import Settings
from dragoman.serving.jobs.board import Board
from dragoman.serving.jobs.code import Code
from dragoman.serving.jobs.data_sets import DataSets
from dragoman.serving.jobs.data_unpacking import DataLimits
from dragoman.serving.jobs.kept import Kept
from dragoman.serving.jobs.metering import Metering
from dragoman.serving.jobs.service import Allowed, Jobs
from dragoman.serving.jobs.sweeping import Sweeping
from dragoman.serving.jobs.trees import CodeLimits
from dragoman.serving.jobs.watch import Watch
from dragoman.serving.late_store import LateStore

if TYPE_CHECKING:
    from dragoman.serving.jobs.runner import Runner

log = logging.getLogger("dragoman.jobs")

FOLDER = "jobs"


def wanted(settings: Settings) -> bool:
    """Whether this server runs jobs: they are code of whoever may call it, so by default only callers of this machine may."""
    return settings.jobs == "on" or (settings.jobs == "auto" and is_local(settings.host))


async def check_isolation(settings: Settings) -> None:
    """Called before a server listens. Raises UNSUPPORTED where its jobs are to have namespaces, and this machine does not allow them."""
    if wanted(settings) and settings.job_isolation == "namespaces":
        from dragoman.server.jobs_running import isolation_of

        await isolation_of(settings)


def allowed(settings: Settings) -> Allowed:
    limits = Limits(
        max_runtime_s=settings.job_max_runtime or math.inf,
        start_timeout_s=settings.job_start_timeout or math.inf,
        idle_s=settings.job_idle_timeout or math.inf,
        memory=settings.job_memory,
        cpus=settings.job_cpus,
        processes=settings.job_processes,
        file_size=settings.job_file_size,
        log_size=settings.job_log_size,
        concurrency=settings.job_concurrency,
    )
    return Allowed(limits, network=not settings.no_job_network, running=settings.max_jobs)


class JobsPart:
    """Everything that a worker has for jobs: the facades for dialects, and what runs behind them from `start` to `close`.

    `jobs`, `code` and `data_sets` are None where the settings want no jobs; then the rest does nothing. `index` is the worker's place among
    those of its server: 0 runs the jobs.
    """

    def __init__(self, settings: Settings, store: LateStore, index: int) -> None:
        self.jobs: Jobs | None = None
        self.code: Code | None = None
        self.data_sets: DataSets | None = None
        self._settings = settings
        self._index = index
        if not wanted(settings):
            return
        self._runner: Runner | None = None
        self._waiting: asyncio.Task[None] | None = None
        folder = settings.data_path.absolute() / FOLDER
        board = Board(folder)
        self._kept = Kept(store, board)
        self._watch = Watch(self._kept, alone=settings.alone)
        self.jobs = Jobs(self._kept, allowed(settings))
        self.code = Code(store, folder / "files", board.make_place, CodeLimits(settings.max_code_files, settings.max_code))
        most = settings.max_data_set
        self.data_sets = DataSets(store, folder, board.make_place, roots=settings.data_root, limits=DataLimits(most, most))
        self._sweeping = Sweeping(self.jobs, self.code, self.data_sets)

    async def start(self) -> None:
        """Show what the store has; the first worker also adopts, starts and ends jobs from now on."""
        if self.jobs is None:
            return
        assert self.data_sets is not None
        await self.data_sets.start()
        await self._watch.start()
        if self._index == 0:
            self._sweeping.start()
            self._waiting = asyncio.get_running_loop().create_task(self._wait_and_run())

    async def metering(self) -> Metering | None:
        """What all jobs have used, for the metrics page."""
        return None if self.jobs is None else await self.jobs.metering()

    async def close(self, *, abandoned: bool = False) -> None:
        """End every process of every job; what is desired of them stays, for the next server. With `abandoned` they run on until it comes."""
        if self.jobs is None:
            return
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
        await self._sweeping.close()
        if self._runner is not None:
            await self._runner.close(abandoned=abandoned)
        if self.data_sets is not None:
            await self.data_sets.close()
        await self._watch.close()
        await self.jobs.close()

    async def _wait_and_run(self) -> None:
        board = self._kept.board
        while not board.jobs():
            await board.changes.after(board.changes.count)
        try:
            await self._run()
        except Exception:
            log.exception("jobs cannot be run on this server")

    async def _run(self) -> None:
        from dragoman.server.jobs_running import running
        from dragoman.serving.jobs.runner import Runner

        assert self.code is not None
        assert self.data_sets is not None
        self._runner = Runner(self._kept, running(self._settings, self.code, self.data_sets), self._settings.max_jobs)
        await self._runner.start()
