"""Whether a server runs jobs at all, and what its settings say about every one of them."""

import asyncio
import logging
import math
import os
from pathlib import Path

import pytest

from dragoman.core.errors import ServingError
from dragoman.core.jobs import Limits, Mode, Phase
from dragoman.server.jobs import JobsPart, allowed, check_isolation, wanted
from dragoman.server.jobs_running import running
from dragoman.server.settings import Settings
from dragoman.serving.jobs.service import Submission
from dragoman.serving.late_store import LateStore
from dragoman.store import Store
from tests.fakes_store import FakeStore


def late(store: FakeStore | None = None) -> LateStore:
    async def opened() -> Store:
        assert store is not None
        return store

    return LateStore(opened, lambda: store is not None)


@pytest.mark.parametrize(
    ("jobs", "host", "runs"),
    [
        ("auto", "127.0.0.1", True),
        ("auto", "localhost", True),
        ("auto", "::1", True),
        ("auto", "0.0.0.0", False),
        ("auto", "192.0.2.1", False),
        ("on", "0.0.0.0", True),
        ("off", "127.0.0.1", False),
    ],
)
def test_jobs_run_for_callers_of_this_machine(tmp_path: Path, jobs: str, host: str, runs: bool) -> None:
    """They are code of whoever may call the server; for others only where the operator says so."""
    settings = Settings(jobs=jobs, host=host, data_dir=str(tmp_path))
    assert wanted(settings) is runs
    part = JobsPart(settings, late(), 0)
    assert (part.jobs is not None) is runs

    async def body() -> None:
        await part.start()
        assert (await part.metering() is not None) is runs
        await part.close()

    asyncio.run(body())
    assert list(tmp_path.iterdir()) == [], "a server without jobs writes nothing"


def test_settings_are_the_limits_of_every_job() -> None:
    """0 is no limit, of times and of everything else."""
    assert allowed(Settings()).limits == Limits(processes=1024)
    endless = allowed(Settings(job_max_runtime=0.0, job_start_timeout=0.0, job_idle_timeout=30.0, job_memory=1 << 30, no_job_network=True))
    assert (endless.limits.max_runtime_s, endless.limits.start_timeout_s) == (math.inf, math.inf)
    assert (endless.limits.idle_s, endless.limits.memory, endless.network) == (30.0, 1 << 30, False)


def test_a_job_of_unknown_code_fails_on_a_whole_server(tmp_path: Path) -> None:
    """The runner begins with the first job; what it cannot find is the job's failure."""

    async def body() -> None:
        part = JobsPart(Settings(data_dir=str(tmp_path)), late(FakeStore()), 0)
        await part.start()
        assert part.jobs is not None
        project = await part.jobs.look_up_project("me", "x", create=True)
        job = await part.jobs.submit(Submission(project.id, "gone", Mode.SERVE))
        async with asyncio.timeout(30.0):
            while (now := await part.jobs.job(job.id)).phase is not Phase.FAILED:
                await part.jobs.board.changed(now, 1.0)
        assert "gone" in now.reason
        await part.close()

    asyncio.run(body())


def test_an_operator_is_told_what_jobs_may_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, in the server's own log, where there is nothing around a job: as root it may do anything."""
    settings = Settings(data_dir=str(tmp_path), job_isolation="shim")
    part = JobsPart(settings, late(), 0)
    assert part.code is not None
    assert part.data_sets is not None
    parts = running(settings, part.code, part.data_sets)

    async def body() -> None:
        assert (await parts.isolation(True)).startswith("no namespaces")
        await parts.isolation(False)

    asyncio.run(body())
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("isolation of jobs: no namespaces: the job runs as this server's user")
    assert ("root" in warning) is (os.geteuid() == 0)


def test_a_server_without_jobs_asks_for_no_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its settings say about those that it does not run."""
    monkeypatch.setenv("PATH", str(tmp_path))
    asyncio.run(check_isolation(Settings(jobs="off", job_isolation="namespaces")))
    asyncio.run(check_isolation(Settings()))
    with pytest.raises(ServingError, match="--job-isolation namespaces is not possible here"):
        asyncio.run(check_isolation(Settings(job_isolation="namespaces")))
