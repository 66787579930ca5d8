"""What a job's program runs with: an interpreter near to the one that was asked for, in a virtualenv with what the project declares.

The runner prepares one before each start and releases it after the end. Virtualenvs are cached by content, so that jobs which want the same
share one; installers run confined, since a package's own code may run then (FloydHub requirements F5, F8, F20, F25).
"""

import asyncio
import codecs
import hashlib
import os
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.jobs import Mode
from dragoman.core.model import Environment
from dragoman.engines.environment import Confine, Environments, Held
from dragoman.engines.interpreters import Interpreter
from dragoman.engines.jobs.allowed import Isolation
from dragoman.engines.jobs.sandbox import sandboxed
from dragoman.engines.requirements import Requirement, from_file
from dragoman.serving.jobs.companions import companions_of
from dragoman.serving.jobs.environment_names import Named, named, nearest
from dragoman.serving.jobs.imports import PACKAGES, Imports, bytes_of, imports_of, package_of

REQUIREMENTS = "floyd_requirements.txt"
JOBS_FOLDER = Path("jobs") / "environments"
"""Where a server keeps them, within its data directory."""
OLDEST = (3, 8)
"""The oldest Python that what runs inside of a job can do with."""

_NOTEBOOKS = ("notebook", "jupyterlab")
_WITH_NOTEBOOK = {*_NOTEBOOKS, "jupyter"}
_OWNERS = "of"
_LARGEST = 1 << 20
_SHOWN = 60

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A virtualenv that is ready, and stays until it is released."""

    python: Path
    readable: tuple[Path, ...]
    """What the program must be able to read, at the same path: the virtualenv and the installation that it was made with."""
    notebook: str
    """The module to run for a notebook server, "" without one: never empty for a job in jupyter mode."""
    _held: Held

    def release(self) -> None:
        """May be called again."""
        self._held.release()


def confined_by(find: Callable[[], Awaitable[Isolation]]) -> Confine:
    """Has installers run like jobs: apart from the machine, as far as it allows that, which `find` knows."""

    async def confine(command: Sequence[str], *, writable: Sequence[Path], readable: Sequence[Path], local: bool) -> Sequence[str]:
        isolation = await find()
        reaching = replace(isolation, own_network=isolation.own_network and not local)
        return await sandboxed(reaching, command, writable=writable, readable=readable)

    return confine


class JobEnvironments:
    """The virtualenvs of jobs, below one folder of the data directory."""

    def __init__(self, root: Path, *, uv: str | None = None, frameworks: bool = False, confine: Confine | None = None) -> None:
        """`frameworks`: whether the framework that an environment's name stands for is installed (`--env-frameworks`).

        `confine` has installers run in the sandbox: see `confined_by`. `uv` as Environments takes it.
        """
        self._root = root
        self._uv = uv
        self._frameworks = frameworks
        self._confine = confine
        self._interpreters: dict[tuple[int, ...], Interpreter] = {}

    async def prepare(self, name: str, home: Path, log: Log, *, mode: Mode = Mode.SERVE, owner: str = "") -> Prepared:
        """The virtualenv for the code in `home`, under an environment's name; `log` gets lines for the job's log.

        Environments are shared among jobs with the same `owner`: give one where users must not trust each other. Raises INVALID_INPUT (an
        unknown name, a line of floyd_requirements.txt that is refused) and UNAVAILABLE (an install failed; the message names the
        requirement): the reason for which the job has FAILED. May be cancelled at any time.
        """
        environment = named(name)
        environments = self._of(owner)
        interpreter = await self._interpreter(environments, environment, log)
        text = await asyncio.to_thread(_declared, home)
        _, declared = from_file(text, REQUIREMENTS)
        starts = ["app.py"] if mode is Mode.SERVE else await asyncio.to_thread(lambda: sorted(path.name for path in home.glob("*.py")))
        imports = await asyncio.to_thread(imports_of, home, starts)
        if imports.old:
            log(f"{imports.old} is Python 2: only Python 3 is available here, so the program will fail there")
        names = {requirement.name for requirement in declared}
        if mode is Mode.JUPYTER and not self._frameworks and not names & _WITH_NOTEBOOK:
            raise _no_notebook()
        packages = self._added(environment, interpreter, names, imports, mode, log)
        _tell_declared(declared, packages, log)
        beside = companions_of(declared, map(_name, packages))
        held = await self._held(environments, packages, beside, text, interpreter, log)
        try:
            folder = held.python.parent.parent
            site = await asyncio.to_thread(_Site, folder)
            if site.installed:
                # In pip's words, whatever installed them: this is the line that people look for in a log.
                log(f"Successfully installed {' '.join(site.installed[:_SHOWN])}" + (" and more" if len(site.installed) > _SHOWN else ""))
            _tell_missing(imports, site, log)
            notebook = next((module for module in _NOTEBOOKS if site.has(module)), "")
            if mode is Mode.JUPYTER and not notebook:
                raise _no_notebook()
            return Prepared(held.python, (folder, *interpreter.readable), notebook, held)
        except BaseException:
            held.release()
            raise

    def all(self) -> list[Environments]:
        """Those that are shared by everybody, and those of each owner. Blocks."""
        return [self._at(root) for root in (self._root, *sorted((self._root / _OWNERS).glob("*"))) if root.is_dir()]

    def _of(self, owner: str) -> Environments:
        """Those of one owner. With another's code in between, a cache of downloads could have been tampered with."""
        return self._at(self._root / _OWNERS / hashlib.sha256(owner.encode()).hexdigest()[:20] if owner else self._root)

    def _at(self, root: Path) -> Environments:
        return Environments(root, self._uv, always=(), confine=self._confine)

    async def _interpreter(self, environments: Environments, environment: Named, log: Log) -> Interpreter:
        """The Python that is nearest to the one of FloydHub's image; which one that is, the log says."""
        wanted = environment.python or sys.version_info[:2]
        if wanted not in self._interpreters:
            self._interpreters[wanted] = await environments.nearest((wanted[0], wanted[1]), OLDEST)
        found = self._interpreters[wanted]
        asked = f"environment {environment.name}"
        if environment.image:
            asked += f" (on FloydHub Python {wanted[0]}.{wanted[1]} with {environment.contents})"
        another = "" if found.minor == tuple(wanted) else ", the nearest that is available"
        log(f"{asked}: Python {found.version}{another}")
        return found

    def _added(
        self, environment: Named, interpreter: Interpreter, declared: set[str], imports: Imports, mode: Mode, log: Log
    ) -> tuple[str, ...]:
        """What is installed on top of what the project declares, or said to be missing, since FloydHub's image had it."""
        wanted: list[str] = []
        if environment.framework:
            wanted += self._framework(environment.framework, environment.version, interpreter, declared, log)
        if not self._frameworks:
            return ()
        for module in imports.modules:
            framework = {"tensorflow": "tensorflow", "torch": "pytorch"}.get(module)
            package = PACKAGES.get(module)
            if framework and framework != environment.framework:
                wanted += self._framework(framework, "0", interpreter, declared, log)
            elif not framework and package and not any(_name(line) == package for line in wanted):
                wanted.append(package)
        if mode is Mode.JUPYTER and not declared & _WITH_NOTEBOOK:
            wanted.append(_NOTEBOOKS[0])
        added = tuple(line for line in wanted if _name(line) not in declared)
        if added:
            log(f"installing what FloydHub's environment had: {', '.join(added)}")
        return added

    def _framework(self, framework: str, version: str, interpreter: Interpreter, declared: set[str], log: Log) -> tuple[str, ...]:
        """Requirements for a framework, none where the project declares it itself or where there is no release."""
        found = nearest(framework, version, interpreter.minor, interpreter.platform)
        if found.reason:
            log(f"{framework} cannot be installed: {found.reason}")
        elif _name(found.requirements[0]) not in declared:
            if self._frameworks:
                return found.requirements
            lines = ", ".join(found.requirements)
            log(f"{framework} is not installed: where the program needs it, name it in {REQUIREMENTS}; for this Python: {lines}")
        return ()

    async def _held(
        self, environments: Environments, packages: tuple[str, ...], beside: tuple[str, ...], text: str, interpreter: Interpreter, log: Log
    ) -> Held:
        """The virtualenv, built with the installer's lines in the log, or taken from the cache, which the log says, too.

        What the project did not ask for may be what cannot be installed: then, if the installer speaks of it, `beside` is left out.
        """
        if beside:
            log(f"installing releases that fit what {REQUIREMENTS} pins: {', '.join(beside)}")
            try:
                return await _hold(environments, Environment("", (*packages, *beside), text), interpreter, log)
            except ServingError as error:
                if error.kind is not Kind.UNAVAILABLE or not any(_name(line) in error.trace.lower() for line in beside):
                    raise
                log("they cannot be installed with the rest; trying again without them")
        return await _hold(environments, Environment("", packages, text), interpreter, log)


async def _hold(environments: Environments, environment: Environment, interpreter: Interpreter, log: Log) -> Held:
    told = False
    root = f"{environments.root}{os.sep}"

    def tell(line: str) -> None:
        nonlocal told
        told = True
        log(line.replace(root, ""))  # where the server keeps it is nothing to a job

    held = await environments.hold(environment, tell, interpreter=interpreter)
    if not told and (environment.packages or environment.requirements.strip()):
        log(f"the virtualenv {held.hash} is there already, from the cache")
    return held


class _Site:
    """What a virtualenv has."""

    def __init__(self, folder: Path) -> None:
        self._modules = set[str]()
        self.installed: list[str] = []
        """NAME-VERSION, sorted."""
        sites = folder.glob("lib/python3.*/site-packages")
        for site in (site for site in sites if site.resolve().is_relative_to(folder.resolve())):  # an installer may have left links
            for path in site.iterdir():
                if path.name.endswith(".dist-info"):
                    self.installed.append(path.name.removesuffix(".dist-info"))
                else:
                    self._modules.add(path.name.split(".")[0])
        self.installed.sort(key=str.lower)

    def has(self, module: str) -> bool:
        return module in self._modules


def _declared(home: Path) -> str:
    """The text of floyd_requirements.txt, "" without one. Some editors write UTF-16, which pip reads, too."""
    path = home / REQUIREMENTS
    content = bytes_of(path, _LARGEST)
    if not content and os.path.lexists(path) and (path.is_symlink() or not path.is_file() or path.stat().st_size):
        raise invalid(f"{REQUIREMENTS} must be a file of at most {_LARGEST} bytes")
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise invalid(f"{REQUIREMENTS} is neither UTF-8 nor UTF-16 text") from None


def _no_notebook() -> ServingError:
    return ServingError(
        Kind.UNAVAILABLE,
        f"jupyter is not installed: name notebook or jupyterlab in {REQUIREMENTS}; a server with --env-frameworks installs it itself",
    )


def _tell_declared(declared: tuple[Requirement, ...], added: tuple[str, ...], log: Log) -> None:
    if declared:
        lines = [requirement.line for requirement in declared]
        log(f"{REQUIREMENTS}: {', '.join(lines[:_SHOWN])}" + (" and more" if len(lines) > _SHOWN else ""))
    elif not added:
        log(f"{REQUIREMENTS} names nothing: the program has the standard library only")


def _tell_missing(imports: Imports, site: _Site, log: Log) -> None:
    """One line for all modules that the program's files import and nothing provides."""
    missing = [module for module in imports.modules if not site.has(module)]
    if missing:
        packages = ", ".join(sorted({package_of(module) for module in missing})[:_SHOWN])
        are = "is" if len(missing) == 1 else "are"
        log(
            f"{', '.join(missing[:_SHOWN])} {are} imported and not installed: what the program needs must be named in {REQUIREMENTS} ({packages})"
        )


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~;@ ]", requirement)[0]
