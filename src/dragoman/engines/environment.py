"""Virtualenvs of models and jobs: built once per content, shared by all that want the same, removed when nobody does.

The process engine holds one while a model process runs, the runner of jobs while a job does; `dragoman env` lists, builds and removes
those of models. A virtualenv sees its own packages and the standard library, never the server's packages.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol, Self

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Environment
from dragoman.engines import interpreters
from dragoman.engines.builder import Log, Recipe, build, described, environment_for_builders
from dragoman.engines.installer_files import needs_of
from dragoman.engines.locks import FileLock
from dragoman.engines.removal import remove_tree
from dragoman.engines.requirements import OLDEST, from_file, from_model, minor_of
from dragoman.engines.shelf import Installed, Shelf

logger = logging.getLogger("dragoman.environments")

FOLDER = "environments"
"""Where a server keeps them, within its data directory."""

_BUILD_CONSTRAINTS = "setuptools<81\n"
"""For what confined installers build packages with: later releases are without pkg_resources, which the setup.py of many old packages imports."""

_FORMAT = 1
"""Part of every hash: raised when environments are built in another way, so that old ones are not taken for new ones."""


class Confine(Protocol):
    """Makes a command one that sees no more of the machine than its programs, these folders and files, and the network around it.

    `local`: it must also reach programs on this machine.
    """

    async def __call__(
        self, command: Sequence[str], *, writable: Sequence[Path], readable: Sequence[Path], local: bool
    ) -> Sequence[str]: ...


class Held:
    """An environment that is ready and stays until this is released; leaving it as a context manager releases it, too."""

    def __init__(self, key: str, python: Path, lock: FileLock) -> None:
        self.hash = key
        self.python = python
        """The interpreter of the virtualenv."""
        self._lock = lock

    def release(self) -> None:
        """Let it be removed, which is counted from now on. May be called again."""
        if self._lock.held:
            with contextlib.suppress(OSError):
                os.utime(self._lock.path)
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Environments:
    """The environments under one root, which several processes may use at the same time.

    `uv` is the path of uv, "" for venv and pip, None for whatever there is: uv beside this interpreter, on the path, or else pip.
    `always` is in each of them, unless another release of it is asked for: what a model process needs. With `confine` the installers, and
    code of packages that they run, are confined to the new virtualenv and to a cache of downloads that is below the root.
    """

    def __init__(
        self,
        root: Path,
        uv: str | None = None,
        *,
        build_timeout_s: float = 1800.0,
        always: tuple[str, ...] = ("numpy",),
        confine: Confine | None = None,
    ) -> None:
        self._shelf = Shelf(root.absolute())  # builders run elsewhere
        self._environ = environment_for_builders(os.environ)
        self._uv = _find_uv(self._environ.get("PATH")) if uv is None else uv
        self._build_timeout_s = build_timeout_s
        self._always = always
        self._confine = confine
        self._interpreters: dict[str, interpreters.Interpreter] = {}

    @property
    def root(self) -> Path:
        return self._shelf.root

    async def python_for(self, environment: Environment, log: Log = lambda _: None) -> Path:
        """The interpreter of the ready virtualenv; see `hold`, which also keeps it."""
        with await self.hold(environment, log) as held:
            return held.python

    async def hold(
        self, environment: Environment, log: Log = lambda _: None, *, interpreter: interpreters.Interpreter | None = None
    ) -> Held:
        """The virtualenv of this content, built if there is none, and kept until the answer is released.

        `interpreter` is taken as it is, in place of the one that the environment names, which can run a model process.
        `log` gets the lines of progress. Whoever waits for the build of another process gets its result, the error included; a builder
        that was killed or cancelled leaves nothing in the way. INVALID_INPUT: a requirement that is not allowed. UNAVAILABLE: the build
        failed; the message names the requirement if that can be told, `trace` has the end of the output.
        """
        recipe = await self._recipe(environment, interpreter)
        key = _key(recipe)
        try:
            self._shelf.prepare()
            lock = await FileLock.wait(self._shelf.used(key), shared=True)
            try:
                python = self._shelf.ready(key) or await self._built(recipe, key, log)
                os.utime(lock.path)
                return Held(key, python, lock)
            except BaseException:
                lock.close()
                raise
        except OSError as exc:
            logger.warning("environments in %s: %s", self._shelf.root, exc)
            raise ServingError(Kind.UNAVAILABLE, f"the folder of environments cannot be used: {exc.strerror}") from exc

    def installed(self) -> list[Installed]:
        """Every environment that is ready, the one used last first."""
        found = [self._shelf.installed(key) for key in self._shelf.hashes() if self._shelf.ready(key)]
        return sorted(found, key=lambda e: e.last_used, reverse=True)

    def collect(self, older_than_s: float, keep: Collection[str] = ()) -> list[str]:
        """Remove what was not used for that long, is not in use and not to be kept, and what broken builds left. Returns the hashes."""
        removed = []
        for key in self._shelf.hashes():
            with self._shelf.alone(key) as alone:
                if not alone:
                    continue
                if not self._shelf.ready(key):
                    self._shelf.erase(key)
                elif key not in keep and time.time() - self._shelf.used(key).stat().st_mtime >= older_than_s:
                    self._shelf.erase(key)
                    removed.append(key)
                else:
                    self._shelf.tidy(key)
        return removed

    def remove(self, key: str) -> None:
        """Remove one environment. NOT_FOUND: there is none with this hash. CONFLICT: it is in use or being built."""
        if key not in self._shelf.hashes():
            raise ServingError(Kind.NOT_FOUND, f"there is no environment {key[:40]!r}")
        with self._shelf.alone(key) as alone:
            if not alone:
                raise ServingError(Kind.CONFLICT, f"the environment {key} is in use")
            self._shelf.erase(key)

    async def nearest(self, wanted: tuple[int, int], oldest: tuple[int, int]) -> interpreters.Interpreter:
        """The Python here whose version is next to the wanted one, and that environments can be made with; see `interpreters.nearest`."""
        return await interpreters.nearest(wanted, oldest, self._environ, pip=not self._uv)

    async def _recipe(self, environment: Environment, interpreter: interpreters.Interpreter | None) -> Recipe:
        packages = from_model(environment.packages)
        options, requirements = from_file(environment.requirements)
        python = interpreter or await self._interpreter(environment.python)
        return Recipe(python, packages, options, requirements, self._always)

    async def _interpreter(self, python: str) -> interpreters.Interpreter:
        """The Python to build with: the server's own for "" and for versions that are too old to run a model process."""
        if python and minor_of(python) < OLDEST:
            text = (
                f"Python {python} cannot run a model here; the environment is made with {sys.version_info[0]}.{sys.version_info[1]} instead"
            )
            logger.warning("%s", text)
            python = ""
        if python not in self._interpreters:
            find = interpreters.find(python, self._uv, self._environ) if python else interpreters.own(self._environ)
            self._interpreters[python] = await find
        return self._interpreters[python]

    async def _built(self, recipe: Recipe, key: str, log: Log) -> Path:
        """Wait for the turn to build, and build if nobody else did meanwhile."""
        asked = time.time()
        waited = False

        def waiting() -> None:
            nonlocal waited
            waited = True
            log("this environment is being built already; waiting for it")

        with await FileLock.wait(self._shelf.building(key), waiting=waiting):
            python = self._shelf.ready(key)
            if python is not None:
                return python
            failed = self._shelf.failure(key)
            if waited and failed and failed["at"] >= asked:
                raise ServingError(Kind.UNAVAILABLE, str(failed.get("message")), trace=str(failed.get("trace")))
            return await self._build(recipe, key, log)

    async def _build(self, recipe: Recipe, key: str, log: Log) -> Path:
        log(f"making the environment {key} of {described(recipe)} with {'uv' if self._uv else 'pip'}")
        started = time.monotonic()
        await _in_thread(self._shelf.erase, key)
        directory = self._shelf.new_directory(key)
        deadline = asyncio.get_running_loop().time() + self._build_timeout_s
        try:
            if self._confine is None:
                await build(recipe, directory, self._uv, self._environ, log, deadline)
            else:
                await self._build_confined(self._confine, recipe, directory, log, deadline)
            facts = {"python": recipe.interpreter.version, "packages": recipe.lines, "created": time.time()}
            self._shelf.complete(key, directory, facts)
        except BaseException as exc:
            await _in_thread(remove_tree, directory)
            if isinstance(exc, ServingError):
                self._shelf.note_failure(key, {"at": time.time(), "message": exc.message, "trace": exc.trace})
            raise
        log(f"the environment {key} is ready after {time.monotonic() - started:.1f} s")
        return directory / "bin" / "python"

    async def _build_confined(self, confine: Confine, recipe: Recipe, directory: Path, log: Log, deadline: float) -> None:
        temporary, cache = directory.with_name(f"{directory.name}.tmp"), self._shelf.root / "cache"
        for folder in (directory, temporary, cache):
            folder.mkdir(mode=0o700, exist_ok=True)
        constraints = temporary / "build-constraints.txt"
        constraints.write_text(_BUILD_CONSTRAINTS, encoding="utf-8")
        environ = {
            "UV_BUILD_CONSTRAINT": str(constraints),
            "PIP_BUILD_CONSTRAINT": str(constraints),
            **self._environ,
            "TMPDIR": str(temporary),
            "UV_CACHE_DIR": str(cache / "uv"),
            "PIP_CACHE_DIR": str(cache / "pip"),
            "UV_LINK_MODE": "copy",  # hard links from the cache are not possible between two mounts
        }
        tools = [Path(self._uv)] if self._uv else []
        needs = await asyncio.to_thread(needs_of, self._environ)
        readable = (*tools, *recipe.interpreter.readable, *needs.readable)

        async def wrap(command: Sequence[str]) -> Sequence[str]:
            return await confine(command, writable=(directory, temporary, cache), readable=readable, local=needs.local)

        try:
            await build(recipe, directory, self._uv, environ, log, deadline, wrap)
        finally:
            await _in_thread(remove_tree, temporary)


def _find_uv(path: str | None) -> str:
    """uv beside this interpreter or on the path; "" without it."""
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("uv", path=path) or ""


def _key(recipe: Recipe) -> str:
    """The hash of all that decides what is installed."""
    python = recipe.interpreter
    content = [
        _FORMAT,
        [python.version, python.implementation, python.platform, python.abi, str(python.prefix)],
        [r.text for r in recipe.packages],
        recipe.options,
        [r.text for r in recipe.requirements],
        recipe.always,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]


async def _in_thread(function: Callable[..., object], *arguments: object) -> None:
    """Run to its end, also when the task is cancelled meanwhile."""
    await asyncio.shield(asyncio.to_thread(function, *arguments))
