"""`dragoman env` in this process with the real installer and wheels of our own: what it takes, prints and exits with."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dragoman.cli import main
from dragoman.core.model import Environment
from dragoman.engines.environment import FOLDER, Environments
from dragoman.serving.jobs.environments import JOBS_FOLDER, JobEnvironments
from tests import wheels
from tests.servables import run


@dataclass
class Ran:
    code: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def env(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `dragoman env` with arguments. There are the packages numpy, toy and gadget, which needs toy."""
    for name in list(os.environ):
        if name.startswith(("DRAGOMAN_", "PIP_", "UV_")):
            monkeypatch.delenv(name)
    shop = tmp_path / "wheels"
    wheels.write(shop, "numpy", "2.0")
    wheels.write(shop, "toy", "1.5")
    wheels.write(shop, "gadget", "0.1", requires=["toy>=1"])
    for name, value in wheels.settings(shop, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as caught:
            main(["env", *arguments, "--data-dir", str(data)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        assert isinstance(caught.value.code, int)
        return Ran(caught.value.code, printed.out, printed.err)

    return call


def test_those_of_jobs(env: Command, data: Path, tmp_path: Path) -> None:
    """Are listed, removed and collected with those of models, whoever they belong to; those in use stay."""
    (tmp_path / "app.py").write_text("")
    (tmp_path / "floyd_requirements.txt").write_text("gadget\n")
    environments = JobEnvironments(data / JOBS_FOLDER)
    held = []

    async def prepare() -> None:
        held.extend([await environments.prepare("default", tmp_path, lambda _: None, owner=owner) for owner in ("", "ann", "bob")])

    run(prepare)
    listed = json.loads(env("list", "--output", "json").out)
    assert [(e["packages"], e["in_use"]) for e in listed] == [(["gadget"], True)] * 3
    (key,) = {e["hash"] for e in listed}
    refused = env("remove", key)
    assert refused.code != 0
    assert "is in use" in refused.err
    for one in held[:2]:
        one.release()
    assert env("collect", "--unused-days", "0").out == f"removed {key}\nremoved {key}\n"
    held[2].release()
    assert env("remove", key[:6]).out == f"removed {key}\n"
    assert env("list").out == "there are no environments\n"


def test_from_build_to_removal(env: Command, data: Path) -> None:
    """Built, listed, and removed by the beginning of its hash."""
    assert env("list").out == "there are no environments\n"
    built = env("build", "Gadget")
    assert built.code == 0
    key, python = built.out.split()
    assert Path(python).is_relative_to(data / FOLDER)
    assert "making the environment" in built.err
    assert "is ready after" in built.err
    done = subprocess.run([python, "-c", "import gadget, toy, numpy; print(toy.VERSION)"], capture_output=True, text=True, check=True)
    assert done.stdout == "1.5\n"

    again = env("build", "gadget")
    assert (again.out, again.err) == (built.out, "")
    heading, line = env("list").out.splitlines()
    assert heading.split() == ["hash", "python", "size", "created", "last", "used", "in", "use", "packages"]
    assert line.startswith(key)
    assert line.endswith("  no      gadget")

    (listed,) = json.loads(env("list", "--output", "json").out)
    assert set(listed) == {"hash", "python", "packages", "size_bytes", "created", "last_used", "in_use"}
    assert (listed["hash"], listed["packages"], listed["python"]) == (key, ["gadget"], sys.version.split()[0])
    assert abs(listed["created"] - time.time()) < 3600

    assert env("remove", key[:6]).out == f"removed {key}\n"
    assert not Path(python).exists()
    assert env("list", "--output", "json").out == "[]\n"


def test_from_a_requirements_file(env: Command, tmp_path: Path) -> None:
    """Hashes included: a wrong one is a failure that names the package."""
    digest = wheels.sha256(tmp_path / "wheels" / "toy-1.5-py3-none-any.whl")
    file = tmp_path / "wanted.txt"
    file.write_text(f"toy==1.5 --hash=sha256:{digest}\n")
    built = json.loads(env("build", "--requirements", str(file), "--output", "json").out)
    assert set(built) == {"hash", "python"}
    file.write_text(f"toy==1.5 --hash=sha256:{'0' * 64}\n")
    ran = env("build", "--requirements", str(file))
    assert (ran.code, ran.out) == (1, "")
    assert "cannot be built: toy==1.5 cannot be installed" in ran.err


def test_collecting(env: Command) -> None:
    """By days; what is left is told, in words and in JSON."""
    keys = [env("build", name).out.split()[0] for name in ("toy", "gadget")]
    assert env("collect").out == "nothing to remove\n"
    assert json.loads(env("collect", "--output", "json").out) == {"removed": []}
    assert json.loads(env("collect", "--unused-days", "0", "--output", "json").out) == {"removed": sorted(keys)}
    assert env("list").out == "there are no environments\n"


def test_what_is_in_use_stays(env: Command, data: Path) -> None:
    """The reason is on standard error, the exit code 1, and the list says so."""

    async def test() -> None:
        with await Environments(data / FOLDER).hold(Environment(packages=("toy",))) as held:
            ran = env("remove", held.hash)
            assert (ran.code, ran.out) == (1, "")
            assert ran.err == f"dragoman: the environment {held.hash} is in use\n"
            assert "  yes     toy" in env("list").out
            assert env("collect", "--unused-days", "0").out == "nothing to remove\n"

    run(test)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build"], 2, "there is nothing to install"),
        (["build", "/etc/x"], 2, "packages: '/etc/x': files and paths are not allowed"),
        (["build", "toy @ https://evil.example/toy.whl"], 2, "this address is not allowed"),
        (["build", "toy", "--python", "three"], 2, "expected one such as '3.12'"),
        (["build", "toy", "--python", "3.99"], 1, "there is no Python 3.99 here; there is "),
        (["build", "--requirements", "/nonexistent/file"], 2, "--requirements is /nonexistent/file, which is no file"),
        (["build", "nosuchthing>=4"], 1, "nosuchthing>=4 cannot be installed"),
        (["build", "toy==9"], 1, "toy==9 cannot be installed"),
        (["remove", "0123456789"], 1, "no environments have a hash that begins with '0123456789'"),
        (["remove", ""], 1, "no environments have a hash that begins with ''"),
        (["collect", "--unused-days", "-1"], 2, "--unused-days is -1, expected 0 or more"),
        (["collect", "--unused-days", "nan"], 2, "--unused-days is nan, expected 0 or more"),
    ],
)
def test_refusals(env: Command, arguments: list[str], code: int, message: str) -> None:
    """A sentence and an exit code."""
    ran = env(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err


def test_a_folder_of_requirements(env: Command, tmp_path: Path) -> None:
    """Both kinds together are one environment; a file that is refused says which file it is."""
    file = tmp_path / "wanted.txt"
    file.write_text("toy\n")
    (built,) = [env("build", "gadget", "--requirements", str(file))]
    assert built.code == 0
    assert "gadget toy" in env("list").out
    file.write_text("-e .\n")
    assert "the option '-e' is not allowed" in env("build", "--requirements", str(file)).err
