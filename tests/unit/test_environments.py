"""Virtualenvs of models, with an installer that does as it is told: built once, waited for, given up, held, collected, removed.

That the real installers make what is asked for is tested by tests/e2e/test_environments.py.
"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import dragoman
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Environment
from dragoman.engines.environment import Environments
from tests.fake_uv import FakeUv, alive, until
from tests.servables import run

SIX = Environment(packages=("six",))
OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from dragoman.core.errors import ServingError
from dragoman.core.model import Environment
from dragoman.engines.environment import Environments

async def main():
    try:
        with await Environments(Path(sys.argv[1]), sys.argv[2]).hold(Environment(packages=("six",)), lambda line: print(line, flush=True)) as held:
            print("held", held.python, flush=True)
            sys.stdin.readline()
    except ServingError as error:
        print("failed", error.message, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def uv(tmp_path: Path) -> FakeUv:
    return FakeUv(tmp_path / "control")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "environments"


@pytest.fixture
def environments(root: Path, uv: FakeUv) -> Environments:
    return Environments(root, uv.path)


class Other:
    """Another server process that wants the environment of SIX, and keeps it until it is told to go on."""

    def __init__(self, root: Path, uv: FakeUv) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, str(root), uv.path],
            env={**os.environ, "PYTHONPATH": str(Path(dragoman.__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self, beginning: str) -> str:
        """The next line that begins like this."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(beginning):
                return line.strip()
        raise AssertionError(f"no line begins with {beginning}")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def other(root: Path, uv: FakeUv) -> Iterator[Other]:
    process = Other(root, uv)
    yield process
    process.end()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def failures(root: Path) -> list[Path]:
    return [*root.glob("*.failed")]


def directories(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name != "locks")


# --- building ---


def test_built_once(environments: Environments, uv: FakeUv, root: Path) -> None:
    """The second wish for the same content, in other words, by another object, is answered without an installer."""

    async def test() -> None:
        lines: list[str] = []
        python = await environments.python_for(Environment(packages=("Six ", "attrs>=1")), lines.append)
        assert python.parent.parent.parent == root
        again = Environments(root, uv.path)
        assert await again.python_for(Environment(packages=("attrs >= 1", "six"))) == python
        assert uv.builds == 1
        assert uv.read("packages.list") == "attrs>=1\nsix\nnumpy\n"
        (found,) = again.installed()
        assert python.parent.parent.name.startswith(found.hash)
        assert (found.packages, found.in_use) == (("attrs>=1", "six"), False)
        assert found.python == sys.version.split()[0]
        assert found.size_bytes > 0
        assert found.created <= found.last_used
        assert f"making the environment {found.hash} of Python {found.python} with attrs>=1, six with uv" in lines
        assert "Creating virtual environment" in lines
        assert lines[-1].startswith(f"the environment {found.hash} is ready")

    run(test)


def test_other_content_is_another_environment(environments: Environments) -> None:
    """Packages, requirements and options count; comments and order of packages do not."""

    async def test() -> None:
        wishes = [
            SIX,
            Environment(packages=("six==1",)),
            Environment(packages=("six", "attrs")),
            Environment(requirements="six"),
            Environment(requirements="six\nattrs"),
            Environment(requirements="--pre\nsix"),
            Environment(),
        ]
        pythons = [await environments.python_for(wish) for wish in wishes]
        assert len({*pythons}) == len(wishes) == len(environments.installed())
        assert await environments.python_for(Environment(requirements="# a comment\n\nsix")) == pythons[3]
        own = "{}.{}".format(*sys.version_info[:2])
        assert await environments.python_for(Environment(own, ("six",))) == pythons[0]

    run(test)


def test_numpy_is_always_there(environments: Environments, uv: FakeUv) -> None:
    """Unless it is named, in whatever way; where there are hashes it comes in a second step."""

    async def lists(wish: Environment) -> tuple[str, ...]:
        for file in uv.folder.glob("*.list"):
            file.unlink()
        await environments.python_for(wish)
        return tuple(uv.read(file.name) for file in sorted(uv.folder.glob("*.list"), reverse=True))

    async def test() -> None:
        digest = f"--hash=sha256:{'a' * 64}"
        assert await lists(Environment(packages=("NumPy<2",))) == ("numpy<2\n",)
        assert await lists(Environment(requirements="--index-url https://i.example\nnumpy==1.26")) == (
            "--index-url https://i.example\nnumpy==1.26\n",
        )
        assert await lists(Environment("", ("attrs",), f"six {digest}")) == (f"--require-hashes\nsix {digest}\n", "attrs\nnumpy\n")
        assert await lists(Environment("", (), f"numpy {digest}")) == (f"--require-hashes\nnumpy {digest}\n",)
        assert await lists(Environment("", (), "--require-hashes\n--pre\nnumpy @ https://f.example/n.whl#sha256=a")) == (
            "--require-hashes\nnumpy @ https://f.example/n.whl#sha256=a\n",
        )
        assert any("--prerelease allow" in call for call in uv.calls)

    run(test)


def test_what_is_always_there(uv: FakeUv, root: Path) -> None:
    """Is up to whoever has the environments; other choices are other environments, and nothing to install is nothing to do."""

    async def test() -> None:
        bare = await Environments(root, uv.path, always=()).python_for(Environment())
        assert len(uv.calls) == 1
        assert await Environments(root, uv.path, always=()).python_for(Environment("", (), "--pre\n")) != bare
        assert len(uv.calls) == 2, "options alone install nothing"
        assert await Environments(root, uv.path).python_for(Environment()) != bare
        assert uv.read("packages.list") == "numpy\n"
        await Environments(root, uv.path, always=("six", "attrs")).python_for(Environment(packages=("six==1",)))
        assert uv.read("packages.list") == "six==1\nattrs\n"

    run(test)


def test_an_interpreter_of_ones_own_choice(environments: Environments, uv: FakeUv) -> None:
    """Is taken, however old it is, and makes an environment of its own."""

    async def test() -> None:
        chosen = await environments.nearest((3, 8), (3, 8))
        assert chosen.minor >= (3, 8)
        old = replace(chosen, version="3.8.0", prefix=Path("/nowhere"))
        pythons = [await environments.python_for(SIX)]
        for interpreter in (chosen, old, chosen):
            with await environments.hold(SIX, interpreter=interpreter) as held:
                pythons.append(held.python)
        assert pythons[1] == pythons[3] != pythons[2]
        assert pythons[1].readlink() == chosen.path
        assert "3.8.0" in {e.python for e in environments.installed()}

    run(test)


def test_hostile_lines_never_reach_an_installer(environments: Environments, uv: FakeUv, root: Path) -> None:
    """Whoever made the Environment object: it is checked again."""

    async def test() -> None:
        for wish in (Environment(packages=("--index-url=https://x",)), Environment(requirements="-r /etc/passwd"), Environment("3.11;x")):
            with pytest.raises(ServingError) as caught:
                await environments.python_for(wish)
            assert caught.value.kind is Kind.INVALID_INPUT
        assert not uv.calls

    run(test)
    assert not root.exists()


def test_a_version_that_is_too_old(environments: Environments, caplog: pytest.LogCaptureFixture) -> None:
    """Gets the server's own Python, with a warning."""

    async def test() -> None:
        with caplog.at_level(logging.WARNING, "dragoman.environments"):
            old = await environments.python_for(Environment("3.8", ("six",)))
        assert old == await environments.python_for(SIX)
        assert "Python 3.8 cannot run a model here" in caplog.text

    run(test)


def test_what_a_builder_is_told(uv: FakeUv, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of installers are passed on, secrets of the server and what would install elsewhere are not."""
    passed = {
        "PIP_INDEX_URL": "https://i.example",
        "UV_CACHE_DIR": "/c",
        "https_proxy": "http://p.example",
        "SSL_CERT_FILE": "/s",
        "LANG": "C",
    }
    kept = ("AWS_SECRET_ACCESS_KEY", "DRAGOMAN_KEY", "PYTHONPATH", "VIRTUAL_ENV", "PIP_TARGET", "PIP_USER", "UV_PYTHON", "UV_VENV_SEED")
    for name in (*passed, *kept):
        monkeypatch.setenv(name, passed.get(name, "hidden"))

    async def test() -> None:
        await Environments(root, uv.path).python_for(SIX)
        told = dict(line.split("=", 1) for line in uv.read("environment").splitlines())
        assert {name: told.get(name) for name in passed} == passed
        assert not {*kept} & {*told}
        assert "hidden" not in told.values()

    run(test)


def test_only_the_owner_may_look(environments: Environments, root: Path) -> None:
    """An index may need a password, and lists of packages are nobody else's business."""

    async def test() -> None:
        python = await environments.python_for(SIX)
        assert mode(root) == 0o700
        assert mode(python.parent.parent / "packages.list") == 0o600

    run(test)


# --- builds that fail ---


def test_a_failure_names_the_requirement(environments: Environments, uv: FakeUv, root: Path) -> None:
    """Nothing internal is in the message; all of the output is in the trace; nothing is left; and the next try is a new one."""
    uv.set("output", "Looking at https://me:secret@index.example/simple\n\x1b[31mred\x07\n")
    uv.set(
        "error",
        "error: No solution found\n  cause: Because nosuch was not found in the package registry and you require nosuch\n"
        f"  see {root}/log and https://help.example/x\n",
    )

    async def test() -> None:
        lines: list[str] = []
        with pytest.raises(ServingError) as caught:
            await environments.python_for(Environment(packages=("nosuch==2", "six")), lines.append)
        error = caught.value
        assert error.kind is Kind.UNAVAILABLE
        assert "cannot be built: nosuch==2 cannot be installed (error: No solution found; cause: Because nosuch" in error.message
        assert "see ... and ..." in error.message
        assert str(root) not in error.message
        assert "Looking at https://***@index.example/simple" in error.trace
        assert "secret" not in error.trace + "".join(lines)
        assert all(line.isprintable() for line in lines)
        assert not directories(root)
        assert not environments.installed()
        uv.unset("error")
        await environments.python_for(Environment(packages=("nosuch==2", "six")))
        assert len(environments.installed()) == 1
        assert not failures(root)

    run(test)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("ERROR: No matching distribution found for tool==1", "tool==1 cannot be installed"),
        ("ERROR: Could not find a version that satisfies the requirement tool==1 (from versions: 2)", "tool==1 cannot be installed"),
        ("error: x\n  cause: Because there is no version of tool==1 and you require tool==1, ...", "tool==1 cannot be installed"),
        ("error: Failed to build `tool==1`", "tool==1 cannot be installed"),
        ("  ERROR: Failed building wheel for Tool", "tool==1 cannot be installed"),
        ("ERROR: Cannot install six and tool==1 because these package versions have conflicting dependencies.", "six cannot be installed"),
        ("ERROR: No matching distribution found for deeper>=3 (from tool)", "deeper>=3 cannot be installed"),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. More\n    tool==1 from x",
            "tool==1 cannot be installed",
        ),
        ("the disk is full", "the installer ended with exit code 1 (Creating virtual environment; the disk is full)"),
        ("", "the installer ended with exit code 1"),
    ],
)
def test_which_requirement_failed(environments: Environments, uv: FakeUv, output: str, reason: str) -> None:
    """As uv and pip say it; where they do not say, their last lines."""
    uv.set("error", output)

    async def test() -> None:
        with pytest.raises(ServingError) as caught:
            await environments.python_for(Environment(packages=("tool==1", "six")))
        assert reason in caught.value.message

    run(test)


def test_a_build_takes_its_time_only(root: Path, uv: FakeUv) -> None:
    """Beyond the limit its processes are killed."""
    uv.set("hold")

    async def test() -> None:
        with pytest.raises(ServingError, match="was not done in time"):
            await Environments(root, uv.path, build_timeout_s=1.0).python_for(SIX)
        assert not directories(root)
        await until(lambda: not alive(uv.builder))

    run(test)


def test_a_flood_of_output(environments: Environments, uv: FakeUv) -> None:
    """Lines without end are cut, bytes that are no text are shown as such, and the memory for the error is bounded."""
    uv.set("output", "x" * 3_000_000 + "\n" + "line\n" * 5000)
    (uv.folder / "error").write_bytes(b"\xff\xfe\n" * 100)

    async def test() -> None:
        lines: list[str] = []
        with pytest.raises(ServingError) as caught:
            await environments.python_for(SIX, lines.append)
        assert max(map(len, lines)) <= 500
        assert len(lines) > 5000
        assert len(caught.value.trace) < 100_000

    run(test)


@pytest.mark.parametrize("broken", ["missing", "directory"])
def test_no_installer(root: Path, tmp_path: Path, broken: str) -> None:
    """One that is gone, or cannot be run, is a failure with a reason."""
    if broken == "directory":
        (tmp_path / broken).mkdir()

    async def test() -> None:
        with pytest.raises(ServingError, match="cannot be built") as caught:
            await Environments(root, str(tmp_path / broken)).python_for(SIX)
        assert caught.value.kind is Kind.UNAVAILABLE

    run(test)


def test_a_root_that_cannot_be(tmp_path: Path, uv: FakeUv) -> None:
    """A file where the folder should be."""
    (tmp_path / "data").write_text("")

    async def test() -> None:
        with pytest.raises(ServingError, match="the folder of environments cannot be used: Not a directory") as caught:
            await Environments(tmp_path / "data" / "environments", uv.path).python_for(SIX)
        assert caught.value.kind is Kind.UNAVAILABLE

    run(test)


# --- several at once ---


def test_one_build_for_all_who_ask(environments: Environments, uv: FakeUv) -> None:
    """Tasks of one process wait for the first."""
    uv.set("hold")

    async def test() -> None:
        lines: list[str] = []
        tasks = [asyncio.ensure_future(environments.python_for(SIX, lines.append)) for _ in range(4)]
        await until(lambda: uv.builder)
        await until(lambda: lines.count("this environment is being built already; waiting for it") == 3)
        uv.set("go")
        assert len(set(await asyncio.gather(*tasks))) == 1
        assert uv.builds == 1

    run(test)


def test_another_process_builds(environments: Environments, uv: FakeUv, other: Other) -> None:
    """And this one gets the result."""

    async def test() -> None:
        waiting = asyncio.Event()
        task = asyncio.ensure_future(environments.python_for(SIX, lambda _: waiting.set()))
        await waiting.wait()
        uv.set("go")
        held = await asyncio.to_thread(other.line, "held")
        assert held == f"held {await task}"
        assert uv.builds == 1

    uv.set("hold")
    other.line("making")
    run(test)


def test_a_failure_is_shared(environments: Environments, uv: FakeUv, other: Other) -> None:
    """Who waited for a build that failed does not try the same again; who comes later does."""
    uv.set("hold")
    uv.set("error", "error: no")
    other.line("making")

    async def test() -> None:
        waiting = asyncio.Event()
        task = asyncio.ensure_future(environments.python_for(SIX, lambda _: waiting.set()))
        await waiting.wait()
        uv.set("go")
        with pytest.raises(ServingError) as caught:
            await task
        assert (await asyncio.to_thread(other.line, "failed")).endswith(caught.value.message)
        assert caught.value.trace
        assert uv.builds == 1
        uv.unset("error")
        await environments.python_for(SIX)
        assert uv.builds == 2

    run(test)


def test_a_builder_that_is_cancelled(environments: Environments, uv: FakeUv, root: Path) -> None:
    """Leaves no process and no directory, and whoever waited builds."""
    uv.set("hold")

    async def test() -> None:
        first = asyncio.ensure_future(environments.python_for(SIX))
        await until(lambda: uv.builder)
        builder = uv.builder
        lines: list[str] = []
        second = asyncio.ensure_future(environments.python_for(SIX, lines.append))
        await until(lambda: lines)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not alive(builder)
        uv.set("go")
        python = await second
        assert directories(root) == [python.parent.parent.name]
        assert uv.builds == 2

    run(test)


def test_who_waits_can_be_cancelled(environments: Environments, uv: FakeUv) -> None:
    """Without harm to the one that builds."""
    uv.set("hold")

    async def test() -> None:
        first = asyncio.ensure_future(environments.python_for(SIX))
        await until(lambda: uv.builder)
        lines: list[str] = []
        second = asyncio.ensure_future(environments.python_for(SIX, lines.append))
        await until(lambda: lines)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        uv.set("go")
        await first
        assert uv.builds == 1

    run(test)


def test_a_builder_that_is_killed(environments: Environments, uv: FakeUv, root: Path, other: Other) -> None:
    """Its lock is free at once, although its installer still runs; what it left is removed, and is never taken for ready."""
    uv.set("hold")
    other.line("making")

    async def test() -> None:
        await until(lambda: uv.builder)
        orphan = uv.builder
        (left,) = directories(root)
        other.process.send_signal(signal.SIGKILL)
        other.process.wait()
        assert alive(orphan)
        uv.unset("builder")
        task = asyncio.ensure_future(environments.python_for(SIX))
        await until(lambda: uv.builder)
        assert left not in directories(root)
        uv.set("go")
        python = await task
        assert directories(root) == [python.parent.parent.name]
        await until(lambda: not alive(orphan))

    run(test)


# --- what is there ---


def test_what_is_held_stays(environments: Environments, root: Path, uv: FakeUv) -> None:
    """Neither removed nor collected until every holder has let go; letting go twice is letting go once."""

    async def test() -> None:
        first = await environments.hold(SIX)
        second = await Environments(root, uv.path).hold(SIX)
        assert environments.installed()[0].in_use
        for held in (first, second):
            with pytest.raises(ServingError, match="is in use") as caught:
                environments.remove(first.hash)
            assert caught.value.kind is Kind.CONFLICT
            assert environments.collect(0) == []
            held.release()
            held.release()
        assert not environments.installed()[0].in_use
        environments.remove(first.hash)
        assert environments.installed() == []
        assert not directories(root)

    run(test)


def test_another_process_holds(environments: Environments, other: Other) -> None:
    """Until it ends, however it ends."""
    other.line("held")
    (found,) = environments.installed()
    assert found.in_use
    assert environments.collect(0) == []
    other.end()
    assert environments.collect(0) == [found.hash]


def test_what_is_being_built_is_not_collected(environments: Environments, uv: FakeUv, root: Path) -> None:
    """A builder counts as a user."""
    uv.set("hold")

    async def test() -> None:
        task = asyncio.ensure_future(environments.python_for(SIX))
        await until(lambda: uv.builder)
        assert environments.collect(0) == []
        assert len(directories(root)) == 1
        with pytest.raises(ServingError, match="is in use"):
            environments.remove(directories(root)[0][:20])
        uv.set("go")
        assert (await task).exists()

    run(test)


def test_collecting(environments: Environments, root: Path) -> None:
    """What was not used for that long goes, unless it is to be kept; use is counted from its end."""

    async def test() -> None:
        hashes = {}
        for name in ("old", "kept", "new"):
            with await environments.hold(Environment(packages=(name,))) as held:
                hashes[name] = held.hash
        for name in ("old", "kept"):
            lock = root / "locks" / f"{hashes[name]}.use"
            os.utime(lock, (lock.stat().st_atime, lock.stat().st_mtime - 1000))
        assert environments.collect(2000) == []
        assert environments.collect(900, keep={hashes["kept"]}) == [hashes["old"]]
        assert [e.hash for e in environments.installed()] == [hashes["new"], hashes["kept"]]
        with await environments.hold(Environment(packages=("kept",))):
            pass
        assert environments.collect(900) == []
        assert environments.collect(0) == sorted([hashes["kept"], hashes["new"]])

    run(test)


def test_collecting_leftovers(environments: Environments, root: Path) -> None:
    """Directories without a marker, and notes of failures; but nothing that is not ours."""

    async def test() -> None:
        python = await environments.python_for(SIX)
        name = python.parent.parent.name
        for left in (name[:20] + "-00000000", "f" * 20 + "-00000000"):
            (root / left / "bin").mkdir(parents=True)
        (root / ("e" * 20 + ".failed")).write_text("{}")
        for foreign in ("notes", "f" * 20, "f" * 20 + "-backup0"):
            (root / foreign).mkdir()
        assert environments.collect(3600) == []
        assert directories(root) == sorted([name, "notes", "f" * 20, "f" * 20 + "-backup0"])
        assert not failures(root)

    run(test)


def test_nothing_there(environments: Environments, root: Path) -> None:
    """Looking makes no folder."""
    assert environments.installed() == []
    assert environments.collect(0) == []
    assert not root.exists()


@pytest.mark.parametrize("key", ["", "..", "../x", "0" * 20, "*", "locks"])
def test_removing_what_is_not_there(environments: Environments, key: str) -> None:
    """A name is looked up, never put into a path."""
    with pytest.raises(ServingError, match="there is no environment") as caught:
        environments.remove(key)
    assert caught.value.kind is Kind.NOT_FOUND


@pytest.mark.parametrize(
    "marker", ["", "[]", "{", '{"directory": "../outside"}', '{"directory": 5}', '{"directory": "%s-00000000"}' % ("0" * 20)]
)
def test_a_broken_marker(environments: Environments, uv: FakeUv, root: Path, marker: str) -> None:
    """Is as good as none: the environment is built again."""

    async def test() -> None:
        key = (await environments.python_for(SIX)).parent.parent.name[:20]
        (root / f"{key}.json").write_text(marker)
        assert environments.installed() == []
        await environments.python_for(SIX)
        assert uv.builds == 2
        assert json.loads((root / f"{key}.json").read_text())["directory"] in directories(root)
        assert len(directories(root)) == 1

    run(test)


def test_a_python_that_is_gone(environments: Environments, uv: FakeUv) -> None:
    """A virtualenv points at the Python that it was made with; without that it is made again."""

    async def test() -> None:
        first = await environments.python_for(SIX)
        first.unlink()
        first.symlink_to("/nonexistent/python")
        assert environments.installed() == []
        second = await environments.python_for(SIX)
        assert second != first
        assert not first.parent.exists()
        assert uv.builds == 2

    run(test)
