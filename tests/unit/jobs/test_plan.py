"""The pure part of jobs: which moves there are, what is to be done next, and what a job is after one start of it is over."""

import math
import random
from dataclasses import replace

import pytest

from dragoman.core.jobs import ENDED, End, Job, Limits, Mode, Phase, Seen, Step, after, failed, plan_job, requeued, shut

JOB = Job("id", 1, "me", "x", "p", "code", "endpoint", Mode.SERVE, limits=Limits(idle_s=60.0))
IDLE = Seen(ready=True, idle_s=60.0)


def job(phase: Phase, *, stop: bool = False) -> Job:
    return replace(JOB, phase=phase, stop=stop)


@pytest.mark.parametrize(
    ("phase", "stop", "live", "free", "step"),
    [
        (Phase.QUEUED, False, False, True, Step.START),
        (Phase.QUEUED, False, False, False, Step.NOTHING),
        (Phase.QUEUED, True, False, True, Step.CLOSE),
        (Phase.STARTING, False, True, True, Step.NOTHING),
        (Phase.STARTING, False, False, True, Step.AGAIN),
        (Phase.STARTING, True, True, True, Step.STOP),
        (Phase.RUNNING, False, True, False, Step.NOTHING),
        (Phase.RUNNING, False, False, False, Step.AGAIN),
        (Phase.RUNNING, True, True, False, Step.STOP),
        (Phase.RUNNING, True, False, False, Step.CLOSE),
        (Phase.ASLEEP, False, False, True, Step.NOTHING),
        (Phase.ASLEEP, True, False, False, Step.CLOSE),
        (Phase.STOPPING, True, True, True, Step.STOP),
        (Phase.STOPPING, True, False, True, Step.CLOSE),
        *((ended, stop, live, True, Step.NOTHING) for ended in ENDED for stop in (False, True) for live in (False, True)),
    ],
)
def test_the_next_step(phase: Phase, stop: bool, live: bool, free: bool, step: Step) -> None:
    """It follows from what is wanted and what there is, and from nothing else."""
    assert plan_job(job(phase, stop=stop), live=live, free=free) is step


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        (IDLE, Step.SLEEP),
        (replace(IDLE, idle_s=59.0), Step.NOTHING),
        (replace(IDLE, busy=1), Step.NOTHING),
        (replace(IDLE, waiting=1), Step.NOTHING),
        (replace(IDLE, ready=False), Step.NOTHING),
        (None, Step.NOTHING),
    ],
)
def test_only_an_idle_job_sleeps(seen: Seen | None, step: Step) -> None:
    """One that is ready, serves, and has had no request for as long as its limit says."""
    running = job(Phase.RUNNING)
    assert plan_job(running, live=True, seen=seen) is step
    assert plan_job(replace(running, mode=Mode.COMMAND), live=True, seen=seen) is Step.NOTHING
    assert plan_job(replace(running, limits=Limits()), live=True, seen=seen) is Step.NOTHING
    assert plan_job(replace(running, stop=True), live=True, seen=seen) is Step.STOP


@pytest.mark.parametrize(
    ("end", "phase", "reason"),
    [
        (End("exit", 0), Phase.SUCCESS, ""),
        (End("exit", 0, "it never listened"), Phase.FAILED, "it never listened"),
        (End("exit", 3), Phase.FAILED, "the program ended with exit code 3"),
        (End("exit", -11), Phase.FAILED, "the program was ended by signal 11"),
        (End("exit", 1, "exit code 1: KeyError"), Phase.FAILED, "exit code 1: KeyError"),
        (End("timeout", -15, "10 s are over"), Phase.TIMEOUT, "10 s are over"),
        (End("timeout", -15), Phase.TIMEOUT, "timeout"),
        (End("memory", -9), Phase.FAILED, "memory"),
        (End("start_timeout", -9), Phase.FAILED, "start timeout"),
        (End("lost", -9, "killed"), Phase.FAILED, "killed"),
        (End("orphaned", -15), Phase.QUEUED, "its server ended; it is started again"),
        (End("server", -15), Phase.QUEUED, "its server ended; it is started again"),
        (End("idle", -15), Phase.ASLEEP, "no request came for a while; the next one wakes it"),
    ],
)
def test_what_a_job_is_after_a_start(end: End, phase: Phase, reason: str) -> None:
    """Seconds and calls are added up, whatever happened; what was asked to stop has stopped, however that came about."""
    running = replace(job(Phase.RUNNING), since=50.0, ran_s=1.0, calls=2)
    over = after(running, replace(end, ran_s=4.0, calls=5, at=60.0))
    assert (over.phase, over.reason, over.ran_s, over.calls, over.since) == (phase, reason, 5.0, 7, 0.0)
    assert over.ended == (60.0 if phase in ENDED else 0.0)
    assert over.duration_s(1000.0) == 5.0
    for was in (replace(running, stop=True), replace(running, phase=Phase.STOPPING, stop=True)):
        stopped = after(was, replace(end, ran_s=4.0))
        assert (stopped.phase, stopped.ran_s) == (Phase.SHUTDOWN, 5.0)


def test_what_was_lost_without_a_server_starts_again() -> None:
    """A machine that went down is nobody's fault; a program that somebody killed before our eyes has failed."""
    assert after(job(Phase.RUNNING), End("lost", -9), watched=False).phase is Phase.QUEUED
    assert after(job(Phase.RUNNING), End("lost", -9)).phase is Phase.FAILED


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in ENDED])
def test_an_end_that_was_asked_for(phase: Phase) -> None:
    """From any phase, also where what was tried has failed meanwhile; its clock stands still."""
    wanted = replace(job(phase, stop=True), since=5.0)
    over = shut(wanted, 9.0)
    assert (over.phase, over.reason, over.ended, over.since) == (Phase.SHUTDOWN, "stopped", 9.0, 0.0)
    assert failed(wanted, "no disk", 9.0) == over
    assert requeued(wanted) == wanted


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.RUNNING])
def test_what_nobody_wanted(phase: Phase) -> None:
    """A start that breaks fails its job; one whose server ends goes back into the line."""
    over = failed(replace(job(phase), since=5.0), "no disk", 9.0)
    assert (over.phase, over.reason, over.ended, over.since) == (Phase.FAILED, "no disk", 9.0, 0.0)
    waiting = requeued(replace(job(phase), since=5.0))
    assert (waiting.phase, waiting.ended, waiting.since) == (Phase.QUEUED, 0.0, 0.0)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase in ENDED])
def test_an_end_stays_as_it_is(phase: Phase) -> None:
    """Whoever comes later changes nothing."""
    assert shut(job(phase), 9.0) == failed(job(phase), "late", 9.0) == requeued(job(phase)) == job(phase)


def test_moves_that_the_table_does_not_have_are_refused() -> None:
    """What has ended stays ended; nothing runs without having been started."""
    for ended in ENDED:
        for phase in Phase:
            with pytest.raises(ValueError, match="cannot go"):
                job(ended).to(phase)
    with pytest.raises(ValueError, match="QUEUED to RUNNING"):
        job(Phase.QUEUED).to(Phase.RUNNING)


def test_histories_only_make_moves_of_the_table() -> None:
    """Whatever comes in whatever order, doing what the plan says raises nothing, and a stop that is wanted ends in SHUTDOWN."""
    chance = random.Random(7)
    ways = ["exit", "timeout", "memory", "orphaned", "server", "idle", "lost", "stopped"]
    for _ in range(2000):
        now, live = job(Phase.QUEUED), False
        for _ in range(12):
            now = replace(now, stop=now.stop or chance.random() < 0.1)
            step = plan_job(now, live=live, free=chance.random() < 0.7)
            match step:
                case Step.START:
                    now, live = now.to(Phase.STARTING).to(Phase.RUNNING), True
                case Step.CLOSE:
                    now = (now if now.phase is Phase.STOPPING else now.to(Phase.STOPPING)).to(Phase.SHUTDOWN)
                case Step.AGAIN:
                    now = now.to(Phase.QUEUED)
                case Step.STOP:
                    now, live = after(now, End("stopped", -15)), False
                case _ if live and chance.random() < 0.5:
                    now, live = after(now, End(chance.choice(ways), chance.choice([0, 1])), watched=chance.random() < 0.5), False
                case _ if live and chance.random() < 0.2:
                    live = False  # the server died
                case _ if now.phase is Phase.ASLEEP and chance.random() < 0.5:
                    now = now.to(Phase.QUEUED)
        if now.stop and not live and now.phase not in ENDED:
            assert plan_job(now, live=False) is Step.CLOSE


def test_seconds_count_while_it_runs_and_then_stand_still() -> None:
    """What would be billed (requirement F24)."""
    running = replace(job(Phase.RUNNING), since=100.0, ran_s=7.0)
    assert running.duration_s(103.5) == 10.5
    assert running.duration_s(99.0) == 7.0
    assert replace(running, phase=Phase.ASLEEP).duration_s(1000.0) == 7.0
    assert not math.isfinite(Limits().idle_s)
