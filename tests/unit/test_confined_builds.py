"""Builds of virtualenvs whose installers run confined, with an installer that does as it is told and a confinement that lets it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dragoman.core.errors import ServingError
from dragoman.core.model import Environment
from dragoman.engines.environment import Environments
from tests.fake_uv import FakeUv
from tests.servables import run

Asked = list[tuple[Sequence[str], Sequence[Path], Sequence[Path]]]
SIX = Environment(packages=("six",))


@pytest.fixture
def uv(tmp_path: Path) -> FakeUv:
    return FakeUv(tmp_path / "control")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "environments"


def directories(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name != "locks")


@pytest.fixture
def confined(root: Path, uv: FakeUv) -> tuple[Environments, Asked]:
    """Environments whose installers run by way of `env`, and what was asked for each."""
    asked: Asked = []

    async def confine(command: Sequence[str], *, writable: Sequence[Path], readable: Sequence[Path], local: bool) -> Sequence[str]:
        assert not local
        assert all(path.is_dir() for path in writable)
        asked.append((command, writable, readable))
        return ["env", "CONFINED=yes", *command]

    return Environments(root, uv.path, confine=confine), asked


def test_confined(confined: tuple[Environments, Asked], uv: FakeUv, root: Path) -> None:
    """Each command may write into the new virtualenv, a folder that is gone afterwards, and the downloads; and read what it needs."""
    environments, asked = confined

    async def test() -> None:
        python = await environments.python_for(SIX)
        folder, temporary, cache = asked[0][1]
        assert folder == python.parent.parent
        assert cache == root / "cache"
        assert [command[0] for command, *_ in asked] == [uv.path, uv.path]
        assert all(writable == (folder, temporary, cache) for _, writable, _ in asked)
        assert Path(uv.path) in asked[0][2]
        told = dict(line.split("=", 1) for line in uv.read("environment").splitlines())
        assert (told["CONFINED"], told["TMPDIR"], told["UV_CACHE_DIR"], told["PIP_CACHE_DIR"]) == (
            *("yes", str(temporary), str(cache / "uv"), str(cache / "pip")),
        )
        assert told["UV_BUILD_CONSTRAINT"] == told["PIP_BUILD_CONSTRAINT"] == str(temporary / "build-constraints.txt")
        assert directories(root) == sorted([folder.name, "cache"])
        assert await environments.python_for(SIX) == python
        assert len(asked) == 2
        assert environments.collect(0) == [folder.name[:20]]
        assert directories(root) == ["cache"], "downloads stay"

    run(test)


def test_confined_builds_that_fail(confined: tuple[Environments, Asked], uv: FakeUv, root: Path) -> None:
    """Leave nothing; what a killed one left is removed by the next, and by a collection."""
    environments, asked = confined
    uv.set("error", "error: no")

    async def test() -> None:
        with pytest.raises(ServingError):
            await environments.python_for(SIX)
        assert directories(root) == ["cache"]
        folder = asked[0][1][0]
        left = root / f"{folder.name}.tmp"
        (left / "x").mkdir(parents=True)
        uv.unset("error")
        await environments.python_for(SIX)
        assert not left.exists()
        left.mkdir()
        assert environments.collect(3600) == []
        assert not left.exists()
        assert len(environments.installed()) == 1

    run(test)
