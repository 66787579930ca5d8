"""The facade of jobs: names, numbers, looks and wishes."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import Limits, Mode, Mount, Phase
from dragoman.server.exposition import Exposition
from dragoman.server.job_metrics import add_jobs
from dragoman.serving.jobs.metering import Metering
from dragoman.serving.jobs.records import job_document, read_job
from dragoman.serving.jobs.service import Allowed, Changes, Submission
from tests.fakes_jobs import World, limits
from tests.jobs_files import refused


def run(world: World, test: Callable[[World], Awaitable[None]]) -> None:
    async def body() -> None:
        await test(world)
        await world.jobs.close()

    asyncio.run(body())


def test_the_first_look_up_by_its_owner_makes_a_project(tmp_path: Path) -> None:
    """Two at once make one; another owner's project of that name is another (requirement F3)."""

    async def test(world: World) -> None:
        assert (await refused(world.jobs.look_up_project("me", "x"))).kind is Kind.NOT_FOUND
        one, two = await asyncio.gather(*(world.jobs.look_up_project("me", "x", create=True) for _ in range(2)))
        assert one == two == await world.jobs.look_up_project("me", "x") == await world.jobs.project(one.id)
        assert one.full_name == "me/projects/x"
        other = await world.jobs.look_up_project("you", "x", create=True)
        assert other.id != one.id
        assert await world.jobs.projects("me") == [one]
        assert await world.jobs.projects() == [one, other]
        assert (await refused(world.jobs.project("nothing"))).what == "project"

    run(World(tmp_path), test)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".x", "a b", "ü", "x\n", "x" * 65, "a\0b"])
def test_names_that_no_project_can_have_are_refused(tmp_path: Path, name: str) -> None:
    """Whether of the project or of its owner; nothing is made."""

    async def test(world: World) -> None:
        for owner, project in ((name, "x"), ("me", name)):
            assert (await refused(world.jobs.look_up_project(owner, project, create=True))).kind is Kind.INVALID_INPUT
        assert await world.jobs.projects() == []

    run(World(tmp_path), test)


def test_jobs_are_numbered_in_their_project(tmp_path: Path) -> None:
    """From 1, each once, also when many are submitted at the same time; endpoints and ids cannot be guessed (requirements F6, F7)."""

    async def test(world: World) -> None:
        jobs = await asyncio.gather(*(world.submit() for _ in range(20)))
        assert sorted(job.number for job in jobs) == list(range(1, 21))
        assert (await world.submit(project="y")).name == "me/projects/y/1"
        assert len({job.endpoint for job in jobs} | {job.id for job in jobs}) == 40
        assert all(len(job.endpoint) >= 16 and job.endpoint.isalnum() for job in jobs)
        newest = await world.jobs.jobs_of(jobs[0].project_id)
        assert [job.number for job in newest] == list(range(20, 0, -1))
        assert len(await world.jobs.jobs()) == 21

    run(World(tmp_path), test)


def test_a_job_is_found_by_its_id_and_by_its_names(tmp_path: Path) -> None:
    """A name without a number is the newest; older clients write more behind the number, or leave `projects` out."""

    async def test(world: World) -> None:
        first, second = await world.submit(), await world.submit()
        for name in (first.id, "me/projects/x/1", "me/x/1", "me/projects/x/1/output", "me/projects/x/1/home"):
            assert await world.jobs.job(name) == first
        for name in ("me/projects/x", "me/x", "me/projects/x/2"):
            assert await world.jobs.job(name) == second
        for name in (
            "",
            "/",
            "//",
            "me",
            "me/y",
            "me/projects/y/1",
            "me/projects/x/3",
            "me/projects/x/0",
            "me/x/-1",
            "me/x/1e1",
            "me/x/²",
            first.id[:-1],
        ):
            error = await refused(world.jobs.job(name))
            assert (error.kind, error.what) == (Kind.NOT_FOUND, "job")

    run(World(tmp_path), test)


def test_a_log_exists_from_the_first_second(tmp_path: Path) -> None:
    """Before anything runs; notes of whoever submitted it stand in it."""

    async def test(world: World) -> None:
        job = await world.submit(notes=("floyd.yml: 'colour' is not known",), description="what it is for")
        assert "submitted" in await world.jobs.log(job)
        assert "'colour' is not known" in await world.jobs.log(job)
        assert job.description == "what it is for"
        assert job.phase is Phase.QUEUED

    run(World(tmp_path), test)


def test_limits_of_the_server_are_stronger(tmp_path: Path) -> None:
    """A job may ask for less time, not for more; and not for a network where there is none."""

    async def test(world: World) -> None:
        job = await world.submit(max_runtime_s=1e9, idle_s=60.0, concurrency=4, network=True)
        assert (job.limits.max_runtime_s, job.limits.idle_s, job.limits.concurrency, job.network) == (100.0, 60.0, 4, False)
        assert (await world.submit(max_runtime_s=5.0)).limits.max_runtime_s == 5.0
        assert (await world.submit()).limits == Limits(max_runtime_s=100.0)

    run(World(tmp_path, allowed=replace(limits(max_runtime_s=100.0), network=False)), test)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"mode": Mode.COMMAND, "command": "  "}, "command"),
        ({"command": "python x.py"}, "command"),
        ({"max_runtime_s": 0.0}, "max_runtime_s"),
        ({"max_runtime_s": math.nan}, "max_runtime_s"),
        ({"idle_s": -1.0}, "idle_s"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 100_000}, "concurrency"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, fields: dict[str, object], what: str) -> None:
    """And takes no number."""

    async def test(world: World) -> None:
        error = await refused(world.submit(**fields))  # type: ignore[arg-type] # fields of a Submission
        assert (error.kind, error.what) == (Kind.INVALID_INPUT, what)
        assert (await world.submit()).number == 1

    run(World(tmp_path), test)


def test_a_job_of_an_unknown_project_is_refused(tmp_path: Path) -> None:
    """There is nothing to number it in."""

    async def test(world: World) -> None:
        error = await refused(world.jobs.submit(Submission("nothing", "code", Mode.SERVE)))
        assert (error.kind, error.what) == (Kind.NOT_FOUND, "project")

    run(World(tmp_path), test)


def test_a_restart_is_a_new_job_of_the_same_code(tmp_path: Path) -> None:
    """With a number and an endpoint of its own; what is not said stays as it was (requirement F26)."""

    async def test(world: World) -> None:
        mounts = (Mount("d", "input", "me/datasets/x/1"),)
        job = await world.submit(mounts=mounts, description="first", max_runtime_s=50.0, idle_s=5.0, concurrency=2, environment="keras")
        same = await world.jobs.restart(job, Changes())
        assert (same.number, same.code, same.mounts, same.description, same.environment) == (2, job.code, mounts, "first", "keras")
        assert same.limits == job.limits
        assert (same.endpoint, same.id) != (job.endpoint, job.id)
        other = await world.jobs.restart(same, Changes(description="", environment="tensorflow", mounts=(), instance="g1"))
        assert (other.number, other.description, other.environment, other.mounts, other.instance) == (3, "", "tensorflow", (), "g1")
        assert await world.jobs.job(job.id) == job

    run(World(tmp_path), test)


def test_a_second_stop_is_refused(tmp_path: Path) -> None:
    """So is that of a job that has ended (requirement F22)."""

    async def test(world: World) -> None:
        job = await world.submit()
        assert (await world.jobs.stop(job)).stop
        assert (await refused(world.jobs.stop(job))).kind is Kind.CONFLICT
        await world.kept.edit(job.id, lambda now: now.to(Phase.FAILED, "it crashed"))
        assert "failed" in (await refused(world.jobs.stop(job))).message

    run(World(tmp_path), test)


def test_a_job_that_has_ended_can_be_deleted(tmp_path: Path) -> None:
    """With its files; then nobody knows it, nor its endpoint. One that has not ended is not deleted (requirement F27)."""

    async def test(world: World) -> None:
        job = await world.submit()
        folder = world.jobs.folder(job)
        (folder / "output").mkdir()
        assert (await refused(world.jobs.delete(job))).kind is Kind.CONFLICT
        await world.kept.edit(job.id, lambda now: now.to(Phase.FAILED))
        assert world.board.at(job.endpoint) is not None
        await world.jobs.delete(job)
        await world.jobs.close()
        assert not any(world.board.runs.iterdir())
        assert world.board.at(job.endpoint) is None
        assert (await refused(world.jobs.job(job.name))).kind is Kind.NOT_FOUND
        assert (await refused(world.jobs.delete(job))).kind is Kind.NOT_FOUND
        assert (await refused(world.jobs.stop(job))).kind is Kind.NOT_FOUND
        assert (await world.submit()).number == 2

    run(World(tmp_path), test)


def test_a_job_whose_files_another_mounts_is_not_deleted(tmp_path: Path) -> None:
    """Until that one has ended."""

    async def test(world: World) -> None:
        job = await world.submit()
        await world.kept.edit(job.id, lambda now: now.to(Phase.FAILED))
        user = await world.submit(mounts=(Mount(f"{job.id}.output", "input", f"{job.name}/output"),))
        error = await refused(world.jobs.delete(job))
        assert (error.kind, user.name in error.message) == (Kind.CONFLICT, True)
        await world.kept.edit(user.id, lambda now: now.to(Phase.FAILED))
        await world.jobs.delete(job)

    run(World(tmp_path), test)


def test_seconds_and_calls_are_counted_for_ever(tmp_path: Path) -> None:
    """Also those of jobs that were deleted: what is counted never gets less."""

    async def test(world: World) -> None:
        assert await world.jobs.metering() == Metering()
        job, other = await world.submit(), await world.submit()
        for each in (job, other):
            await world.kept.edit(each.id, lambda now: replace(now.to(Phase.FAILED), ran_s=10.0, calls=4))
        counted = await world.jobs.metering()
        assert (counted.seconds, counted.calls, counted.phases) == (20.0, 8, {Phase.FAILED: 2})
        await world.jobs.delete(job)
        counted = await world.jobs.metering()
        assert (counted.seconds, counted.calls, counted.phases) == (20.0, 8, {Phase.FAILED: 1})
        running = await world.kept.edit((await world.submit()).id, lambda now: replace(now, phase=Phase.RUNNING, since=world.now - 5.0))
        assert (await world.jobs.metering()).seconds == 25.0
        assert await world.jobs.seen(running) is None
        page = Exposition()
        add_jobs(page, await world.jobs.metering())
        text = page.text().decode()
        assert 'dragoman_jobs{phase="running"} 1' in text
        assert "dragoman_job_running_seconds_total 25" in text

    run(World(tmp_path), test)


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Limits without end included, which JSON does not have."""

    async def test(world: World) -> None:
        job = await world.submit(mounts=(Mount("d", "input", "t"),), idle_s=3.0)
        assert await world.kept.jobs(job.project_id) == [job] == await world.kept.jobs()
        endless = replace(job, limits=Limits(max_runtime_s=math.inf))
        assert read_job(job_document(endless)) == endless

    run(World(tmp_path), test)


def test_without_a_store_there_is_nothing(tmp_path: Path) -> None:
    """And looking makes none."""

    async def test(world: World) -> None:
        assert await world.jobs.jobs() == []
        assert await world.jobs.projects() == []
        assert world.board.place == ""

    run(World(tmp_path, allowed=Allowed()), test)
    assert list(tmp_path.iterdir()) == []


def test_jobs_of_another_server_are_shown_and_stopped_but_not_deleted(tmp_path: Path) -> None:
    """Servers that share a store: the files and the log are where the job runs, and so is its endpoint."""

    async def test(world: World) -> None:
        there = World(tmp_path / "there", store=world.store)
        job = await there.submit()
        await world.submit()
        world.board.replace(await world.kept.jobs())
        assert await world.jobs.job(job.name) == job
        assert world.board.get(job.id) is None
        assert world.board.at(job.endpoint) is None
        assert world.board.elsewhere(lambda other: other.endpoint == job.endpoint) == job
        assert "another server" in await world.jobs.log(job)
        assert (await world.jobs.stop(job)).stop
        over = await world.kept.edit(job.id, lambda now: replace(now, phase=Phase.SHUTDOWN))
        assert (await world.jobs.log(over)).endswith("[shutdown] Task execution cancelled\n")
        with pytest.raises(ServingError, match="delete it there") as refused:
            await world.jobs.delete(over)
        assert refused.value.kind is Kind.CONFLICT
        await there.jobs.delete(over)
        world.board.replace(await world.kept.jobs())
        assert world.board.elsewhere(lambda other: True) is None

    run(World(tmp_path / "here"), test)
