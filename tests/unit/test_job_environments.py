"""What a job's program runs with, with an installer that does as it is told: interpreters, packages, the cache, and what the log says."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import Mode
from dragoman.engines.jobs.allowed import Isolation
from dragoman.serving.jobs.environments import JobEnvironments, Prepared, confined_by
from tests.fake_uv import FakeUv, until
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


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def put(prepared: Prepared, *names: str) -> None:
    """Modules and records of packages, as if the installer had put them there."""
    site = prepared.python.parent.parent / "lib" / "python3.99" / "site-packages"
    site.mkdir(parents=True, exist_ok=True)
    for name in names:
        (site / name).mkdir()


def collected(environments: JobEnvironments, older_than_s: float = 0) -> list[str]:
    return [key for some in environments.all() for key in some.collect(older_than_s)]


def test_without_requirements(bench: Bench) -> None:
    """A virtualenv of its own with nothing in it, and a line about what the program imports all the same."""
    prepared = bench.prepare()
    assert prepared.python.is_relative_to(bench.root)
    assert prepared.readable[0] == prepared.python.parent.parent
    assert all(path.exists() for path in prepared.readable)
    assert prepared.python.resolve().name.startswith("python")
    assert [call.split()[0] for call in bench.uv.calls] == ["venv"]
    assert bench.log[0] == f"environment default: Python {OWN}"
    assert bench.log[1] == "floyd_requirements.txt names nothing: the program has the standard library only"
    assert bench.log[-1] == (
        "PIL, flask are imported and not installed: what the program needs must be named in floyd_requirements.txt (flask, pillow)"
    )
    assert not bench.said("from the cache")
    prepared.release()


def test_requirements(bench: Bench) -> None:
    """Go to the installer as they are; its lines, and what is installed in the end, are in the log; numpy is nobody's wish."""
    bench.write("floyd_requirements.txt", "# ours\nFlask >= 2 # web\n\nPillow\n")
    bench.uv.set("output", "Resolved 2 packages\n + flask==2.0\n")
    prepared = bench.prepare()
    assert bench.uv.read("packages.list") == "flask>=2\npillow\n"
    for line in ("floyd_requirements.txt: flask>=2, pillow", "Resolved 2 packages", " + flask==2.0"):
        assert line in bench.log
    put(prepared, "flask", "PIL", "flask-2.0.dist-info", "Pillow-9.dist-info")
    assert bench.prepare().python == prepared.python
    assert bench.log[2:] == [
        f"the virtualenv {prepared.python.parts[-3][:20]} is there already, from the cache",
        "Successfully installed flask-2.0 Pillow-9",
    ]
    assert bench.uv.builds == 1


def test_one_missing_module(bench: Bench) -> None:
    """Is spoken of in the singular."""
    put(bench.prepare(), "PIL")
    bench.prepare()
    assert bench.said("flask is imported and not installed")


def test_other_requirements_are_another_virtualenv(bench: Bench) -> None:
    """Two jobs may pin different versions, and different interpreters."""
    pythons = []
    for text in ("six==1.16", "six==1.17", "six==1.16 # again"):
        bench.write("floyd_requirements.txt", text)
        pythons.append(bench.prepare().python)
    assert pythons[0] == pythons[2] != pythons[1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings(bench: Bench, encoding: str) -> None:
    """As editors and shells of Windows write them; without a mark UTF-16 cannot be told."""
    (bench.home / "floyd_requirements.txt").write_bytes("six\r\n".encode(encoding))
    if encoding == "utf-16-le":
        assert bench.refused().kind is Kind.INVALID_INPUT
    else:
        bench.prepare()
        assert bench.uv.read("packages.list") == "six\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-r other.txt", "the option '-r' is not allowed"),
        ("-e .", "the option '-e' is not allowed"),
        ("../wheels/x.whl", "files and paths are not allowed"),
        ("six; --index-url", "this is no requirement"),
        ("${HOME}", "variables are not allowed"),
        ("http://example.com/x.whl", "this address is not allowed"),
    ],
)
def test_lines_that_are_refused(bench: Bench, line: str, reason: str) -> None:
    """With the line and the reason, before an installer sees them."""
    bench.write("floyd_requirements.txt", f"six\n{line}\n")
    error = bench.refused()
    assert error.kind is Kind.INVALID_INPUT
    assert "floyd_requirements.txt" in error.message
    assert repr(line) in error.message
    assert reason in error.message
    assert not bench.uv.calls


def test_no_file_at_all(bench: Bench, tmp_path: Path) -> None:
    """A link, a folder, a pipe or a huge file in its place is refused, so that nothing outside is read; not UTF-8 neither; an empty one is none."""
    path = bench.home / "floyd_requirements.txt"
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    for make in (
        lambda: path.symlink_to(secret),
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.write_text("#" * (2 << 20)),
        lambda: path.write_bytes(b"\xff\xfe\xfd"),
        lambda: path.write_bytes(b"six\xff"),
    ):
        make()
        error = bench.refused()
        assert error.kind is Kind.INVALID_INPUT
        assert "floyd_requirements.txt" in error.message
        assert "secret" not in error.message
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    path.write_text("")
    bench.prepare()


def test_an_install_that_fails(bench: Bench) -> None:
    """The error names the requirement, the log has what the installer said, and no folder of the server."""
    bench.write("floyd_requirements.txt", "six\nnosuch==3\n")
    bench.uv.set("output", f"looking into {bench.root}/somewhere\n")
    bench.uv.set("error", "error: No matching distribution found for nosuch==3\n")
    error = bench.refused()
    assert error.kind is Kind.UNAVAILABLE
    assert "nosuch==3 cannot be installed" in error.message
    assert bench.said("error: No matching distribution found for nosuch==3")
    assert bench.said("looking into somewhere")
    assert not bench.said(str(bench.root))
    bench.uv.unset("error")
    bench.prepare()


def test_an_unknown_name(bench: Bench) -> None:
    """Is refused with the list."""
    assert "tensorflow-0.12:py2" in bench.refused("tensorflow-9").message


# --- interpreters ---


def test_the_nearest_interpreter(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is used and named in the log, with what was asked for; an old program is warned about it."""
    folder = tmp_path / "prefix" / "bin"
    folder.mkdir(parents=True)
    facts = {"version": "3.8.99", "implementation": "cpython", "platform": "linux-x86_64", "abi": "x", "pip": True}
    facts |= {"real": str(folder / "python3.8"), "prefix": str(folder.parent)}
    (folder / "python3.8").write_text(f"#!/bin/sh\nprintf '%s' '{json.dumps(facts)}'\n")
    (folder / "python3.8").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    bench.write("app.py", "import flask\nprint 'starting'\n")
    prepared = bench.prepare("tensorflow-0.12:py2")
    assert bench.log[0] == (
        "environment tensorflow-0.12:py2 (on FloydHub Python 2.7 with tensorflow 0.12.1, keras 1.2.2, tflearn 0.3.2): "
        "Python 3.8.99, the nearest that is available"
    )
    assert bench.log[1] == "app.py, line 2 is Python 2: only Python 3 is available here, so the program will fail there"
    assert bench.said(
        "tensorflow is not installed: where the program needs it, name it in floyd_requirements.txt; for this Python: tensorflow>=2.2"
    )
    assert prepared.python.readlink() == folder / "python3.8"
    assert prepared.readable[1:] == (folder,)
    assert bench.prepare("default").python != prepared.python


# --- frameworks ---


def packages(bench: Bench) -> list[str]:
    return [line for line in bench.uv.read("packages.list").splitlines() if not line.startswith("-")]


def test_the_framework_when_it_is_allowed(bench: Bench) -> None:
    """In the release that fits the interpreter, with what the program imports of what the image had; shared by jobs that want the same."""
    bench.write("app.py", "import tensorflow as tf, numpy, evaluate\nfrom flask import Flask\nimport unheard_of\n")
    bench.write("evaluate.py", "from PIL import Image\nfrom werkzeug import utils\n")
    prepared = bench.prepare("tensorflow-1.9", frameworks=True)
    lines = packages(bench)
    assert [line for line in lines if line.startswith("tensorflow")]
    assert {line.split("<")[0] for line in lines} >= {"flask", "numpy", "pillow"}
    assert len([line for line in lines if line.startswith(("numpy", "flask"))]) == 2
    assert not [line for line in lines if "unheard" in line]
    assert bench.said("installing what FloydHub's environment had: tensorflow")
    assert not bench.said("names nothing")
    bench.write("app.py", "import numpy, evaluate, tensorflow\nfrom flask import Flask\nx = 1\n")
    assert bench.prepare("tensorflow-1.9", frameworks=True).python == prepared.python
    assert bench.prepare("tensorflow-1.9").python != prepared.python


def test_what_the_project_declares_goes_first(bench: Bench) -> None:
    """Its own release of the framework, and of everything else."""
    bench.write("app.py", "import tensorflow, numpy, flask\n")
    bench.write("floyd_requirements.txt", "tensorflow==2.99\nNumPy==1.26\n")
    bench.prepare("tensorflow-1.9", frameworks=True)
    assert packages(bench) == ["tensorflow==2.99", "numpy==1.26", "flask"]
    bench.prepare("tensorflow-1.9")
    assert not bench.said("is not installed:")


def test_frameworks_of_other_names(bench: Bench) -> None:
    """By default, what the program imports; a framework that there is no package of is said to be missing, and the job goes on."""
    bench.write("app.py", "import torch\n")
    bench.prepare(frameworks=True)
    assert [line for line in packages(bench) if line.startswith("torch<")]
    bench.write("app.py", "import caffe\n")
    bench.prepare("caffe", frameworks=True)
    assert bench.said("caffe cannot be installed: Caffe was never released as a Python package")
    bench.prepare("caffe")
    assert bench.said("caffe cannot be installed")


# --- pins of another time ---


def test_old_pins_get_what_fits(bench: Bench) -> None:
    """And the log says so."""
    bench.write("floyd_requirements.txt", "flask==1.0.2\n")
    bench.prepare()
    assert packages(bench) == ["flask==1.0.2", "itsdangerous<2.1", "jinja2<3.1", "markupsafe<2.1", "werkzeug<1"]
    assert bench.said("installing releases that fit what floyd_requirements.txt pins: werkzeug<1, jinja2<3.1")


def test_what_nobody_asked_for_does_no_harm(bench: Bench) -> None:
    """Where it cannot be installed with the rest, the rest is installed without it."""
    bench.write("floyd_requirements.txt", "flask==1.0.2\n")
    script = Path(bench.uv.path)
    text = script.read_text()
    script.write_text(
        text.replace(
            "  if [ -e hold ]",
            "  if grep -q jinja packages.list; then echo 'error: jinja2 is not to be had' >&2; exit 1; fi\n  if [ -e hold ]",
        )
    )
    bench.prepare()
    assert packages(bench) == ["flask==1.0.2"]
    assert bench.said("they cannot be installed with the rest; trying again without them")
    script.write_text(text)
    bench.write("floyd_requirements.txt", "flask==1.0.2\nnosuch\n")
    bench.uv.set("error", "error: nosuch was not found in the package registry\n")
    assert "nosuch cannot be installed" in bench.refused().message
    assert not bench.said("trying again"), "it would not help"


# --- notebooks ---


def test_a_notebook_needs_a_server(bench: Bench) -> None:
    """Without one named, or allowed, nothing is built, and the reason says what to do."""
    error = bench.refused(mode=Mode.JUPYTER)
    assert error.kind is Kind.UNAVAILABLE
    assert "name notebook or jupyterlab in floyd_requirements.txt; a server with --env-frameworks" in error.message
    assert not bench.uv.calls


def test_a_notebook_that_is_declared(bench: Bench) -> None:
    """Is found in the virtualenv, whichever it is; and when it is not there after all, that is said, too."""
    bench.write("floyd_requirements.txt", "jupyter\n")
    assert "jupyter is not installed" in bench.refused(mode=Mode.JUPYTER).message
    prepared = bench.prepare()
    assert prepared.notebook == ""
    put(prepared, "jupyterlab")
    assert bench.prepare(mode=Mode.JUPYTER).notebook == "jupyterlab"
    put(prepared, "notebook")
    assert bench.prepare(mode=Mode.JUPYTER).notebook == "notebook"


def test_a_notebook_when_frameworks_are_allowed(bench: Bench) -> None:
    """Is installed as part of what FloydHub's images had, with what the project's files import."""
    bench.refused(mode=Mode.JUPYTER, frameworks=True)
    assert packages(bench) == ["flask", "notebook", "pillow"]


# --- sharing ---


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
