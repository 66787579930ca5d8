"""What the runner starts jobs with: isolation, environments, code and data, put together from the settings. Called by server/jobs.py."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from dragoman.core.jobs import Job, Mount, Start
from dragoman.engines.jobs import gate_line
from dragoman.engines.jobs.isolation import Isolation, find
from dragoman.engines.jobs.launch import adopt, launch
from dragoman.engines.jobs.started import Started, forget_end, read_left
from dragoman.server.settings import Settings
from dragoman.serving.jobs.accounts import Accounts
from dragoman.serving.jobs.code import Code
from dragoman.serving.jobs.data_sets import DataSets
from dragoman.serving.jobs.environments import JOBS_FOLDER, JobEnvironments, Prepared, confined_by
from dragoman.serving.jobs.run import Parts

log = logging.getLogger("dragoman.jobs")


async def isolation_of(settings: Settings) -> Isolation:
    """What this machine allows jobs, tried. Raises UNSUPPORTED when the settings ask for more than there is."""
    return await find(settings.job_isolation, (settings.data_path,))


class _Isolations:
    """What this machine allows, tried when the first job starts: that takes a moment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._found: Isolation | None = None

    async def get(self) -> Isolation:
        """Raises UNSUPPORTED when the settings ask for more than there is."""
        async with self._lock:
            if self._found is None:
                self._found = await isolation_of(self._settings)
                _tell(self._found)
            return self._found


def _tell(found: Isolation) -> None:
    """The operator, who does not read the logs of jobs."""
    if found.bwrap:
        log.info("isolation of jobs: %s", found.sentence())
    else:
        may = (
            "a job may do anything on this machine, as the server runs as root" if os.geteuid() == 0 else "a job may do what the server may"
        )
        log.warning("isolation of jobs: %s; %s", found.sentence(), may)


def running(settings: Settings, code: Code, data_sets: DataSets) -> Parts:
    """The parts of every start."""
    isolations = _Isolations(settings)
    folder = settings.data_path.absolute() / JOBS_FOLDER
    environments = JobEnvironments(folder, frameworks=settings.env_frameworks, confine=confined_by(isolations.get))
    accounts = Accounts(settings.data_path)

    async def data(mount: Mount) -> Path:
        return await data_sets.folder(mount.data)

    async def prepare(job: Job, home: Path, log: Callable[[str], None]) -> Prepared:
        owner = job.owner if accounts.exist else ""
        return await environments.prepare(job.environment, home, log, mode=job.mode, owner=owner)

    async def launched(start: Start) -> Started:
        return await launch(start, await isolations.get())

    async def rest(job: Path, grace_s: float) -> bool:
        return await gate_line.stop(job, grace_s, "idle", "no request came for a while")

    async def isolation(network: bool) -> str:
        return (await isolations.get()).sentence(network)

    return Parts(code.place, data, prepare, launched, adopt, read_left, forget_end, rest, isolation)
