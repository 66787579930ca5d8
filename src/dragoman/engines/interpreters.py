"""Finding a Python of a wanted version: the server's own, one on the path, or one that uv knows. Called by environment.py; installs nothing.

For jobs, which need no certain Python but one that is near, also in the folders where version managers put them.
"""

import asyncio
import glob
import json
import os
import re
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.engines.requirements import OLDEST, minor_of

_PROBE = """\
import importlib.util, json, os, platform, sys, sysconfig
print(json.dumps({"version": platform.python_version(), "implementation": sys.implementation.name,
 "platform": sysconfig.get_platform(), "abi": sysconfig.get_config_var("SOABI") or "",
 "real": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable), "prefix": sys.base_prefix,
 "pip": importlib.util.find_spec("ensurepip") is not None}))
"""
_PROBE_TIMEOUT_S = 20.0
_EXECUTABLE = re.compile(r"python(3\.\d{1,3})\Z", re.ASCII)
_PARTS = ("bin", "lib", "lib64", "libexec", "include", "share", "ssl")
_USUAL = ("/usr/local/bin", "/usr/bin", "/opt/python/*/bin", "/opt/conda/bin", "/opt/conda/envs/*/bin")
_USUAL_AT_HOME = (
    ".pyenv/versions/*/bin",
    ".local/share/uv/python/*/bin",
    ".local/bin",
    *(f"{conda}{envs}/bin" for conda in ("miniconda3", "anaconda3", "miniforge3") for envs in ("", "/envs/*")),
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that runs here, and all about it that decides which packages fit."""

    path: Path
    version: str
    implementation: str
    platform: str
    abi: str
    prefix: Path = Path()
    """Of the installation, where its library is. Known, like the next, of those that `nearest` found."""
    has_pip: bool = True
    """Whether it can put pip into a virtualenv."""

    @property
    def readable(self) -> tuple[Path, ...]:
        """What a program must be able to read to run with it, or with a virtualenv of it, beyond what the system has in /usr."""
        if self.prefix.is_relative_to("/usr") and self.path.is_relative_to("/usr"):
            return ()
        parts = tuple(path for name in _PARTS if (path := self.prefix / name).is_dir())
        return parts if any(self.path.is_relative_to(part) for part in parts) else (*parts, self.path)

    @property
    def minor(self) -> tuple[int, int]:
        return minor_of(".".join(self.version.split(".")[:2]))


async def own(environ: Mapping[str, str]) -> Interpreter:
    """The server's own Python."""
    found = await _probe(Path(sys.executable), environ)
    if found is None:
        raise ServingError(Kind.UNAVAILABLE, "the server's own Python cannot be run to make an environment")
    return found


async def find(python: str, uv: str | None, environ: Mapping[str, str]) -> Interpreter:
    """A Python of this version ("3.12", "3.12.4"); UNAVAILABLE, naming those that there are, without one."""
    async with aclosing(_candidates(python, uv, environ)) as candidates:
        async for path in candidates:
            found = await _probe(path, environ)
            if found is not None and _fits(found, python):
                return found
    have = sorted(
        {i.version for i in [await own(environ), *await _on_path(environ)]}, key=lambda v: [int(n) for n in re.findall(r"\d+", v)]
    )
    raise ServingError(Kind.UNAVAILABLE, f"there is no Python {python} here; there is {', '.join(have)}")


async def nearest(wanted: tuple[int, int], oldest: tuple[int, int], environ: Mapping[str, str], *, pip: bool = False) -> Interpreter:
    """The Python here whose version is next to the wanted one; `path` is that of the installation itself, whatever link or shim led there.

    `pip`: it must be able to put pip into a virtualenv. UNAVAILABLE without any from `oldest` on.
    """
    there = await asyncio.to_thread(_named, environ, oldest)
    for minor in sorted(there, key=lambda minor: (abs(100 * (minor[0] - wanted[0]) + minor[1] - wanted[1]), minor)):
        for path in there[minor]:
            found = await _probe(path, environ, real=True)
            if found is not None and found.minor == minor and (found.has_pip or not pip):
                return found
    raise ServingError(Kind.UNAVAILABLE, f"there is no Python from {oldest[0]}.{oldest[1]} on here that can make a virtualenv")


def _named(environ: Mapping[str, str], oldest: tuple[int, int]) -> dict[tuple[int, int], list[Path]]:
    """Version -> programs that are called like it, those of installations before those on the path, which may be shims."""
    home, pyenv = environ.get("HOME", ""), environ.get("PYENV_ROOT", "")
    patterns = [*_USUAL, *(f"{home}/{usual}" for usual in _USUAL_AT_HOME if home.startswith("/"))]
    patterns += [f"{pyenv}/versions/*/bin"] if pyenv.startswith("/") else []
    folders = [Path(folder) for pattern in patterns for folder in sorted(glob.glob(pattern), reverse=True)] + _path(environ)
    there = {sys.version_info[:2]: [Path(sys.executable)]} if sys.version_info[:2] >= oldest else {}
    for folder in dict.fromkeys(folders):
        for name in _listed(folder):
            match = _EXECUTABLE.match(name)
            if match and minor_of(match[1]) >= oldest and os.access(folder / name, os.X_OK):
                there.setdefault(minor_of(match[1]), []).append(folder / name)
    return there


def _fits(interpreter: Interpreter, python: str) -> bool:
    return interpreter.minor == minor_of(python) and (python.count(".") < 2 or interpreter.version == python)


async def _candidates(python: str, uv: str | None, environ: Mapping[str, str]) -> AsyncGenerator[Path, None]:
    if minor_of(python) == sys.version_info[:2]:
        yield Path(sys.executable)
    name = "python{}.{}".format(*minor_of(python))
    for folder in _path(environ):
        path = folder / name
        if os.access(path, os.X_OK):
            yield path
    if uv:
        answer = await _output([uv, "python", "find", "--no-project", python], environ)
        if answer.strip():
            yield Path(answer.strip())


async def _on_path(environ: Mapping[str, str]) -> list[Interpreter]:
    """Every Python on the path that could run a model process."""
    found = []
    for folder in _path(environ):
        for name in _listed(folder):
            match = _EXECUTABLE.match(name)
            if match and minor_of(match[1]) >= OLDEST:
                interpreter = await _probe(folder / name, environ)
                if interpreter is not None:
                    found.append(interpreter)
    return found


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _path(environ: Mapping[str, str]) -> list[Path]:
    return [Path(folder) for folder in environ.get("PATH", os.defpath).split(os.pathsep) if folder.startswith("/")]


async def _probe(path: Path, environ: Mapping[str, str], *, real: bool = False) -> Interpreter | None:
    """What this executable is; None when it is no Python that runs (a shim of a version that is not there, say).

    `real`: go by the path of the installation that it belongs to.
    """
    try:
        facts: Any = json.loads(await _output([str(path), "-I", "-c", _PROBE], environ))
        found = Interpreter(path, facts["version"], facts["implementation"], facts["platform"], facts["abi"])
        if real:
            found = replace(found, path=Path(facts["real"]), prefix=Path(facts["prefix"]), has_pip=bool(facts["pip"]))
        return found if found.minor else None
    except (ValueError, KeyError, TypeError, ServingError):
        return None


async def _output(command: list[str], environ: Mapping[str, str]) -> str:
    """What a short command prints; "" when it fails, is not there, or takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(environ),
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            printed, _ = await process.communicate()
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return printed.decode("utf-8", "replace") if process.returncode == 0 else ""
