"""Finding a Python of a wanted version: the server's own, one on the path, or one that uv knows. Called by environment.py; installs nothing."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.engines.requirements import OLDEST, minor_of

_PROBE = """\
import json, platform, sys, sysconfig
print(json.dumps({"version": platform.python_version(), "implementation": sys.implementation.name,
 "platform": sysconfig.get_platform(), "abi": sysconfig.get_config_var("SOABI") or ""}))
"""
_PROBE_TIMEOUT_S = 20.0
_EXECUTABLE = re.compile(r"python(3\.\d{1,3})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that runs here, and all about it that decides which packages fit."""

    path: Path
    version: str
    implementation: str
    platform: str
    abi: str

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
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            match = _EXECUTABLE.match(name)
            if match and minor_of(match[1]) >= OLDEST:
                interpreter = await _probe(folder / name, environ)
                if interpreter is not None:
                    found.append(interpreter)
    return found


def _path(environ: Mapping[str, str]) -> list[Path]:
    return [Path(folder) for folder in environ.get("PATH", os.defpath).split(os.pathsep) if folder.startswith("/")]


async def _probe(path: Path, environ: Mapping[str, str]) -> Interpreter | None:
    """What this executable is; None when it is no Python that runs (a shim of a version that is not there, say)."""
    try:
        facts: Any = json.loads(await _output([str(path), "-I", "-c", _PROBE], environ))
        found = Interpreter(path, facts["version"], facts["implementation"], facts["platform"], facts["abi"])
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
