"""What every worker knows of the jobs of its data directory: by endpoint, by project, and where the gate of each is. Read on every request.

The board of the process that changes a job shows the change at once; other processes' boards hear the store's bell. Made by server/jobs.py.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from dragoman.core.jobs import ENDED, Job, Phase
from dragoman.serving.changes import Changes
from dragoman.serving.jobs.records import project_id
from dragoman.serving.place import make_place, read_place


class Board:
    """Of the jobs whose files are below `folder`. Of those of other places, on servers that share the store, only `elsewhere` knows.

    `waker` asks for a job that sleeps to be started (service.py).
    """

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "run"
        """In it, one folder per job."""
        self._folder = folder
        self._place = ""
        self.changes = Changes()
        """Told at every change of any job."""
        self.waker: Callable[[str], Awaitable[Job]] | None = None
        self.looker: Callable[[], Awaitable[None]] | None = None
        """Reads the store once more (watch.py), where other processes may have changed it."""
        self._jobs: dict[str, Job] = {}
        self._elsewhere: dict[str, Job] = {}
        self._endpoints: dict[str, str] = {}
        self._projects: dict[str, set[str]] = {}

    # --- looked at by the endpoints ---

    def at(self, endpoint: str) -> Job | None:
        """The job behind /expose/ENDPOINT, also one that waits, sleeps or has ended; None for an endpoint that never was, or was deleted."""
        job = self._endpoints.get(endpoint)
        return None if job is None else self._jobs[job]

    def of_project(self, owner: str, name: str) -> list[Job]:
        """The jobs of a project that have not ended, oldest first: those behind /serve/OWNER/projects/NAME are the ones in mode serve."""
        ids = self._projects.get(project_id(owner, name), ())
        return sorted((self._jobs[each] for each in ids if self._jobs[each].phase not in ENDED), key=lambda job: job.number)

    async def catch_up(self) -> None:
        """See what other workers have written until now: their bell may not have been heard yet."""
        if self.looker is not None:
            await self.looker()

    def elsewhere(self, is_it: Callable[[Job], bool]) -> Job | None:
        """The newest of such jobs on another server."""
        return max(filter(is_it, self._elsewhere.values()), key=lambda job: job.created, default=None)

    def folder(self, job: Job) -> Path:
        return self.runs / job.id

    async def wake(self, job: Job) -> Job:
        """Ask for an ASLEEP job to be started; returns at once with what it is then (QUEUED as a rule). Others are returned as they are."""
        if job.phase is not Phase.ASLEEP or self.waker is None:
            return job
        return await self.waker(job.id)

    async def changed(self, job: Job, timeout_s: float) -> Job | None:
        """The job once its record is another than this one, or after the time-out as it is then; None once it is deleted."""
        end_s = asyncio.get_running_loop().time() + timeout_s
        while True:
            count, now = self.changes.count, self._jobs.get(job.id)
            left_s = end_s - asyncio.get_running_loop().time()
            if now != job or left_s <= 0:
                return now
            await self.changes.after(count, left_s)

    # --- kept up to date ---

    @property
    def place(self) -> str:
        """The name of the folder, "" before its first job."""
        self._place = self._place or read_place(self._folder)
        return self._place

    def make_place(self) -> str:
        """As `place`, which has a name from now on. Blocks. Raises OSError."""
        return make_place(self._folder)

    def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def is_here(self, job: Job) -> bool:
        """Whether its files are, and this server runs it."""
        return job.place == self.place

    def put(self, job: Job) -> None:
        """Show this record of a job from now on."""
        if not self.is_here(job):
            self._elsewhere[job.id] = job
            return
        if self._jobs.get(job.id) == job:
            return
        self._jobs[job.id] = job
        self._endpoints[job.endpoint] = job.id
        self._projects.setdefault(job.project_id, set()).add(job.id)
        self.changes.tell()

    def drop(self, job_id: str) -> None:
        self._elsewhere.pop(job_id, None)
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self._endpoints.pop(job.endpoint, None)
            self._projects[job.project_id].discard(job_id)
            self.changes.tell()

    def replace(self, jobs: list[Job]) -> None:
        """Show these and no others: what the store has."""
        for gone in (self._jobs.keys() | self._elsewhere.keys()) - {job.id for job in jobs}:
            self.drop(gone)
        for job in jobs:
            self.put(job)
