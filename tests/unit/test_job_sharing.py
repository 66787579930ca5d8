"""One environment for several jobs: builds that are shared, stopped, kept apart and confined."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from dragoman.engines.jobs.allowed import Isolation
from dragoman.serving.jobs.environments import confined_by
from tests.fake_uv import until
from tests.job_bench import Bench, collected
from tests.servables import run


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_jobs_that_want_the_same_wait_for_one_build(bench: Bench) -> None:
    """Those that wait say so; each holds it until it lets go."""
    bench.write("floyd_requirements.txt", "six\n")
    bench.uv.set("hold")
    logs: list[list[str]] = [[], [], []]

    async def test() -> None:
        environments = bench.environments()
        tasks = [asyncio.ensure_future(environments.prepare("default", bench.home, log.append)) for log in logs]
        await until(lambda: sum(any("is being built already" in line for line in log) for log in logs) == 2 and bench.uv.builder)
        bench.uv.set("go")
        prepared = await asyncio.gather(*tasks)
        assert len({p.python for p in prepared}) == bench.uv.builds == 1
        for one in prepared:
            assert collected(environments) == []
            one.release()
        assert len(collected(environments)) == 1

    run(test)


def test_a_job_that_is_stopped_while_it_installs(bench: Bench) -> None:
    """Leaves no installer, and nothing in the way of the next."""
    bench.write("floyd_requirements.txt", "six\n")
    bench.uv.set("hold")

    async def test() -> None:
        environments = bench.environments()
        task = asyncio.ensure_future(environments.prepare("default", bench.home, bench.log.append))
        await until(lambda: bench.uv.builder)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        bench.uv.set("go")
        (await environments.prepare("default", bench.home, bench.log.append)).release()

    run(test)


def test_owners_do_not_share(bench: Bench) -> None:
    """Where they are told apart: neither virtualenvs nor downloads. Unused ones of all owners are collected."""
    pythons = [bench.prepare(owner=owner).python for owner in ("", "ann", "../ann", "ann")]
    assert pythons[1] == pythons[3]
    assert len({*pythons}) == 3
    assert all(python.is_relative_to(bench.root) for python in pythons)
    assert len(bench.environments().all()) == 3
    assert collected(bench.environments(), 3600) == []
    assert len(collected(bench.environments())) == 3


def test_links_that_an_installer_left(bench: Bench, tmp_path: Path) -> None:
    """Are not followed: names outside stay outside."""
    prepared = bench.prepare()
    (tmp_path / "outside" / "hidden-1.dist-info").mkdir(parents=True)
    site = prepared.python.parent.parent / "lib" / "python3.99"
    site.mkdir(parents=True)
    (site / "site-packages").symlink_to(tmp_path / "outside")
    bench.prepare()
    assert not bench.said("hidden")


def test_confined_by_what_the_machine_allows(bench: Bench) -> None:
    """Without namespaces a command stays as it is; where programs of this machine are needed, it has the machine's network."""

    async def shim() -> Isolation:
        return Isolation()

    async def namespaces() -> Isolation:
        return Isolation(bwrap="/usr/bin/bwrap", own_network=True, uplink="/usr/bin/slirp4netns")

    async def words(find: Callable[[], Awaitable[Isolation]], *, local: bool) -> Sequence[str]:
        return await confined_by(find)(["true"], writable=[bench.home], readable=[bench.root], local=local)

    async def test() -> None:
        assert await words(shim, local=False) == ["true"]
        apart, reaching = await words(namespaces, local=False), await words(namespaces, local=True)
        assert "--unshare-net" in apart[-1]
        assert "slirp4netns" in apart[-1]
        assert "--unshare-net" not in reaching[-1]
        assert str(bench.home) in reaching[-1]

    run(test)
