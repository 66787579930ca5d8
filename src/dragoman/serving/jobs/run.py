"""One start of one job, from its place in the line to its end: places the code, prepares the environment, launches, waits, writes what came of it.

Made by runner.py, one for each job that is being started or runs. Whatever happens on the way ends in the job's record and in its log.
"""

import asyncio
import contextlib
import logging
import math
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import ENDED, PORT, End, Job, Mode, Mount, Phase, Seen, Start, Step, after, failed, plan_job, requeued, shut
from dragoman.engines.jobs.beginning import clean
from dragoman.engines.jobs.orders import places
from dragoman.engines.jobs.sandbox import devices
from dragoman.serving.jobs import log as job_log
from dragoman.serving.jobs.kept import Edit, Kept

log = logging.getLogger("dragoman.jobs")

STOP_GRACE_S = 10.0
"""Between asking a program to end and ending it."""
LEAVE_GRACE_S = 3.0
"""The same when the server ends."""
LIVE = (Phase.STARTING, Phase.RUNNING, Phase.STOPPING)
"""Of these something may run."""
_AGAIN_S = 1.0
"""Before the store is tried again."""


class Started(Protocol):
    """A start that runs: engines/jobs/started.py."""

    @property
    def isolation(self) -> str: ...
    async def seen(self) -> Seen: ...
    async def ended(self) -> End: ...
    async def stop(self, grace_s: float, how: str = "stopped", reason: str = "") -> End: ...
    def kill(self) -> None: ...
    async def release(self) -> None: ...


class Prepared(Protocol):
    """What a program runs with: environments.py."""

    @property
    def python(self) -> Path: ...
    @property
    def readable(self) -> tuple[Path, ...]: ...
    @property
    def notebook(self) -> str: ...
    def release(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a Run needs of the rest of the server, as functions: server/jobs_running.py puts them together, tests have others."""

    place: Callable[[str, Path], Awaitable[None]]
    """Puts the code of that id into a folder; one that is there is left as it is."""
    data: Callable[[Mount], Awaitable[Path]]
    """The folder of a data set's version. Raises NOT_FOUND for one that is gone."""
    prepare: Callable[[Job, Path, Callable[[str], None]], Awaitable[Prepared]]
    launch: Callable[[Start], Awaitable[Started]]
    adopt: Callable[[Path], Awaitable[Started | None]]
    left: Callable[[Path], End | None]
    """How the start in a folder ended that nobody watched, with what it had used if it was killed; None when there was none."""
    forget: Callable[[Path], None]
    """A folder has been accounted for: `left` is for the next start in it. Raises OSError."""
    rest: Callable[[Path, float], Awaitable[bool]]
    """Asks the start in a folder to end for want of requests, with that grace. False when there are some after all."""
    isolation: Callable[[bool], Awaitable[str]]
    """The sentence about jobs with, or without, a network."""
    clock: Callable[[], float] = time.time


class Run:
    """One start of one job, in the hands of the runner. With `started` it is one that another server made, and that goes on.

    `go` is run as a task; it ends when nothing of the job runs any more and its record says so.
    """

    def __init__(self, job: Job, kept: Kept, parts: Parts, started: Started | None = None) -> None:
        self.job = job
        self._kept = kept
        self._parts = parts
        self._folder = kept.board.folder(job)
        self._started = started
        self._beginning: asyncio.Task[None] | None = None
        self._prepared: Prepared | None = None
        self._leaving = False
        self._released = False
        self._ending: asyncio.Task[End] | None = None
        self._began = parts.clock()

    @property
    def running(self) -> Started | None:
        return self._started

    async def go(self) -> None:
        try:
            if self._started is None:
                await self._begin_or_end()
            elif self.job.phase is not Phase.STOPPING:
                await self._hold_again()
            if self._started is not None:
                await self._stay(self._started)
        except ServingError as error:
            await self._fail(error.message)
        except Exception:
            log.exception("job %s: its start broke", self.job.name)
            await self._fail("the server failed to run it; its log has the reason")
        finally:
            if self._prepared is not None:
                self._prepared.release()

    def stop(self) -> None:
        """Somebody wants it to end. May be called again."""
        if self._beginning is not None:
            self._beginning.cancel()
        elif self._started is not None and self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._stop(self._started))

    def leave(self) -> None:
        """The server ends: end its processes, leave what is wanted of it."""
        self._leaving = True
        self.stop()

    async def let_go(self) -> bool:
        """The server ends, and what runs is left running; False when nothing does."""
        if self._started is None:
            return False
        self._released = True
        await self._started.release()
        return True

    # --- the start ---

    async def _hold_again(self) -> None:
        """Of a start that was taken over: keep its environment from being removed."""
        with contextlib.suppress(ServingError):
            self._prepared = await self._parts.prepare(self.job, self._folder / "home", lambda _: None)

    async def _begin_or_end(self) -> None:
        self._beginning = asyncio.get_running_loop().create_task(self._begin())
        try:
            await asyncio.wait({self._beginning})
        finally:
            beginning, self._beginning = self._beginning, None
            beginning.cancel()
            await asyncio.gather(beginning, return_exceptions=True)
        if not beginning.cancelled():
            beginning.result()
        elif self._leaving:
            await self._edit(requeued)
        else:
            await self.close()

    async def _begin(self) -> None:
        job = self.job
        home = self._folder / "home"
        again = await asyncio.to_thread(home.exists)
        self._say("starting again, with the files as they were" if again else "starting")
        await self._parts.place(job.code, home)
        if job.mode is Mode.SERVE and not await asyncio.to_thread((home / "app.py").is_file):
            raise ServingError(Kind.INVALID_INPUT, "there is no app.py in the project: serve mode runs `python app.py`", what="job")
        mounts = {mount.name: await self._parts.data(mount) for mount in job.mounts}
        self._prepared = prepared = await self._parts.prepare(job, home, self._say)
        start = Start(
            job=job.id,
            folder=self._folder,
            mode=job.mode,
            argv=_argv(job, prepared.notebook),
            python=prepared.python,
            readable=(*prepared.readable, *(devices() if job.instance.startswith("g") else ())),
            mounts=mounts,
            limits=job.limits,
            ran_s=job.ran_s,
            network=job.network,
        )
        await self._tell(job, start.argv)
        self._started = await self._parts.launch(start)

    async def _tell(self, job: Job, argv: tuple[str, ...]) -> None:
        self._say(f"isolation: {await self._parts.isolation(job.network)}")
        self._say("the project is in /floyd/home, the working directory; what is to be kept goes there or below /output")
        for mount in job.mounts:
            self._say(f"data: {mount.title or mount.data} is at {' and '.join(places(mount.name))}, read-only")
        if job.mode is not Mode.COMMAND:
            self._say(f"endpoint: /expose/{job.endpoint}, port {PORT} of the program")
        self._say(f"running: {job.command if job.mode is Mode.COMMAND else ' '.join(argv)}")

    # --- while it runs ---

    async def _stay(self, started: Started) -> None:
        now = self._parts.clock()

        def running(job: Job) -> Job:
            if job.phase in (Phase.RUNNING, Phase.STOPPING):
                return job
            return replace(job.to(Phase.RUNNING), since=now, started=job.started or now)

        job = await self._edit(running)
        if self._leaving:  # it was too late to break the start off
            self.stop()
        watching = asyncio.get_running_loop().create_task(self._watch(started)) if job and math.isfinite(job.limits.idle_s) else None
        try:
            end = await started.ended()
        except asyncio.CancelledError:
            if not self._released:
                started.kill()
            raise
        finally:
            if watching is not None:
                watching.cancel()
            if self._ending is not None:
                await asyncio.gather(self._ending, return_exceptions=True)
        await self.settle(end)

    async def _watch(self, started: Started) -> None:
        """Put it to sleep when it is idle."""
        while True:
            await asyncio.sleep(max(0.1, min(5.0, self.job.limits.idle_s / 4)))
            job = self._kept.board.get(self.job.id)
            if job is None:
                continue
            try:
                if plan_job(job, live=True, seen=await started.seen()) is Step.SLEEP and await self._parts.rest(self._folder, STOP_GRACE_S):
                    self._say(f"no request for {job.limits.idle_s:g} s: it goes to sleep, and the next request wakes it")
                    return
            except Exception:
                log.exception("job %s: asking whether it is idle failed", job.name)

    async def _stop(self, started: Started) -> End:
        if self._leaving:
            self._say("the server ends; the job is started again with the next one")
            return await started.stop(LEAVE_GRACE_S, "server", "the server ended")
        self._say("stopping: somebody asked for it")
        stopping = started.stop(STOP_GRACE_S, "stopped", "somebody asked for it")
        _, end = await asyncio.gather(  # it ends in time, also while the store is down
            self._edit(lambda job: job.to(Phase.STOPPING) if job.phase is Phase.RUNNING else job), stopping
        )
        return end

    # --- the end ---

    async def settle(self, end: End, *, watched: bool = True) -> Job | None:
        """Write how a start ended, and remove what it has left in /tmp."""
        end = replace(end, at=end.at or self._parts.clock())
        if not self._leaving:
            await asyncio.to_thread(clean, self._folder)
        job = await self._edit(lambda job: after(job, end, watched=watched) if job.phase in LIVE else job)
        self._last_words(job)
        if job is not None and job.phase is Phase.QUEUED and not self._leaving:
            self._say(job.reason)
        return job

    async def close(self) -> None:
        """It was to end before anything of it ran."""
        now = self._parts.clock()
        self._last_words(await self._edit(lambda job: shut(job, now)))

    async def _fail(self, reason: str) -> None:
        now = self._parts.clock()
        self._last_words(await self._edit(lambda job: failed(job, reason, now)))

    def _last_words(self, job: Job | None) -> None:
        if job is None or job.phase not in ENDED:
            return
        if job.reason and job.phase is not Phase.SUCCESS:
            self._say(job.reason)
        self._say(job_log.LAST_LINES[job.phase])
        log.info("job %s: %s%s", job.name, job.phase.value, f", {job.reason}" if job.reason else "")

    # --- records ---

    async def _edit(self, change: Edit) -> Job | None:
        """The job as it is then; None when it is gone. While the store is down this waits for it: what happened must be written."""
        told = False
        while True:
            try:
                self.job = await self._kept.edit(self.job.id, change)
            except ServingError as error:
                if error.kind is Kind.NOT_FOUND:
                    return None
                if not told:
                    log.warning("job %s: its record cannot be written: %s; it is tried again", self.job.name, error.message)
                told = True
                await asyncio.sleep(_AGAIN_S)
            else:
                return self.job

    def _say(self, text: str) -> None:
        try:
            job_log.say(self._folder, text)
        except OSError as error:
            log.warning("job %s: its log cannot be written (%s)", self.job.name, error.strerror)


def _argv(job: Job, notebook: str) -> tuple[str, ...]:
    if job.mode is Mode.COMMAND:
        return ("bash" if shutil.which("bash") else "sh", "-c", job.command)
    if job.mode is Mode.SERVE:
        return ("python", "app.py")
    options: Mapping[str, str] = {
        "ip": "0.0.0.0",  # noqa: S104 # inside of the job: FloydHub's programs listen everywhere
        "port": str(PORT),
        "ServerApp.base_url": f"/expose/{job.endpoint}/",
        "ServerApp.token": "",
        "ServerApp.password": "",
        "ServerApp.allow_remote_access": "True",
    }
    return ("python", "-m", notebook, "--no-browser", "--allow-root", *(f"--{name}={value}" for name, value in options.items()))
