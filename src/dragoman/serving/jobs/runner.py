"""The reconciler of jobs: compares what is wanted with what runs, and acts. One per data directory, in the first worker. Made by server/jobs.py.

At the start it takes over what a server that died has left running, and finds out how the rest ended. At the end it ends every process.
"""

import asyncio
import contextlib
import logging
import os
from dataclasses import replace

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import ENDED, Job, Phase, Step, plan_job, requeued
from dragoman.engines.locks import FileLock
from dragoman.engines.removal import remove_tree
from dragoman.serving.jobs import log as job_log
from dragoman.serving.jobs.kept import Kept
from dragoman.serving.jobs.run import LEAVE_GRACE_S, LIVE, Parts, Run
from dragoman.serving.paths import private_folder

log = logging.getLogger("dragoman.jobs")

_LOCK = "runner.lock"
"""Servers with a database of their own are kept from sharing a data directory by its lock; those with one in common are not."""
_LOOK_S = 5.0
"""How often it looks although nothing has changed."""
_TOLD = 20
"""So many of those who wait are told their place in the line each time it changes."""
_TAKE_S = 2.0
_LEAVE_S = LEAVE_GRACE_S + 1.5


class Runner:
    """`most`: jobs that may run at the same time, 0 for any number."""

    def __init__(self, kept: Kept, parts: Parts, most: int = 0) -> None:
        self._kept = kept
        self._board = kept.board
        self._parts = parts
        self._most = most
        self._runs: dict[str, tuple[Run, asyncio.Task[None]]] = {}
        self._taken: dict[str, asyncio.Task[None]] = {}
        """Jobs that are being taken over."""
        self._task: asyncio.Task[None] | None = None
        self._lock: FileLock | None = None

    async def start(self) -> None:
        """Adopt what runs, and act. The board knows the jobs already. Waits while another server runs the jobs of this data directory."""
        await asyncio.to_thread(private_folder, self._board.runs)
        self._lock = await FileLock.wait(self._board.runs.with_name(_LOCK), waiting=_tell_of_another)
        await asyncio.to_thread(self._sweep)
        for job in self._board.jobs():
            if job.phase in LIVE:
                self._taken[job.id] = asyncio.get_running_loop().create_task(self._take_over(job))
        if self._taken:  # most are there at once; one that does not answer keeps nobody waiting
            await asyncio.wait(self._taken.values(), timeout=_TAKE_S)
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def close(self, *, abandoned: bool = False) -> None:
        """End every process of every job; what is wanted of them stays. With `abandoned` what runs is left to the next server."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        taking = list(self._taken.values())
        if taking:
            await asyncio.wait(taking, timeout=_LEAVE_S)
        for late_one in taking:
            late_one.cancel()
        await asyncio.gather(*taking, return_exceptions=True)
        tasks = [task for _, task in self._runs.values()]
        for run, _ in list(self._runs.values()):
            if not (abandoned and await run.let_go()):
                run.leave()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LEAVE_S)
            for run, task in self._runs.values():
                if task in late and run.running is not None:
                    run.running.kill()
            if late:
                _, late = await asyncio.wait(late, timeout=_LEAVE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._lock is not None:
            self._lock.close()

    # --- what is there at the start ---

    async def _take_over(self, job: Job) -> None:
        try:
            await self._adopt_or_settle(job)
        except Exception:
            log.exception("job %s cannot be taken over", job.name)
        finally:
            self._taken.pop(job.id, None)
            self._board.changes.tell()

    async def _adopt_or_settle(self, job: Job) -> None:
        folder = self._board.folder(job)
        started = await self._parts.adopt(folder)
        if started is not None:
            log.info("job %s goes on: it has run without a server for a while", job.name)
            self._begin(Run(job, self._kept, self._parts, started))
            return
        end = await asyncio.to_thread(self._parts.left, folder)
        if end is not None:
            await Run(job, self._kept, self._parts).settle(end, watched=False)

    def _sweep(self) -> None:
        """Files of jobs whose deletion was broken off."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._board.runs):
                if name.startswith("."):
                    remove_tree(self._board.runs / name)

    # --- from then on ---

    async def _go_on(self) -> None:
        while True:
            count = self._board.changes.count
            try:
                await self._look()
            except ServingError as error:
                log.warning("jobs cannot be looked after: %s; it is tried again", error.message)
            except Exception:
                log.exception("looking after the jobs failed; it is tried again")
            await self._board.changes.after(count, _LOOK_S)

    async def _look(self) -> None:
        """One round over all jobs, those who wait longest first. What is wrong with one keeps nobody else from being looked after."""
        jobs = sorted(self._board.jobs(), key=lambda job: job.created)
        for job in jobs:
            if job.id in self._runs and plan_job(job, live=True) is Step.STOP:
                self._runs[job.id][0].stop()
        await self._end_unknown()
        waiting = 0
        for job in jobs:
            if job.phase in ENDED or job.id in self._runs or job.id in self._taken:
                continue
            try:
                await self._act(job, waiting)
            except (ServingError, OSError) as error:
                if isinstance(error, ServingError) and error.kind is Kind.UNAVAILABLE:
                    raise  # the store is down, for all of them
                log.warning("job %s cannot be looked after: %s; it is tried again", job.name, error)
            waiting += job.phase is Phase.QUEUED and job.id not in self._runs

    async def _act(self, job: Job, waiting: int) -> None:
        """For one that is not live; so many wait before it."""
        live = len(self._runs) + len(self._taken)
        step = plan_job(job, live=False, free=self._most == 0 or live < self._most)
        if step is Step.START:
            await self._start(job)
        elif step is Step.CLOSE:
            await Run(job, self._kept, self._parts).close()
        elif step is Step.AGAIN:
            await self._kept.edit(job.id, requeued)
        elif job.phase is Phase.QUEUED:
            await self._tell(job, waiting)

    async def _end_unknown(self) -> None:
        """Of a job that the store has lost, or somebody removed there, nothing may run on."""
        for identity, (run, _) in list(self._runs.items()):
            if self._board.get(identity) is None and await self._kept.job(identity) is None:
                run.stop()

    async def _start(self, job: Job) -> None:
        await asyncio.to_thread(self._parts.forget, self._board.folder(job))
        started = await self._kept.edit(job.id, lambda now: now.to(Phase.STARTING) if now.phase is Phase.QUEUED and not now.stop else now)
        if started.phase is Phase.STARTING:
            self._begin(Run(started, self._kept, self._parts))

    def _begin(self, run: Run) -> None:
        task = asyncio.get_running_loop().create_task(run.go())
        self._runs[run.job.id] = (run, task)

        def over(ended: asyncio.Task[None]) -> None:
            self._runs.pop(run.job.id, None)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                log.error("job %s: what came of it could not be written", run.job.name, exc_info=error)
            self._board.changes.tell()

        task.add_done_callback(over)

    async def _tell(self, job: Job, ahead: int) -> None:
        """Its place in the line, in its log and its record."""
        are = "job is" if ahead == 1 else "jobs are"
        reason = f"{self._most} jobs run already, as many as may; {ahead or 'no'} {are} ahead of it"
        if ahead < _TOLD and job.reason != reason:
            with contextlib.suppress(OSError):  # the disk is full: its record has it, too
                await asyncio.to_thread(job_log.say, self._board.folder(job), f"waiting: {reason}")
            await self._kept.edit(job.id, lambda now: replace(now, reason=reason) if now.phase is Phase.QUEUED else now)


def _tell_of_another() -> None:
    log.info("another server runs the jobs of this data directory; this one does when that has ended")
