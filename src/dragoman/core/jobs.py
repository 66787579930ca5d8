"""Jobs: people's own programs (FloydHub's serve, command and jupyter modes). What one is, which states it goes through, what one start needs. Pure.

    QUEUED --slot free--> STARTING --the program runs--> RUNNING --ended--> SUCCESS, FAILED, TIMEOUT
    RUNNING --idle--> ASLEEP --request--> STARTING
    any but an ended one --stop wanted--> STOPPING --no process left--> SHUTDOWN

Kept by serving/jobs (store, runner), started by engines/jobs, watched from inside by hosting/jobs, shown by dialects/floydhub.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, unique
from pathlib import Path

from dragoman.core.model import EMPTY

PORT = 5000
"""Where every job's program listens, as it sees it (FloydHub requirement F10)."""


@unique
class Mode(Enum):
    SERVE = "serve"
    COMMAND = "command"
    JUPYTER = "jupyter"


@unique
class Phase(Enum):
    QUEUED = "queued"
    STARTING = "starting"
    """Code is placed, its environment made."""
    RUNNING = "running"
    """The program has been started: this is what is counted and limited. Whether it accepts connections yet, its gate knows."""
    ASLEEP = "asleep"
    """Stopped for want of requests; the next one starts it again."""
    STOPPING = "stopping"
    SUCCESS = "success"
    FAILED = "failed"
    SHUTDOWN = "shutdown"
    TIMEOUT = "timeout"


ENDED = frozenset({Phase.SUCCESS, Phase.FAILED, Phase.SHUTDOWN, Phase.TIMEOUT})

_MOVES: Mapping[Phase, frozenset[Phase]] = {
    Phase.QUEUED: frozenset({Phase.STARTING, Phase.STOPPING, Phase.FAILED}),
    Phase.STARTING: frozenset({Phase.RUNNING, Phase.FAILED, Phase.STOPPING, Phase.QUEUED}),
    Phase.RUNNING: frozenset({Phase.SUCCESS, Phase.FAILED, Phase.TIMEOUT, Phase.STOPPING, Phase.ASLEEP, Phase.QUEUED}),
    Phase.ASLEEP: frozenset({Phase.QUEUED, Phase.STOPPING}),
    Phase.STOPPING: frozenset({Phase.SHUTDOWN}),
    **{ended: frozenset() for ended in ENDED},
}
"""QUEUED again: what a server that was stopped, or died, left behind is started anew by the next one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one job. 0 (of times: inf): no limit."""

    max_runtime_s: float = 604800.0
    """Of running, over all starts; then it ends with TIMEOUT."""
    start_timeout_s: float = 600.0
    """How long a program in serve mode may run without accepting connections, before it has FAILED."""
    idle_s: float = math.inf
    """Without a request for so long, it goes to sleep."""
    memory: int = 0
    """Bytes, of all its processes together."""
    cpus: int = 0
    """Cores that it may use."""
    processes: int = 0
    file_size: int = 0
    """Bytes of one file that it writes."""
    log_size: int = 16 << 20
    """Bytes of output that are kept."""
    concurrency: int = 1
    """Requests that it is given at the same time."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A version of a data set, and the one-level name it appears under: at /NAME and /floyd/input/NAME, read-only."""

    data: str
    """Id of the data set's version."""
    name: str
    title: str = ""
    """user/datasets/x/1, or the folder of the server that was named."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it is kept. Times are seconds since the epoch, durations seconds."""

    id: str
    number: int
    """From 1 in each project."""
    owner: str
    project: str
    """Name of the project; the job is called owner/projects/project/number."""
    project_id: str
    code: str
    """Id of the uploaded code."""
    endpoint: str
    """At /expose/ENDPOINT; 16 or more random URL-safe characters."""
    mode: Mode
    command: str = ""
    """Of a job in command mode, for a shell."""
    description: str = ""
    environment: str = "default"
    """The name that was given with --env."""
    instance: str = "c1"
    mounts: tuple[Mount, ...] = ()
    limits: Limits = Limits()
    network: bool = True
    phase: Phase = Phase.QUEUED
    reason: str = ""
    """Why it ended, or waits."""
    stop: bool = False
    """Whether somebody wants it to end: the other half of what is desired."""
    created: float = 0.0
    started: float = 0.0
    """When its program was first started, 0 before."""
    since: float = 0.0
    """When its program was last started; counts while RUNNING."""
    ended: float = 0.0
    ran_s: float = 0.0
    """Seconds of running that have been added up: of all starts that are over."""
    calls: int = 0
    """Requests that were passed to it, of all starts that are over."""
    place: str = ""
    """Which data directory its files are in: servers that share a store leave each other's jobs alone."""

    @property
    def name(self) -> str:
        return f"{self.owner}/projects/{self.project}/{self.number}"

    def duration_s(self, now: float) -> float:
        """Seconds of running so far: they stand still when it does not run (requirement F24)."""
        return self.ran_s + (max(0.0, now - self.since) if self.phase in (Phase.RUNNING, Phase.STOPPING) and self.since else 0.0)

    def to(self, phase: Phase, reason: str = "") -> "Job":
        """The job in another phase. Raises ValueError for a move that the table does not have."""
        if phase not in _MOVES[self.phase]:
            raise ValueError(f"a job cannot go from {self.phase.name} to {phase.name}")
        return replace(self, phase=phase, reason=reason)


@dataclass(frozen=True, slots=True)
class Start:
    """What one start of a job needs: made by serving/jobs/run.py, carried out by engines/jobs/launch.py."""

    job: str
    folder: Path
    """Of this job alone: home/ and output/ (kept), log (kept), and of one start: tmp/, root/ (what it makes at the top), gate (a unix socket),
    start.json, end.json."""
    mode: Mode
    argv: tuple[str, ...]
    """As inside, in the folder of the code: ("python", "app.py"). `python` is that of `python` below."""
    python: Path
    """Interpreter of the job's virtualenv, outside."""
    readable: tuple[Path, ...] = ()
    """What of the machine must be readable for it inside, at the same path: the virtualenv, the installation that it was made with."""
    environ: Mapping[str, str] = EMPTY
    """Beyond what every job has (FLOYDHUB=1, PATH, HOME, LANG, PORT ...)."""
    mounts: Mapping[str, Path] = EMPTY
    """Name -> folder outside."""
    limits: Limits = Limits()
    ran_s: float = 0.0
    """What counts against max_runtime_s already."""
    network: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """How a started job is, as its gate tells."""

    ready: bool = False
    """Whether the program accepts connections."""
    keeps_prefix: bool = False
    """Whether it wants the endpoint's path in front (requirement F13)."""
    waiting: int = 0
    """Requests in the queue."""
    busy: int = 0
    calls: int = 0
    idle_s: float = 0.0
    """Since the last request ended, or since it was ready."""
    ran_s: float = 0.0
    memory: int = 0
    processes: int = 0
    isolation: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """How one start ended: what end.json says.

    `how`: exit, timeout, memory, processes, start_timeout, orphaned, lost; or why it was ended: stopped (wanted), idle, server (that one ended).
    """

    how: str
    code: int = 0
    """Exit code; negative for a signal."""
    reason: str = ""
    """For people, "" for an exit with 0."""
    ran_s: float = 0.0
    calls: int = 0
    at: float = 0.0


@unique
class Step(Enum):
    """What is to be done for one job now."""

    NOTHING = "nothing"
    START = "start"
    STOP = "stop"
    """End its processes: it was asked for."""
    SLEEP = "sleep"
    """End its processes until the next request."""
    CLOSE = "close"
    """It was to end, and nothing of it runs."""
    AGAIN = "again"
    """It should run and nothing of it does: back into the line."""


def plan_job(job: Job, *, live: bool, free: bool = False, seen: Seen | None = None) -> Step:
    """The one place that decides. `live`: a start of it is under way or runs, in the hands of this server; `free`: one more may run."""
    if job.phase in ENDED:
        return Step.NOTHING
    if job.stop:
        return Step.STOP if live else Step.CLOSE
    if live:
        return Step.SLEEP if seen is not None and sleeps(job, seen) else Step.NOTHING
    if job.phase is Phase.QUEUED:
        return Step.START if free else Step.NOTHING
    return Step.NOTHING if job.phase is Phase.ASLEEP else Step.AGAIN


def sleeps(job: Job, seen: Seen) -> bool:
    """Whether it has been without a request for so long that it is put to sleep."""
    quiet = seen.ready and not seen.busy and not seen.waiting
    return job.mode is Mode.SERVE and job.phase is Phase.RUNNING and quiet and seen.idle_s >= job.limits.idle_s


def after(job: Job, end: End, *, watched: bool = True) -> Job:
    """The job once a start of it is over. `watched`: this server saw it end, it was not found so.

    What was asked to stop is stopped, however it ended. One whose server left it, or that was lost with its machine, goes back into the line.
    """
    begun = job if job.phase is not Phase.STARTING else replace(job.to(Phase.RUNNING), started=job.started or end.at - end.ran_s)
    over = replace(begun, ran_s=job.ran_s + end.ran_s, calls=job.calls + end.calls, since=0.0)
    if job.stop or job.phase is Phase.STOPPING:
        return shut(over, end.at)
    if end.how == "idle":
        return over.to(Phase.ASLEEP, "no request came for a while; the next one wakes it")
    if end.how in _LEFT or (end.how == "lost" and not watched):
        return requeued(over)
    phase = (
        Phase.TIMEOUT if end.how == "timeout" else Phase.SUCCESS if end.how == "exit" and end.code == 0 and not end.reason else Phase.FAILED
    )
    return replace(over.to(phase, end.reason or ("" if phase is Phase.SUCCESS else _reason(end))), ended=end.at)


def shut(job: Job, at: float) -> Job:
    """The job whose end was asked for, once nothing of it runs."""
    if job.phase in ENDED:
        return job
    stopping = job if job.phase is Phase.STOPPING else job.to(Phase.STOPPING)
    return replace(stopping.to(Phase.SHUTDOWN, "stopped"), ended=at, since=0.0)


def failed(job: Job, reason: str, at: float) -> Job:
    """The job that could not be started, or looked after. If its end was asked for meanwhile, that is what it got."""
    if job.phase in ENDED or job.stop or job.phase is Phase.STOPPING:
        return shut(job, at)
    return replace(job.to(Phase.FAILED, reason), ended=at, since=0.0)


def requeued(job: Job) -> Job:
    """The job that nothing runs of any more, though nobody wanted that: back in the line. One that is to end stays as it is."""
    if job.phase in ENDED or job.stop or job.phase in (Phase.QUEUED, Phase.ASLEEP):
        return job
    return replace(job.to(Phase.QUEUED, "its server ended; it is started again"), since=0.0)


_LEFT = frozenset({"server", "orphaned", "stopped"})
"""Ends that nobody wanted who may want one."""


def _reason(end: End) -> str:
    if end.how != "exit":
        return end.how.replace("_", " ")
    return f"the program ended with exit code {end.code}" if end.code >= 0 else f"the program was ended by signal {-end.code}"
