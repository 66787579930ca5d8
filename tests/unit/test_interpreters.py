"""Which Python an environment is made with: the server's own, one on the path, one that uv knows, or a clear answer that there is none."""

import asyncio
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Environment
from dragoman.engines.environment import Environments
from dragoman.engines.interpreters import Interpreter, find, nearest, own
from tests.fake_uv import FakeUv, alive, until
from tests.servables import run

OWN = "{}.{}".format(*sys.version_info[:2])


def pretend(folder: Path, version: str, name: str = "") -> Path:
    """A program that says of itself that it is this Python."""
    facts = json.dumps({"version": version, "implementation": "cpython", "platform": "here", "abi": "x"})
    path = folder / (name or "python" + ".".join(version.split(".")[:2]))
    folder.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s' '{facts}'\n")
    path.chmod(0o755)
    return path


def broken(folder: Path, name: str, script: str) -> None:
    """A program that is no Python, as a shim of a version that is not installed."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def environ(*folders: Path) -> Mapping[str, str]:
    return {"PATH": os.pathsep.join(map(str, folders))}


def found(python: str, variables: Mapping[str, str], uv: str | None = None) -> Interpreter:
    results = []

    async def test() -> None:
        results.append(await find(python, uv, variables))

    run(test)
    return results[0]


def test_the_servers_own() -> None:
    """Is what this process is, and is taken first for its own version, wherever else there is one."""

    async def test() -> None:
        interpreter = await own({})
        assert interpreter.path == Path(sys.executable)
        assert interpreter.version == platform.python_version()
        assert interpreter.minor == sys.version_info[:2]
        assert interpreter.abi
        assert await find(OWN, None, {}) == interpreter
        assert await find(interpreter.version, None, {}) == interpreter

    run(test)


def test_on_the_path(tmp_path: Path) -> None:
    """The first that runs and is what its name says; folders that are not absolute or not there are passed over."""
    for folder, script in (
        ("a", "exit 127"),
        ("b", "echo nonsense"),
        ("c", "echo '{}'"),
        ("d", "echo '[]'"),
        ("e", "echo '{\"version\": 5}'"),
    ):
        broken(tmp_path / folder, "python3.98", script)
    pretend(tmp_path / "f", "3.97.1", "python3.98")
    wanted = pretend(tmp_path / "g", "3.98.2")
    (tmp_path / "b" / "python3.98.txt").write_text("")
    folders = [tmp_path / name for name in "abcdefg"]
    assert found("3.98", environ(tmp_path / "missing", Path("relative"), *folders)).path == wanted
    assert found("3.98.2", environ(*folders)).version == "3.98.2"


def test_the_whole_version_counts_when_it_is_given(tmp_path: Path) -> None:
    """3.98 is any of them, 3.98.5 is one."""
    pretend(tmp_path, "3.98.2")
    with pytest.raises(ServingError, match=r"there is no Python 3\.98\.5 here; there is .*3\.98\.2"):
        found("3.98.5", environ(tmp_path))


def test_by_uv(tmp_path: Path) -> None:
    """What uv knows is asked for after the path, and looked at as well."""
    uv = FakeUv(tmp_path / "control")
    wanted = pretend(tmp_path / "managed", "3.98.1", "python")
    variables = {"PATH": os.environ["PATH"]}
    uv.set("python", f"{wanted}\n")
    assert found("3.98", variables, uv.path).path == wanted
    assert uv.calls == ["python find --no-project 3.98"]
    uv.set("python", "/nonexistent/python\n")
    with pytest.raises(ServingError, match=r"there is no Python 3\.98 here"):
        found("3.98", variables, uv.path)


def test_none(tmp_path: Path) -> None:
    """The answer names what there is, and nothing that could not run a model process."""
    for version in ("3.96.0", "3.98.2", "3.9.18", "3.10.13", "2.7.18"):
        pretend(tmp_path / "a", version)
    broken(tmp_path / "a", "python3.97", "exit 127")
    pretend(tmp_path / "a", "3.95.0", "python3.95-config")
    with pytest.raises(ServingError) as caught:
        found("3.99", environ(tmp_path / "a", tmp_path / "missing"))
    assert caught.value.kind is Kind.UNAVAILABLE
    assert caught.value.message == f"there is no Python 3.99 here; there is {platform.python_version()}, 3.96.0, 3.98.2"


def test_another_python_is_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one that was found is what the virtualenv is made with, in its version that is really used."""
    uv = FakeUv(tmp_path / "control")
    program = pretend(tmp_path / "bin", "3.98.2")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    async def test() -> None:
        environments = Environments(tmp_path / "root", uv.path)
        other = await environments.python_for(Environment("3.98", ("six",)))
        await environments.python_for(Environment("", ("six",)))
        assert other.readlink() == program
        assert sorted(e.python for e in environments.installed()) == sorted(["3.98.2", platform.python_version()])
        pretend(tmp_path / "bin", "3.98.3")
        assert await environments.python_for(Environment("3.98", ("six",))) == other, "looked for once"
        assert await Environments(tmp_path / "root", uv.path).python_for(Environment("3.98", ("six",))) != other, "an upgrade"

    run(test)


def test_looking_is_bounded(tmp_path: Path) -> None:
    """Cancelling ends a program that does not answer."""
    broken(tmp_path, "python3.98", f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec /bin/sleep 100")

    async def test() -> None:
        task = asyncio.ensure_future(find("3.98", None, environ(tmp_path, Path("/usr/bin"), Path("/bin"))))
        file = tmp_path / "pid"
        await until(file.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(int(file.read_text()))

    run(test)


# --- the nearest, for jobs ---


def installed(folder: Path, version: str, *, pip: bool = True, prefix: Path | None = None) -> Path:
    """A program that says of itself that it belongs to an installation."""
    path = pretend(folder, version)
    facts: dict[str, object] = {"version": version, "implementation": "cpython", "platform": "here", "abi": "x"}
    facts |= {"real": str(path), "prefix": str(prefix or folder.parent), "pip": pip}
    path.write_text(f"#!/bin/sh\nprintf '%s' '{json.dumps(facts)}'\n")
    return path


def near(wanted: tuple[int, int], variables: Mapping[str, str], *, oldest: tuple[int, int] = (3, 90), pip: bool = False) -> Interpreter:
    results = []

    async def test() -> None:
        results.append(await nearest(wanted, oldest, variables, pip=pip))

    run(test)
    return results[0]


def test_the_nearest(tmp_path: Path) -> None:
    """Its own, else the one with the least distance; the older of two; never one that is too old."""
    for version in ("3.89.0", "3.92.0", "3.94.1", "3.98.2"):
        installed(tmp_path / "bin", version)
    variables = environ(tmp_path / "bin")
    assert [near((3, minor), variables).version for minor in (94, 96, 97, 99)] == ["3.94.1", "3.94.1", "3.98.2", "3.98.2"]
    assert near((2, 7), variables).version == "3.92.0"
    assert near((3, 5), variables).version == "3.92.0"


def test_the_servers_own_may_be_the_nearest() -> None:
    """Then it is the installation that its virtualenv was made with, with all that is needed to run it."""
    interpreter = near(sys.version_info[:2], {}, oldest=(3, 8))
    assert interpreter.minor == sys.version_info[:2]
    assert interpreter.prefix == Path(sys.base_prefix)
    assert interpreter.path.resolve() == interpreter.path
    assert any(interpreter.path.is_relative_to(path) for path in interpreter.readable)
    assert any(Path(os.__file__).is_relative_to(path) for path in interpreter.readable)
    assert interpreter.prefix not in interpreter.readable


def test_where_version_managers_put_them(tmp_path: Path) -> None:
    """Also when they are not on the path; a shim on the path is not what is taken."""
    versions = tmp_path / ".pyenv" / "versions"
    for version in ("3.94.1", "3.96.0"):
        (versions / version).mkdir(parents=True)
        installed(versions / version / "bin", version)
    broken(tmp_path / "shims", "python3.94", f"exec {versions}/3.94.1/bin/python3.94")
    found = near((3, 94), {"HOME": str(tmp_path), **environ(tmp_path / "shims")})
    assert (found.path, found.prefix) == (versions / "3.94.1" / "bin" / "python3.94", versions / "3.94.1")
    (versions / "3.94.1" / "lib").mkdir()
    assert found.readable == (versions / "3.94.1" / "bin", versions / "3.94.1" / "lib")
    assert near((3, 94), environ(tmp_path / "shims")).path == found.path, "where the shim leads"
    assert near((3, 95), {"HOME": "relative", "PYENV_ROOT": str(tmp_path / ".pyenv")}).version == "3.94.1"


def test_a_program_beside_its_installation(tmp_path: Path) -> None:
    """Is readable as well."""
    path = installed(tmp_path / "bin", "3.94.1", prefix=tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "lib").mkdir(parents=True)
    assert near((3, 94), environ(tmp_path / "bin")).readable == (tmp_path / "elsewhere" / "lib", path)


def test_the_nearest_must_run_and_be_able_to_install(tmp_path: Path) -> None:
    """Programs that are none are passed over, and those without pip where pip is needed; without any there is a clear answer."""
    broken(tmp_path / "a", "python3.94", "exit 127")
    installed(tmp_path / "b", "3.95.0", pip=False)
    installed(tmp_path / "c", "3.96.0")
    pretend(tmp_path / "d", "3.93.0")  # says nothing about where it is
    variables = environ(tmp_path / "a", tmp_path / "b", tmp_path / "c", tmp_path / "d")
    assert near((3, 94), variables).version == "3.95.0"
    assert near((3, 94), variables, pip=True).version == "3.96.0"
    with pytest.raises(ServingError, match=r"there is no Python from 3\.90 on here") as caught:
        near((3, 94), environ(tmp_path / "a"))
    assert caught.value.kind is Kind.UNAVAILABLE
