"""Environments of jobs as the real installers make them, in the sandbox that this machine allows: from packages of our own, no network needed."""

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.engines.jobs.isolation import Isolation, find
from dragoman.serving.jobs.environments import JobEnvironments, Prepared, confined_by
from tests import wheels
from tests.fake_uv import alive, until

BACKEND = """\
import base64, hashlib, json, os, socket, zipfile

LOOK = json.loads(open(os.path.join(os.path.dirname(__file__), "look.json")).read())

def attempt(what):
    try:
        return what()
    except BaseException as error:
        return type(error).__name__

def looked():
    found = {"environ": sorted(os.environ)}
    found["read"] = {path: attempt(lambda: open(path).read()) for path in LOOK["read"]}
    found["listed"] = {path: attempt(lambda: sorted(os.listdir(path))) for path in LOOK["list"]}
    found["written"] = {path: attempt(lambda: open(os.path.join(path, "planted"), "w").close()) for path in LOOK["write"]}
    found["reached"] = attempt(lambda: socket.create_connection(("127.0.0.1", LOOK["port"]), 5).close())
    return found

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    files = {
        "curious.py": "import json\\nFOUND = json.loads(%r)\\n" % json.dumps(looked()),
        "curious-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: curious\\nVersion: 1.0\\n",
        "curious-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: a test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        lines.append("%s,sha256=%s,%d\\n" % (path, digest, len(text)))
    files["curious-1.0.dist-info/RECORD"] = "".join(lines) + "curious-1.0.dist-info/RECORD,,\\n"
    name = "curious-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return name
"""
"""Builds the package `curious`, whose module says what its builder found on the machine."""

PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "curious"
version = "1.0"
"""


def source_package(folder: Path, look: dict[str, Any], first: str = "") -> None:
    """curious-1.0.tar.gz: code of strangers, which runs when it is installed; `first` before anything else."""
    files = {
        "pyproject.toml": PROJECT,
        "backend.py": first + BACKEND,
        "look.json": json.dumps(look, default=str),
        "PKG-INFO": "Metadata-Version: 2.1\nName: curious\nVersion: 1.0\n",
    }
    with tarfile.open(folder / "curious-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"curious-1.0/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


@dataclass
class Shop:
    """A data directory, a folder of packages that is all that installers know, and something that listens on this machine."""

    data: Path
    folder: Path
    home: Path
    other: Path
    """The virtualenv of another job."""
    port: int
    log: list[str] = field(default_factory=list)

    def prepare(self, requirements: str, uv: str | None, isolation: Isolation) -> Prepared:
        (self.home / "floyd_requirements.txt").write_text(requirements)
        self.log.clear()

        async def found() -> Isolation:
            return isolation

        async def prepare() -> Prepared:
            environments = JobEnvironments(self.data / "jobs" / "environments", uv=uv, confine=confined_by(found))
            return await environments.prepare("default", self.home, self.log.append)

        return asyncio.run(prepare())


@pytest.fixture(scope="module")
def isolation() -> Isolation:
    """What this machine allows."""
    return asyncio.run(find("auto"))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    folder = tmp_path / "wheels"
    for version in ("1.5", "2.0"):
        wheels.write(folder, "toy", version)
    for name, value in wheels.settings(folder, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_NO_CACHE_DIR")
    monkeypatch.setenv("SECRET_OF_SERVER", "secret")
    data, home = tmp_path / "data", tmp_path / "home"
    (data / "jobs").mkdir(parents=True, mode=0o700)
    (data / "secret.key").write_text("secret")
    other = data / "jobs" / "environments" / "other"
    other.mkdir(parents=True)
    home.mkdir()
    (home / "app.py").write_text("import toy\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Shop(data, folder, home, other, listener.getsockname()[1])


def said_by(prepared: Prepared, code: str) -> str:
    return subprocess.run([prepared.python, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_confined_installers(shop: Shop, isolation: Isolation, installer: str) -> None:
    """Install what is asked for, from the operator's index; the code of a package that runs then sees nothing of the server."""
    look = {
        "read": [shop.data / "secret.key", "/etc/shadow"],
        "list": [shop.data, shop.data / "jobs", Path.home()],
        "write": [shop.other, shop.folder, shop.home, shop.data, "/usr"] if isolation.bwrap else [],
        "port": shop.port,
    }
    source_package(shop.folder, look)
    prepared = shop.prepare("toy<2\ncurious\n", None if installer == "uv" else "", isolation)
    prepared.release()
    assert said_by(prepared, "import toy; print(toy.VERSION)") == "1.5"
    assert any("toy-1.5" in line for line in shop.log if line.startswith("Successfully installed "))
    assert not any("imported and not installed" in line for line in shop.log)
    found = json.loads(said_by(prepared, "import curious, json; print(json.dumps(curious.FOUND))"))
    assert "SECRET_OF_SERVER" not in found["environ"]
    if not isolation.bwrap:
        return
    assert found["read"] == {str(shop.data / "secret.key"): "FileNotFoundError", "/etc/shadow": "FileNotFoundError"}
    assert "secret.key" not in found["listed"][str(shop.data)]
    assert set(found["listed"][str(shop.data / "jobs")]) <= {"environments"}
    assert found["listed"][str(Path.home())] == "FileNotFoundError" or not {".ssh", ".bashrc", ".profile"} & {
        *found["listed"][str(Path.home())]
    }
    assert found["written"]["/usr"] == found["written"][str(shop.folder)] == "OSError"
    assert found["reached"] == ("ConnectionRefusedError" if isolation.own_network else None)
    assert not [path for folder in (shop.data, shop.folder, shop.home) for path in folder.rglob("planted")]


def test_two_jobs_with_two_versions(shop: Shop, isolation: Isolation) -> None:
    """Of one package; the second time they come from the cache, and pip's and uv's lines are in the log the first time."""
    first, second = (shop.prepare(f"toy=={version}\n", None, isolation) for version in ("1.5", "2.0"))
    assert any("toy" in line and "2.0" in line and "+" in line for line in shop.log)
    assert [said_by(prepared, "import toy; print(toy.VERSION)") for prepared in (first, second)] == ["1.5", "2.0"]
    assert shop.prepare("toy==2.0 # again\n", None, isolation).python == second.python
    assert any("from the cache" in line for line in shop.log)


def test_nothing_of_the_servers(shop: Shop, isolation: Isolation) -> None:
    """A virtualenv without requirements is empty: the log says what is missing, and the program will not find our packages."""
    prepared = shop.prepare("", None, isolation)
    assert "toy is imported and not installed: what the program needs must be named in floyd_requirements.txt (toy)" in shop.log
    for module in ("toy", "numpy", "dragoman", "orjson"):
        with pytest.raises(subprocess.CalledProcessError):
            said_by(prepared, f"import {module}")
    assert Path(said_by(prepared, "import sys; print(sys.prefix)")) == prepared.readable[0]


def test_an_install_that_fails(shop: Shop, isolation: Isolation) -> None:
    """Names the requirement, and leaves no half of a virtualenv."""
    for requirement in ("nosuchthing==1", "toy==3"):
        with pytest.raises(ServingError) as caught:
            shop.prepare(f"{requirement}\n", None, isolation)
        assert caught.value.kind is Kind.UNAVAILABLE
        assert f"{requirement} cannot be installed" in caught.value.message
        assert str(shop.data) not in caught.value.message + "".join(shop.log)
    folders = {path.name for path in (shop.data / "jobs" / "environments").iterdir() if path.is_dir()}
    assert folders == {"cache", "locks", "other"}


def test_without_namespaces(shop: Shop) -> None:
    """The same comes out, with the variables of the server kept back all the same."""
    source_package(shop.folder, {"read": [], "list": [], "write": [], "port": shop.port})
    prepared = shop.prepare("curious\n", None, asyncio.run(find("shim")))
    found = json.loads(said_by(prepared, "import curious, json; print(json.dumps(curious.FOUND))"))
    assert "SECRET_OF_SERVER" not in found["environ"]
    assert prepared.python.resolve().samefile(Path(sys.executable).resolve())


def test_stopped_while_it_installs(shop: Shop, isolation: Isolation) -> None:
    """No process is left, not even one that the code of a package has sent away, where there are namespaces."""
    token = f"sent-away-{shop.port}"
    sleeper = f"[sys.executable, '-c', 'import time; time.sleep(300)', {token!r}]"
    away = f"subprocess.Popen({sleeper}, start_new_session=True)" if isolation.bwrap else ""
    waiting = f"import subprocess, sys\n{away}\nsubprocess.run({sleeper})\n"
    source_package(shop.folder, {}, waiting)
    (shop.home / "floyd_requirements.txt").write_text("curious\n")

    async def found() -> Isolation:
        return isolation

    def there() -> list[str]:
        pids = [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]
        return [pid for pid in pids if token.encode() in command_of(pid).split(b"\0") and alive(int(pid))]

    async def test() -> None:
        environments = JobEnvironments(shop.data / "jobs" / "environments", confine=confined_by(found))
        task = asyncio.ensure_future(environments.prepare("default", shop.home, shop.log.append))
        await until(lambda: len(there()) == (2 if isolation.bwrap else 1), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not there())

    asyncio.run(test())
    folders = {path.name for path in (shop.data / "jobs" / "environments").iterdir() if path.is_dir()}
    assert folders == {"cache", "locks", "other"}


def command_of(pid: str) -> bytes:
    try:
        return (Path("/proc") / pid / "cmdline").read_bytes()
    except OSError:
        return b""
