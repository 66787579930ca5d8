"""A project whose environments an installer makes that does as it is told, and the log of its job. Used by the tests of job environments."""

import sys
from pathlib import Path

import pytest

from dragoman.core.errors import ServingError
from dragoman.core.jobs import Mode
from dragoman.serving.jobs.environments import JobEnvironments, Prepared
from tests.fake_uv import FakeUv
from tests.servables import run

OWN = "{}.{}.{}".format(*sys.version_info[:3])
APP = "import flask\nfrom PIL import Image\nimport os\n"


class Bench:
    """Environments, a project, and the log of its job."""

    def __init__(self, folder: Path) -> None:
        self.uv = FakeUv(folder / "control")
        self.root = folder / "data" / "jobs" / "environments"
        self.home = folder / "home"
        self.home.mkdir()
        self.log: list[str] = []
        self.write("app.py", APP)

    def write(self, name: str, text: str) -> None:
        (self.home / name).write_text(text)

    def environments(self, *, frameworks: bool = False) -> JobEnvironments:
        return JobEnvironments(self.root, uv=self.uv.path, frameworks=frameworks)

    def prepare(self, name: str = "default", *, frameworks: bool = False, mode: Mode = Mode.SERVE, owner: str = "") -> Prepared:
        """One environment, released again."""
        found: list[Prepared] = []
        self.log.clear()

        async def test() -> None:
            environments = self.environments(frameworks=frameworks)
            found.append(await environments.prepare(name, self.home, self.log.append, mode=mode, owner=owner))
            found[0].release()

        run(test)
        return found[0]

    def refused(self, name: str = "default", *, frameworks: bool = False, mode: Mode = Mode.SERVE) -> ServingError:
        with pytest.raises(ServingError) as caught:
            self.prepare(name, frameworks=frameworks, mode=mode)
        return caught.value

    def said(self, text: str) -> bool:
        return any(text in line for line in self.log)


def put(prepared: Prepared, *names: str) -> None:
    """Modules and records of packages, as if the installer had put them there."""
    site = prepared.python.parent.parent / "lib" / "python3.99" / "site-packages"
    site.mkdir(parents=True, exist_ok=True)
    for name in names:
        (site / name).mkdir()


def collected(environments: JobEnvironments, older_than_s: float = 0) -> list[str]:
    return [key for some in environments.all() for key in some.collect(older_than_s)]


def packages(bench: Bench) -> list[str]:
    return [line for line in bench.uv.read("packages.list").splitlines() if not line.startswith("-")]
