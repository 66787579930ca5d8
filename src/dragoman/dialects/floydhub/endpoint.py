"""The endpoints of jobs: /expose/ID leads to one job's program, /serve/USER/projects/NAME to any of a project's. Made by the server, once.

A request waits at the gate of its job (serving/jobs/permits.py) for its turn and is passed on (endpoint_passing.py). Here is decided which job gets
it, what happens while that one starts or sleeps, and what callers are told instead: always JSON with `message`, `state` and `seconds`.
"""

import asyncio
import sys
import time

from dragoman.core.errors import ServingError
from dragoman.core.jobs import ENDED, Job, Mode, Phase
from dragoman.dialects import USUAL_STATUS, Access, Answer, Request, Route, Services, path_error
from dragoman.dialects.floydhub.endpoint_headers import Place, place_of
from dragoman.dialects.floydhub.endpoint_passing import begun, passed
from dragoman.dialects.floydhub.endpoint_reply import BadReply
from dragoman.dialects.refusals import body_of, headers, words
from dragoman.serving.jobs.board import Board
from dragoman.serving.jobs.permits import Busy, Permit, Refused, ask

_HELD_S = 120.0
"""How long a request is held for a job that is brought back: from sleep, or after the server's own restart."""
_LOOK_S = 0.1
"""How often a program that starts is asked meanwhile; nothing on the board tells when it accepts connections."""
_SETTLE_S = 2.0
"""How long after its gate has closed a job's record may still say that it runs."""
_RETRY_S = 2


class Endpoint:
    """A Dialect. Without jobs on this server every path below its prefixes is one that is not there."""

    name = "floydhub_endpoint"
    prefixes: tuple[str, ...] = ("/expose", "/serve")

    def __init__(self, services: Services) -> None:
        self._jobs = services.jobs
        self._turn = 0

    def route(self, request: Request) -> Route:
        place = place_of(request.raw_path)
        if self._jobs is None or place is None:
            raise path_error(request)
        request.max_body = sys.maxsize  # what it takes is the program's affair
        return Route(self._answer, Access.PUBLIC)

    def refuse(self, request: Request, error: ServingError) -> Answer:
        status = error.status or USUAL_STATUS[error.kind]
        # Below /serve there are Submarine's addresses, too, and the protocols that were meant there say `error`.
        return Answer(status, body_of({"message": words(error), "error": words(error)}), headers=headers(status, error))

    async def _answer(self, request: Request) -> Answer:
        assert self._jobs is not None
        place = place_of(request.raw_path)
        assert place is not None
        if asyncio.current_task() is None:
            await asyncio.sleep(0)  # into a task: what follows has time-outs
        board = self._jobs.board
        jobs = _behind(board, place)
        if not jobs and board.at(place.endpoint) is None:
            await board.catch_up()
            jobs = _behind(board, place)
        if not jobs:
            return _nothing(board, place)
        body = await begun(request)
        found = await self._permit(board, jobs)
        if not isinstance(found, tuple):
            return found
        permit, job = found
        try:
            return await passed(request, place, body, permit)
        except BadReply as exc:
            return _told(502, str(exc), job)

    async def _permit(self, board: Board, jobs: list[Job]) -> tuple[Permit, Job] | Answer:
        """Leave to ask one of these jobs: of those that run, in turn, the first that is free."""
        running = [job for job in jobs if job.phase is Phase.RUNNING]
        if len(running) > 1:
            self._turn += 1
            at = self._turn % len(running)
            busy: list[tuple[int, Job]] = []
            for job in running[at:] + running[:at]:
                said = await ask(board.folder(job), patient=False)
                if isinstance(said, Permit):
                    return said, job
                if isinstance(said, Busy):
                    busy.append((said.ahead, job))
            if busy:
                return await _admitted(board, min(busy, key=lambda each: each[0])[1])
        return await _admitted(board, (running or [job for job in jobs if job.phase is not Phase.STOPPING] or jobs)[-1])


def _behind(board: Board, place: Place) -> list[Job]:
    """The jobs that a request may go to, oldest first: none for an endpoint that nothing is behind any more."""
    if place.endpoint:
        job = board.at(place.endpoint)
        return [] if job is None or job.mode is Mode.COMMAND or job.phase in ENDED else [job]
    return [job for job in board.of_project(place.owner, place.project) if job.mode is Mode.SERVE]


def _nothing(board: Board, place: Place) -> Answer:
    """What is said where no job is: 410 with how it ended, where there was one."""
    if place.endpoint:
        job = board.at(place.endpoint)
        ended = [] if job is None or job.mode is Mode.COMMAND else [job]
    else:
        ended = [job for job in board.jobs() if _is_behind(job, place) and job.phase in ENDED]
    if ended:
        return _over(max(ended, key=lambda job: job.number))
    if (other := board.elsewhere(lambda job: _is_behind(job, place))) is not None:
        return Answer(
            404, body_of({"message": f"{other.name} is a job of another server: its endpoint is there", "state": other.phase.value})
        )
    what = f"endpoint {place.endpoint[:100]}" if place.endpoint else f"job of {place.owner[:100]}/projects/{place.project[:100]}"
    return Answer(404, body_of({"message": f"there is no {what}", "state": "unknown"}))


def _is_behind(job: Job, place: Place) -> bool:
    """Whatever its phase is."""
    if place.endpoint:
        return job.endpoint == place.endpoint and job.mode is not Mode.COMMAND
    return (job.owner, job.project, job.mode) == (place.owner, place.project, Mode.SERVE)


async def _admitted(board: Board, job: Job) -> tuple[Permit, Job] | Answer:
    """Leave to ask this job; or what to tell its caller, for one that starts, ends, or has lost its program.

    A job that has run before, and sleeps or is brought back, is waited for.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + _HELD_S
    settle_s = loop.time() + _SETTLE_S
    while True:
        now_s = loop.time()
        wait_s = end_s - now_s
        if job.phase is Phase.RUNNING:
            said = await ask(board.folder(job))
            if isinstance(said, Permit):
                return said, job
            assert isinstance(said, Refused)
            if said.failed:
                return _told(502, f"{said.reason}; see its log", job)
            held = (end_s if _returns(job) else 0.0) if not said.gone else settle_s
            if now_s >= held:
                return _starting(job, said.reason, said.ran_s)
            wait_s = _LOOK_S
        elif job.phase is Phase.ASLEEP:
            woken = await board.wake(job)
            if woken.phase is not Phase.ASLEEP:
                job = woken
                continue
        elif job.phase in ENDED or job.phase is Phase.STOPPING:
            return _over(job)
        elif not job.started:
            return _starting(job, "")
        if wait_s <= 0:
            return _starting(job, "")
        seen = await board.changed(job, wait_s)
        if seen is None:
            return Answer(404, body_of({"message": f"{job.name} has been deleted", "state": "unknown"}))
        if seen.phase is not job.phase:
            settle_s = loop.time() + _SETTLE_S
        job = seen


def _returns(job: Job) -> bool:
    """Whether a job that runs has been started again, so that its clients know it: they are not sent away."""
    return job.since > job.started


def _starting(job: Job, reason: str, ran_s: float = 0.0) -> Answer:
    what = f"{job.name} does not accept requests yet" if job.phase is not Phase.RUNNING or not reason else f"{job.name}: {reason}"
    since_s = ran_s or time.time() - (job.since or job.created)
    state = "starting" if job.phase is Phase.RUNNING else job.phase.value
    return _told(503, f"{what}; its log says what it does", job, state, since_s)


def _over(job: Job) -> Answer:
    reason = job.reason.partition(": ")[0]  # behind it are a program's last words, or an installer's; whoever has the address may ask
    how = f" ({reason})" if reason else ""
    verb = "is being stopped" if job.phase is Phase.STOPPING else f"has ended: {job.phase.value}{how}"
    return _told(410, f"{job.name} {verb}", job)


def _told(status: int, message: str, job: Job, state: str = "", seconds: float | None = None) -> Answer:
    """Our own words, in place of the program's."""
    seconds = job.duration_s(time.time()) if seconds is None else seconds
    content = {"message": message[:2000], "state": state or job.phase.value, "seconds": round(max(0.0, seconds), 1), "job": job.name}
    return Answer(status, body_of(content), headers=[(b"retry-after", b"%d" % _RETRY_S)] if status == 503 else [])
