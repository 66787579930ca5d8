"""Jobs as dialects see them: submit, look, stop, restart, delete, on any worker. What is wanted is written into the store; the runner acts.

Called by dialects/floydhub. Everything here returns at once: nothing waits for a program to start or to end.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.jobs import ENDED, Job, Limits, Mode, Mount, Phase, Seen
from dragoman.engines.removal import remove_tree
from dragoman.serving.jobs import log, metering
from dragoman.serving.jobs.board import Board
from dragoman.serving.jobs.kept import Kept, no_job, no_project
from dragoman.serving.jobs.metering import Metering
from dragoman.serving.jobs.records import Project, check_name, new_id, project_id
from dragoman.serving.paths import private_folder
from dragoman.serving.settings import quoted


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that somebody wants. None: as the server's settings say."""

    project_id: str
    code: str
    """Id of the uploaded code."""
    mode: Mode
    command: str = ""
    description: str = ""
    environment: str = "default"
    instance: str = "c1"
    mounts: tuple[Mount, ...] = ()
    max_runtime_s: float | None = None
    """No more than what the server allows."""
    idle_s: float | None = None
    concurrency: int | None = None
    network: bool | None = None
    """Settings that forbid the network are stronger."""
    notes: tuple[str, ...] = ()
    """Lines for its log: what of its floyd.yml is not understood, and the like."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be otherwise in a restart. None: as it was."""

    command: str | None = None
    description: str | None = None
    environment: str | None = None
    instance: str | None = None
    mounts: tuple[Mount, ...] | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the server's settings say about every job."""

    limits: Limits = field(default_factory=Limits)
    network: bool = True
    running: int = 0
    """Jobs that may run at the same time, 0 for any number."""


class Jobs:
    """The facade. Whatever names a job raises NOT_FOUND (what="job") for one that is not there, UNAVAILABLE while the store is down."""

    def __init__(self, kept: Kept, allowed: Allowed, *, clock: Callable[[], float] = time.time) -> None:
        self.board: Board = kept.board
        self.allowed = allowed
        self._kept = kept
        self._clock = clock
        self._removals: set[asyncio.Task[None]] = set()
        kept.board.waker = self._wake

    async def close(self) -> None:
        """Wait for the removal of files that were deleted."""
        await asyncio.gather(*self._removals, return_exceptions=True)

    # --- projects ---

    async def look_up_project(self, owner: str, name: str, *, create: bool = False) -> Project:
        """A project by its name, made with `create` where there is none: the first look-up by its owner does that (requirement F3).

        Raises NOT_FOUND (what="project"); INVALID_INPUT for a name that none can have.
        """
        found = await self._kept.project(project_id(check_name(owner, "owner"), check_name(name, "name")))
        if found is not None:
            return found
        if not create:
            raise no_project(f"{owner}/{name}")
        return await self._kept.make_project(Project(project_id(owner, name), owner, name, self._clock()))

    async def project(self, identity: str) -> Project:
        """By id. Raises NOT_FOUND (what="project")."""
        found = await self._kept.project(identity)
        if found is None:
            raise no_project(identity)
        return found

    async def projects(self, owner: str | None = None) -> list[Project]:
        """Of one owner, or all; oldest first."""
        return await self._kept.projects(owner)

    # --- looks ---

    async def job(self, name: str) -> Job:
        """By id or full name (owner/projects/x/N); owner/projects/x and owner/x without a number mean the newest one of the project.

        A name may have more behind the number (/output, /home, /code, /files, as older clients say); that is ignored.
        """
        if "/" not in name:
            found = await self._kept.job(name)
        else:
            owner, project, number = _parts(name)
            jobs = await self._kept.jobs(project_id(owner, project))
            found = next((each for each in reversed(jobs) if number in (0, each.number)), None)
        if found is None:
            raise no_job(name)
        return found

    async def jobs_of(self, identity: str) -> list[Job]:
        """Those of a project, by its id, newest first."""
        return sorted(await self._kept.jobs(identity), key=lambda job: job.number, reverse=True)

    async def jobs(self) -> list[Job]:
        """All of all projects, oldest first."""
        return await self._kept.jobs()

    def folder(self, job: Job) -> Path:
        """Where its files are: home/ (code and working directory), output/, log."""
        return self.board.folder(job)

    async def log(self, job: Job) -> str:
        """The whole log so far; it exists from the submission on."""
        if not self.board.is_here(job):
            last = log.LAST_LINES.get(job.phase)
            return f"the log of {job.name} is on another server, which runs the job\n" + (f"{last}\n" if last else "")
        return await asyncio.to_thread(log.read, self.folder(job))

    def duration_s(self, job: Job) -> float:
        """Seconds of running so far; they stand still while it does not run (requirement F24)."""
        return job.duration_s(self._clock())

    async def seen(self, job: Job) -> Seen | None:
        """How a RUNNING job is now: whether it is ready, its queue, its memory. None when its gate does not answer."""
        return await metering.seen(self.folder(job))

    async def metering(self) -> Metering:
        """What all jobs of this place have used."""
        return await metering.metering(self._kept, self._clock())

    # --- changes ---

    async def submit(self, wanted: Submission) -> Job:
        """A new job with the next number of its project, QUEUED. Raises NOT_FOUND for the project, INVALID_INPUT."""
        self._check(wanted)
        project = await self._kept.next_number(wanted.project_id)
        job = Job(
            id=new_id(),
            number=project.last,
            owner=project.owner,
            project=project.name,
            project_id=project.id,
            code=wanted.code,
            endpoint=new_id(),
            mode=wanted.mode,
            command=wanted.command,
            description=wanted.description,
            environment=wanted.environment,
            instance=wanted.instance,
            mounts=wanted.mounts,
            limits=self._limits(wanted),
            network=self.allowed.network and wanted.network is not False,
            created=self._clock(),
        )
        job = replace(job, place=await asyncio.to_thread(self._begin, job, wanted.notes))
        await self._kept.add(job)
        return job

    async def restart(self, job: Job, changes: Changes) -> Job:
        """The same code once more, as a job with a new number and a new endpoint (requirement F26). The old one is left as it is."""
        limits = job.limits
        return await self.submit(
            Submission(
                project_id=job.project_id,
                code=job.code,
                mode=job.mode,
                command=job.command if changes.command is None else changes.command,
                description=job.description if changes.description is None else changes.description,
                environment=job.environment if changes.environment is None else changes.environment,
                instance=job.instance if changes.instance is None else changes.instance,
                mounts=job.mounts if changes.mounts is None else changes.mounts,
                max_runtime_s=limits.max_runtime_s,
                idle_s=limits.idle_s,
                concurrency=limits.concurrency,
                network=job.network,
            )
        )

    async def stop(self, job: Job) -> Job:
        """Want it to end; returns at once. Raises CONFLICT for one that has ended, or that somebody stopped already."""

        def stopped(now: Job) -> Job:
            if now.phase in ENDED:
                raise ServingError(Kind.CONFLICT, f"job {now.name} has ended already ({now.phase.value})", what="job")
            if now.stop:
                raise ServingError(Kind.CONFLICT, f"job {now.name} is being stopped already", what="job")
            return replace(now, stop=True)

        return await self._kept.edit(job.id, stopped)

    async def delete(self, job: Job) -> None:
        """Remove an ended job with all its files. Raises CONFLICT for one that has not ended, whose files another that has not mounts, or
        whose files are on another server."""
        now = await self.job(job.id)
        if not self.board.is_here(now):
            raise ServingError(Kind.CONFLICT, f"the files of job {now.name} are on another server; delete it there", what="job")
        if now.phase not in ENDED:
            raise ServingError(Kind.CONFLICT, f"job {now.name} has not ended ({now.phase.value}); stop it first", what="job")
        for other in self.board.jobs():
            if other.phase not in ENDED and any(mount.data.startswith(f"{now.id}.") for mount in other.mounts):
                raise ServingError(Kind.CONFLICT, f"files of job {now.name} are mounted by {other.name}, which has not ended", what="job")
        condemned = await asyncio.to_thread(self._condemn, now)
        await self._kept.remove(now)
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(remove_tree, condemned))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    # --- inside ---

    async def _wake(self, job_id: str) -> Job:
        return await self._kept.edit(job_id, lambda job: job.to(Phase.QUEUED, "woken by a request") if job.phase is Phase.ASLEEP else job)

    def _check(self, wanted: Submission) -> None:
        if wanted.mode is Mode.COMMAND and not wanted.command.strip():
            raise invalid("command is missing, expected what a job in command mode runs", "command")
        if wanted.mode is not Mode.COMMAND and wanted.command.strip():
            raise invalid(f"command is {quoted(wanted.command)}, expected none in {wanted.mode.value} mode", "command")
        for name, most in (("description", _LONGEST_DESCRIPTION), ("command", _LONGEST_COMMAND)):
            size = len(getattr(wanted, name).encode("utf-8", "replace"))
            if size > most:
                raise invalid(f"{name} has {size} bytes, expected {most} at most", name)
        for name in ("max_runtime_s", "idle_s"):
            value = getattr(wanted, name)
            if value is not None and not value > 0:
                raise invalid(f"{name} is {value}, expected more than 0 seconds", name)
        if wanted.concurrency is not None and not 1 <= wanted.concurrency <= _MOST_AT_ONCE:
            raise invalid(f"concurrency is {wanted.concurrency}, expected 1 to {_MOST_AT_ONCE}", "concurrency")

    def _limits(self, wanted: Submission) -> Limits:
        limits = self.allowed.limits
        return replace(
            limits,
            max_runtime_s=limits.max_runtime_s if wanted.max_runtime_s is None else min(wanted.max_runtime_s, limits.max_runtime_s),
            idle_s=limits.idle_s if wanted.idle_s is None else wanted.idle_s,
            concurrency=limits.concurrency if wanted.concurrency is None else wanted.concurrency,
        )

    def _begin(self, job: Job, notes: tuple[str, ...]) -> str:
        """Its folder and the first lines of its log: whoever asks finds them from the first second (section 10 of the sheet).

        Returns the name of the place.
        """
        folder = self.folder(job)
        try:
            private_folder(folder)
            log.say(folder, "\n".join([f"{job.name}: submitted, mode {job.mode.value}, environment {job.environment}", *notes]))
            return self.board.make_place()
        except OSError as error:
            raise ServingError(Kind.UNAVAILABLE, f"the files of a job cannot be written ({error.strerror})", what="job") from error

    def _condemn(self, job: Job) -> Path:
        """Out of sight at once: removing many files may take longer than a client waits."""
        condemned = self.board.runs / f".{job.id}"
        try:
            self.folder(job).rename(condemned)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ServingError(Kind.UNAVAILABLE, f"the files of job {job.name} cannot be removed ({error.strerror})", what="job") from error
        return condemned


_MOST_AT_ONCE = 1024
_LONGEST_DESCRIPTION = 10_000
"""Of each job, which every worker keeps in memory."""
_LONGEST_COMMAND = 100_000
"""No program can be given one word that is much longer."""


def _parts(name: str) -> tuple[str, str, int]:
    """Owner, project and number (0: none given) of a full name. Raises NOT_FOUND for what is none."""
    parts = name.split("/")
    if len(parts) > 2 and parts[1] == "projects":
        del parts[1]
    if len(parts) > 2 and not (parts[2].isascii() and parts[2].isdigit() and len(parts[2]) < 10 and int(parts[2])):
        raise no_job(name)
    return parts[0], parts[1], int(parts[2]) if len(parts) > 2 else 0
