"""The reconciler of jobs over starts that a test ends itself."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import End, Job, Mode, Mount, Phase, Seen
from dragoman.serving.jobs.records import JOB
from tests.fakes_jobs import FakeStarted, World
from tests.fakes_store import FakeStore


def run(world: World, test: Callable[[World], Awaitable[None]]) -> None:
    """With a runner that is ended afterwards."""

    async def body() -> None:
        runner = world.runner()
        await runner.start()
        try:
            await test(world)
        finally:
            await runner.close()
            await world.jobs.close()

    asyncio.run(body())


def test_a_job_runs_and_ends_with_the_result_of_its_program(tmp_path: Path) -> None:
    """Its log begins with the platform's lines and ends with the one that FloydHub's client waits for; seconds and calls are counted."""

    async def test(world: World) -> None:
        job = await world.submit(Mode.COMMAND, notes=("floyd.yml: 'colour' is not known",))
        started = await world.running(job)
        assert started.start is not None
        assert started.start.argv[1:] == ("-c", "true")
        assert (started.start.folder, started.start.ran_s) == (world.board.folder(job), 0.0)
        (started.start.folder / "tmp" / "large").mkdir(parents=True)
        started.exit(ran_s=2.5, calls=3)
        over, lines = await world.ended(job, Phase.SUCCESS)
        assert (over.ran_s, over.calls, over.ended, over.started) == (2.5, 3, 1000.0, 100.0)
        assert not (started.start.folder / "tmp").exists(), "it would be kept as long as the job"
        assert lines[:2] == [f"{job.name}: submitted, mode command, environment default", "floyd.yml: 'colour' is not known"]
        assert lines[-1] == "[success] Finished execution"
        assert any(line.startswith("isolation: none") for line in lines)
        assert world.prepared[0].released

    run(World(tmp_path), test)


@pytest.mark.parametrize(
    ("how", "code", "phase", "last"),
    [
        ("exit", 3, Phase.FAILED, "[failed] Task execution failed"),
        ("timeout", -15, Phase.TIMEOUT, "[timeout] Task execution cancelled"),
        ("memory", -9, Phase.FAILED, "[failed] Task execution failed"),
        ("start_timeout", -9, Phase.FAILED, "[failed] Task execution failed"),
    ],
)
def test_the_reason_stands_before_the_last_line(tmp_path: Path, how: str, code: int, phase: Phase, last: str) -> None:
    """In the log and in the record."""

    async def test(world: World) -> None:
        job = await world.submit()
        (await world.running(job)).exit(how, code, "because of that")
        over, lines = await world.ended(job, phase)
        assert over.reason == "because of that"
        assert lines[-2:] == ["because of that", last]

    run(World(tmp_path), test)


def test_serve_runs_app_py_and_says_where_things_are(tmp_path: Path) -> None:
    """Mounts under the paths that the program sees, the endpoint, the command (section 10 of the sheet)."""

    async def test(world: World) -> None:
        world.data["d"] = tmp_path / "data"
        job = await world.submit(mounts=(Mount("d", "input", "me/datasets/x/1"),))
        started = await world.running(job)
        assert started.start is not None
        assert started.start.argv == ("python", "app.py")
        assert started.start.mounts == {"input": tmp_path / "data"}
        log = await world.jobs.log(job)
        assert "data: me/datasets/x/1 is at /input and /floyd/input/input, read-only" in log
        assert f"endpoint: /expose/{job.endpoint}, port 5000" in log
        assert "running: python app.py" in log

    run(World(tmp_path), test)


def test_jupyter_runs_below_the_endpoint(tmp_path: Path) -> None:
    """The notebook server knows the path that it is reached by."""

    async def test(world: World) -> None:
        job = await world.submit(Mode.JUPYTER)
        start = (await world.running(job)).start
        assert start is not None
        assert start.argv[:3] == ("python", "-m", "notebook")
        assert f"--ServerApp.base_url=/expose/{job.endpoint}/" in start.argv

    run(World(tmp_path), test)


@pytest.mark.parametrize(
    ("code", "mounts", "reason"),
    [
        ("empty", (), "there is no app.py"),
        ("gone", (), "there is no code 'gone'"),
        ("code", (Mount("d", "input", "me/datasets/gone/1"),), "there is no data set me/datasets/gone/1"),
    ],
)
def test_what_cannot_be_started_has_failed(tmp_path: Path, code: str, mounts: tuple[Mount, ...], reason: str) -> None:
    """With the reason, in its record and in its log (requirement F25)."""

    async def test(world: World) -> None:
        world.code["empty"] = {"main.py": ""}
        job = await world.submit(code=code, mounts=mounts)
        over, lines = await world.ended(job, Phase.FAILED)
        assert reason in over.reason
        assert reason in lines[-2]

    run(World(tmp_path), test)


def test_a_failing_install_fails_the_job(tmp_path: Path) -> None:
    """As does anything unforeseen, whose details stay in the server's log."""

    async def test(world: World) -> None:
        def refused() -> asyncio.Future[None]:
            raise ServingError(Kind.UNAVAILABLE, "flask==99 cannot be installed")

        world.preparing = refused
        over, lines = await world.ended(await world.submit(), Phase.FAILED)
        assert "flask==99" in lines[-2]
        assert "flask==99" in over.reason

        def broken() -> asyncio.Future[None]:
            raise RuntimeError("a path of ours")

        world.preparing = broken
        over, lines = await world.ended(await world.submit(), Phase.FAILED)
        assert "a path of ours" not in over.reason + "".join(lines)

    run(World(tmp_path), test)


def test_more_jobs_than_may_run_wait_and_are_told_their_place(tmp_path: Path) -> None:
    """The oldest comes first; the place is in the log and in the record, and changes as the line moves."""

    async def test(world: World) -> None:
        jobs = [await world.submit() for _ in range(4)]
        first, second, third, fourth = jobs
        await world.running(first)
        while "1 job is ahead" not in await world.jobs.log(third):
            await asyncio.sleep(0.01)
        assert world.board.get(second.id) is not None
        assert "no jobs are ahead" in await world.jobs.log(second)
        await world.jobs.stop(third)
        over, lines = await world.ended(third, Phase.SHUTDOWN)
        assert lines[-1] == "[shutdown] Task execution cancelled"
        assert over.ran_s == 0.0
        world.starts[first.id].exit()
        await world.running(second)
        while "no jobs are ahead" not in await world.jobs.log(fourth):
            await asyncio.sleep(0.01)
        assert fourth.id not in world.starts

    run(World(tmp_path, most=1), test)


def test_a_job_that_is_slow_to_start_delays_nobody(tmp_path: Path) -> None:
    """An install that takes its time holds up neither other jobs nor a stop."""

    async def test(world: World) -> None:
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begun = asyncio.Event()

        def prepare() -> asyncio.Future[None]:
            begun.set()
            return never

        world.preparing = prepare
        slow = await world.submit()
        await begun.wait()
        world.preparing = None
        await world.running(await world.submit())
        assert world.board.at(slow.endpoint) == world.board.get(slow.id)
        await world.jobs.stop(slow)
        _, lines = await world.ended(slow, Phase.SHUTDOWN)
        assert lines[-1] == "[shutdown] Task execution cancelled"
        assert slow.id not in world.starts

    run(World(tmp_path), test)


def test_a_job_that_is_stopped_has_shut_down(tmp_path: Path) -> None:
    """Its seconds up to there count; other jobs go on."""

    async def test(world: World) -> None:
        job, other = await world.submit(), await world.submit()
        await world.running(job)
        await world.running(other)
        await world.jobs.stop(job)
        over, lines = await world.ended(job, Phase.SHUTDOWN)
        assert (over.ran_s, over.reason) == (2.0, "stopped")
        assert lines[-1] == "[shutdown] Task execution cancelled"
        assert world.board.get(other.id) == await world.until(other, Phase.RUNNING)

    run(World(tmp_path), test)


def test_an_idle_job_sleeps_until_it_is_woken(tmp_path: Path) -> None:
    """Its seconds stand still, its files stay, and it comes back with what it has run so far (scale to zero)."""

    async def test(world: World) -> None:
        job = await world.submit(idle_s=0.4)
        started = await world.running(job)
        started.now = Seen(ready=True, idle_s=0.5)
        asleep = await world.until(job, Phase.ASLEEP)
        assert (asleep.ran_s, asleep.duration_s(1e9)) == (2.0, 2.0)
        (world.board.folder(job) / "home" / "kept").touch()
        woken = await world.board.wake(asleep)
        assert woken.phase is Phase.QUEUED
        await world.until(job, Phase.RUNNING)
        again = world.starts[job.id]
        assert again is not started
        assert again.start is not None
        assert again.start.ran_s == 2.0
        assert (world.board.folder(job) / "home" / "kept").exists()
        assert await world.board.wake(woken) == woken
        again.exit()
        over, _ = await world.ended(job, Phase.SUCCESS)
        assert (over.ran_s, over.calls) == (4.0, 6)

    run(World(tmp_path), test)


def test_a_job_with_requests_does_not_sleep(tmp_path: Path) -> None:
    """The gate has the last word: a request that came meanwhile keeps it awake."""

    async def test(world: World) -> None:
        job = await world.submit(idle_s=0.4)
        (await world.running(job)).now = Seen(ready=True, idle_s=0.5)
        while world.asked_to_rest < 2:
            await asyncio.sleep(0.01)
        assert world.board.get(job.id) == await world.until(job, Phase.RUNNING)

    run(World(tmp_path, rests=False), test)


def test_a_server_that_ends_leaves_the_wish(tmp_path: Path) -> None:
    """Every process is ended; the next server starts the job again under its number and endpoint, with its files."""

    async def test(world: World) -> None:
        job = await world.submit()
        await world.running(job)
        stuck: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        world.preparing = lambda: asyncio.ensure_future(asyncio.shield(stuck))
        slow = await world.submit()
        await world.until(slow, Phase.STARTING)
        stuck_one = world.starts[job.id]
        runner = runners[0]
        await runner.close()
        stuck.cancel()
        world.preparing = None
        assert (await stuck_one.ended()).how == "server"
        for each in (job, slow):
            left = await world.jobs.job(each.id)
            assert (left.phase, left.stop) == (Phase.QUEUED, False)
        lines = world.lines(await world.jobs.log(job))
        assert lines[-1] == "the server ends; the job is started again with the next one"
        after = world.runner()
        await after.start()
        await world.until(job, Phase.RUNNING)
        await world.until(slow, Phase.RUNNING)
        assert world.starts[job.id] is not stuck_one
        assert "starting again, with the files as they were" in await world.jobs.log(job)
        await after.close()

    runners = []

    async def body() -> None:
        world = World(tmp_path)
        runners.append(world.runner())
        await runners[0].start()
        await test(world)

    asyncio.run(body())


def test_a_program_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """The end of the server does not wait for it for ever."""

    async def body() -> None:
        world = World(tmp_path)
        runner = world.runner()
        await runner.start()
        started = await world.running(await world.submit())
        started.stubborn = True
        await runner.close()
        assert started.killed

    asyncio.run(body())


def test_a_server_whose_supervisor_was_killed_leaves_what_runs(tmp_path: Path) -> None:
    """The next one takes it over; what is only being started begins anew."""

    async def body() -> None:
        world = World(tmp_path)
        runner = world.runner()
        await runner.start()
        job = await world.submit()
        started = await world.running(job)
        begun = asyncio.Event()

        def prepare() -> asyncio.Future[None]:
            begun.set()
            return asyncio.get_running_loop().create_future()

        world.preparing = prepare
        slow = await world.submit()
        await begun.wait()
        await runner.close(abandoned=True)
        assert not started.killed
        assert (await world.jobs.job(job.id)).phase is Phase.RUNNING
        assert (await world.jobs.job(slow.id)).phase is Phase.QUEUED
        assert world.prepared[0].released

    asyncio.run(body())


def _left(world: World, job: Job, phase: Phase, *, stop: bool = False) -> Job:
    return replace(job, phase=phase, stop=stop, since=90.0 if phase is not Phase.STARTING else 0.0)


async def leave(world: World, phase: Phase, *, stop: bool = False) -> Job:
    """A job as a server that was killed left it."""
    job = await world.submit()
    return await world.kept.edit(job.id, lambda now: _left(world, now, phase, stop=stop))


def test_what_a_dead_server_left_running_is_taken_over(tmp_path: Path) -> None:
    """It goes on without a restart, and ends as any other."""

    async def body() -> None:
        world = World(tmp_path)
        jobs = [await leave(world, phase) for phase in (Phase.RUNNING, Phase.STARTING)]
        wanted_to_end = await leave(world, Phase.STOPPING, stop=True)
        world.adopted = {job.id: FakeStarted() for job in (*jobs, wanted_to_end)}
        runner = world.runner()
        await runner.start()
        for job in jobs:
            assert (await world.until(job, Phase.RUNNING)).started in (0.0, 100.0)
            world.adopted[job.id].exit(ran_s=9.0)
            over, _ = await world.ended(job, Phase.SUCCESS)
            assert over.ran_s == 9.0
        await world.ended(wanted_to_end, Phase.SHUTDOWN)
        assert not world.starts
        await runner.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("end", "phase"),
    [
        (End("exit", 0, ran_s=5.0, at=95.0), Phase.SUCCESS),
        (End("exit", 1, "it crashed", 5.0, at=95.0), Phase.FAILED),
        (End("timeout", -15, "too long", 5.0, at=95.0), Phase.TIMEOUT),
    ],
)
def test_what_ended_without_a_server_has_ended(tmp_path: Path, end: End, phase: Phase) -> None:
    """What its first process wrote counts; nothing is run twice."""

    async def body() -> None:
        world = World(tmp_path)
        job = await leave(world, Phase.RUNNING)
        world.ends[job.id] = end
        runner = world.runner()
        await runner.start()
        over, lines = await world.ended(job, phase)
        assert (over.ran_s, over.ended, over.reason) == (5.0, 95.0, end.reason)
        assert lines[-1].startswith(f"[{phase.value}]")
        assert not world.starts
        await runner.close()

    asyncio.run(body())


@pytest.mark.parametrize("end", [None, End("orphaned", -15, ran_s=5.0), End("lost", -9, ran_s=5.0), End("server", -15, ran_s=5.0)])
def test_what_was_lost_with_its_server_starts_again(tmp_path: Path, end: End | None) -> None:
    """Under the same number, with the seconds it has run so far."""

    async def body() -> None:
        world = World(tmp_path)
        job = await leave(world, Phase.RUNNING)
        if end is not None:
            world.ends[job.id] = end
        runner = world.runner()
        await runner.start()
        await world.running(job)
        assert (await world.jobs.job(job.id)).ran_s == (0.0 if end is None else 5.0)
        await runner.close()

    asyncio.run(body())


def test_a_start_that_was_broken_off_is_begun_anew(tmp_path: Path) -> None:
    """Nothing of it ran, so nothing is counted."""

    async def body() -> None:
        world = World(tmp_path)
        job = await leave(world, Phase.STARTING)
        runner = world.runner()
        await runner.start()
        (await world.running(job)).exit(ran_s=2.0)
        over, _ = await world.ended(job, Phase.SUCCESS)
        assert over.ran_s == 2.0
        await runner.close()

    asyncio.run(body())


def test_a_start_that_was_over_before_its_server_could_say_so_counts(tmp_path: Path) -> None:
    """The server was killed between the start and its note of it: a command is not run twice, and its seconds are not lost."""

    async def body() -> None:
        world = World(tmp_path)
        job = await leave(world, Phase.STARTING)
        world.ends[job.id] = End("exit", 0, ran_s=3.0, at=99.0)
        runner = world.runner()
        await runner.start()
        over, _ = await world.ended(job, Phase.SUCCESS)
        assert (over.ran_s, over.started, over.ended) == (3.0, 96.0, 99.0)
        assert not world.starts
        await runner.close()

    asyncio.run(body())


def test_an_end_that_was_counted_is_not_counted_again(tmp_path: Path) -> None:
    """Of the start before: it is forgotten before the next one is begun, at which the server is killed."""

    async def body() -> None:
        world = World(tmp_path)
        job = await leave(world, Phase.QUEUED)
        world.ends[job.id] = End("idle", ran_s=3.0, calls=1)
        world.preparing = asyncio.get_running_loop().create_future
        runner = world.runner()
        await runner.start()
        await world.until(job, Phase.STARTING)
        assert job.id not in world.ends
        await runner.close()

    asyncio.run(body())


def test_seconds_and_calls_of_a_start_that_was_lost_without_a_server_count(tmp_path: Path) -> None:
    """As far as its first process has told."""

    async def body() -> None:
        world = World(tmp_path)
        job = await leave(world, Phase.RUNNING)
        world.ends[job.id] = End("lost", -9, ran_s=7.0, calls=5)
        runner = world.runner()
        await runner.start()
        (await world.running(job)).exit(ran_s=1.0, calls=1)
        over, _ = await world.ended(job, Phase.SUCCESS)
        assert (over.ran_s, over.calls) == (8.0, 6)
        await runner.close()

    asyncio.run(body())


def test_a_job_that_does_not_let_itself_be_taken_over_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Its first process may be stopped by a signal; the others start meanwhile, and the server can end."""

    async def body() -> None:
        world = World(tmp_path)
        stuck, other = await leave(world, Phase.RUNNING), await leave(world, Phase.QUEUED)
        world.adopting[stuck.id] = asyncio.get_running_loop().create_future()
        runner = world.runner()
        await runner.start()
        await world.running(other)
        assert stuck.id not in world.starts
        world.adopting[stuck.id].set_result(None)
        await world.running(stuck)
        await runner.close()

    asyncio.run(body())


def test_a_server_that_ends_while_it_takes_a_job_over_ends_that(tmp_path: Path) -> None:
    """It would run on without anybody else."""

    async def body() -> None:
        world = World(tmp_path)
        job, other = await leave(world, Phase.RUNNING), await leave(world, Phase.QUEUED)
        world.adopted[job.id] = FakeStarted()
        world.adopting[job.id] = asyncio.get_running_loop().create_future()
        runner = world.runner()
        await runner.start()
        await world.running(other)
        asyncio.get_running_loop().call_later(0.05, world.adopting[job.id].set_result, None)
        await runner.close()
        assert (await world.adopted[job.id].ended()).how == "server"

    asyncio.run(body())


def test_one_job_that_cannot_be_looked_after_keeps_no_other_waiting(tmp_path: Path) -> None:
    """Neither one that the store has lost, nor one whose folder cannot be written."""

    async def test(world: World) -> None:
        first = await world.running(await world.submit())
        lost, unwritable, fine = [await world.submit() for _ in range(3)]
        await world.store.remove_document(JOB, lost.id)
        for folder in (world.board.folder(lost), world.board.folder(unwritable)):
            shutil.rmtree(folder)
        await world.jobs.stop(fine)
        await world.ended(fine, Phase.SHUTDOWN)
        first.exit()
        await world.running(unwritable)
        assert world.board.get(lost.id) is None

    run(World(tmp_path, most=1), test)


def test_what_the_store_has_lost_is_ended(tmp_path: Path) -> None:
    """Nobody could stop it any more, or would see it."""

    async def test(world: World) -> None:
        job = await world.submit()
        started = await world.running(job)
        await world.store.remove_document(JOB, job.id)
        world.board.drop(job.id)
        assert (await asyncio.wait_for(started.ended(), 20.0)).how == "stopped"

    run(World(tmp_path), test)


def test_a_stop_that_was_wanted_while_there_was_no_server_is_made(tmp_path: Path) -> None:
    """Also of a job that sleeps."""

    async def body() -> None:
        world = World(tmp_path)
        jobs = [await leave(world, phase) for phase in (Phase.RUNNING, Phase.ASLEEP, Phase.QUEUED)]
        for job in jobs:
            await world.jobs.stop(job)
        runner = world.runner()
        await runner.start()
        for job in jobs:
            await world.ended(job, Phase.SHUTDOWN)
        assert not world.starts
        await runner.close()

    asyncio.run(body())


def test_one_server_at_a_time_runs_the_jobs_of_a_data_directory(tmp_path: Path) -> None:
    """Another one on the same database waits until that has ended, and then does."""

    async def body() -> None:
        world = World(tmp_path)
        first, second = world.runner(), world.runner()
        await first.start()
        waiting = asyncio.create_task(second.start())
        job = await world.submit()
        started = await world.running(job)
        assert not waiting.done()
        await first.close()
        await asyncio.wait_for(waiting, 30.0)
        while world.starts[job.id] is started:
            await asyncio.sleep(0.01)
        await world.until(job, Phase.RUNNING)
        await second.close()

    asyncio.run(body())


def test_a_store_that_is_away_for_a_while_loses_no_end(tmp_path: Path) -> None:
    """What became of a job is written when the store is there again."""

    async def body() -> None:
        store = FakeStore()
        world = World(tmp_path, store=store)
        runner = world.runner()
        await runner.start()
        job = await world.submit()
        started = await world.running(job)
        store.failure = ServingError(Kind.UNAVAILABLE, "the database is away")
        started.exit("exit", 4)
        await asyncio.sleep(0)
        store.failure = None
        over, _ = await world.ended(job, Phase.FAILED)
        assert "exit code 4" in over.reason
        await runner.close()

    asyncio.run(body())


def test_a_stop_is_made_while_the_store_is_away(tmp_path: Path) -> None:
    """Its processes do not run on until the store is back; the record follows then."""

    async def test(world: World) -> None:
        assert isinstance(world.store, FakeStore)
        job = await world.submit()
        started = await world.running(job)
        await world.jobs.stop(job)
        world.store.failure = ServingError(Kind.UNAVAILABLE, "the database is away")
        assert (await asyncio.wait_for(started.ended(), 20.0)).how == "stopped"
        world.store.failure = None
        await world.ended(job, Phase.SHUTDOWN)

    run(World(tmp_path), test)


def test_files_of_a_deletion_that_was_broken_off_go_at_the_next_start(tmp_path: Path) -> None:
    """They have no record any more."""

    async def body() -> None:
        world = World(tmp_path)
        condemned = world.board.runs / ".gone"
        (condemned / "home").mkdir(parents=True)
        runner = world.runner()
        await runner.start()
        assert not condemned.exists()
        await runner.close()

    asyncio.run(body())
