"""Make a stored model of a project or an artifact: copy its files, look at it in a process of its own, keep it. For `dragoman build`.

A Python model is imported where its files have been copied to, so that one that lacks a file fails now and not when it is served. What
`post_build` downloads into its folder becomes part of it.
"""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dragoman.core
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Environment, ModelSpec
from dragoman.serving import layouts
from dragoman.serving.library.library import Library, Prepared, Stored
from dragoman.serving.library.packing import additions, chosen, copy, whole
from dragoman.serving.library.references import Reference, default_repository
from dragoman.serving.library.specs import kept, read_record
from dragoman.serving.python_models import (
    MODULE,
    RECORD,
    REQUIREMENTS,
    RUNTIME,
    SUFFIX,
    declared,
    is_project,
    located,
    module_file,
    spec_of,
)
from dragoman.serving.python_source import declarations
from dragoman.serving.repository import Defaults, Repository

Log = Callable[[str], None]
_ROOT = Path(dragoman.core.__file__).parents[1]
_BOOT = """\
import importlib.util as u, sys
root = sys.argv.pop(1)
spec = u.spec_from_file_location("dragoman", root + "/__init__.py", submodule_search_locations=[root])
package = sys.modules["dragoman"] = u.module_from_spec(spec)
spec.loader.exec_module(package)
from dragoman.runtimes.python_examine import main
main(sys.argv[1])
"""
"""Run with `python -c` by the interpreter of the model, which need not have this package installed, and must see nothing else of ours."""
PythonFor = Callable[[Environment, Log], Awaitable[Path]]
"""The interpreter of a model's environment."""


@dataclass(frozen=True, slots=True)
class Project:
    """What to build: a folder or a file, and what the command line says about it."""

    source: Path
    module: str = ""
    model_class: str = ""
    copy_files: tuple[tuple[str, str], ...] = ()
    environments: str = "auto"


async def build(library: Library, project: Project, name: Reference | None, log: Log, python_for: PythonFor) -> Stored:
    """Build and keep a model. Raises INVALID_INPUT for a project that cannot be, MODEL_FAILED when its own code fails."""
    if not project.source.exists():
        raise invalid(f"there is no {project.source}")
    place = await asyncio.to_thread(library.stage)
    try:
        if _is_python(project):
            prepared = await _python(project, place / "model", log, python_for)
        else:
            prepared = await asyncio.to_thread(_artifact, project, place)
        reference = name or Reference(default_repository(_folder_name(project.source)))
        return await library.add(prepared, reference.repository, reference.tag)
    finally:
        await asyncio.to_thread(shutil.rmtree, place, True)


def _is_python(project: Project) -> bool:
    source = project.source
    return bool(project.module) or source.suffix == SUFFIX or (source.is_dir() and (is_project(source) or layouts.is_plain(source)))


def _folder_name(source: Path) -> str:
    path = source.resolve()
    return path.name if path.is_dir() else path.parent.name if path.name == f"{MODULE}{SUFFIX}" else path.stem


# --- Python models ---


@dataclass(frozen=True, slots=True)
class _Code:
    """A Python project as it lies there."""

    source: Path
    module: str
    model_class: str

    @property
    def file(self) -> Path:
        return module_file(self.source, self.module)


def _code(project: Project) -> _Code:
    """Which module and class the command line means, or the record of an earlier build says."""
    source = project.source.resolve()
    if project.module:
        return _Code(source, project.module, project.model_class)
    if source.is_dir() and (source / RECORD).is_file():
        arguments = read_record(source)[1]["arguments"]
        return _Code(source, arguments["module"], project.model_class or arguments["class"])
    return _Code(*located(source), project.model_class)


async def _python(project: Project, folder: Path, log: Log, python_for: PythonFor) -> Prepared:
    code = _code(project)
    found = declarations(code.file)
    static = next((d for d in found if not code.model_class or d.name == code.model_class), None)
    config: Mapping[str, Any] = static.arguments if static is not None else {}
    spec = spec_of(ModelSpec("build"), code.source, environments=project.environments, module=code.module, model_class=code.model_class)
    for warning in spec.warnings:
        log(warning)
    python = await _interpreter(spec, python_for, log)
    if static is not None and static.unknown:  # what to copy and to install has to be known first
        config = (await _examined(python, code, code.source, folder.parent, log, post_build=False))["config"]
        python = await _interpreter(declared(ModelSpec("build"), config, "", environments=project.environments), python_for, log)
    files = await asyncio.to_thread(_files, code, config, project)
    await asyncio.to_thread(copy, files, folder)
    log("checking the model" + (" and running its post_build" if static is not None and static.post_build else ""))
    looked = await _examined(python, code, folder, folder.parent, log, post_build=True)
    _check(looked["config"], code.source)
    artifact = code.file.name if code.source.is_file() else ""
    return Prepared(folder, looked["kind"], kept(artifact, code.module, looked["class"], looked["config"]), str(code.source))


async def _interpreter(spec: ModelSpec, python_for: PythonFor, log: Log) -> Path:
    return await python_for(spec.environment, log) if spec.environment is not None else Path(sys.executable)


def _files(code: _Code, config: Mapping[str, Any], project: Project) -> dict[str, Path]:
    source = code.source
    if source.is_file():
        files = whole(source)
        if (beside := source.parent / REQUIREMENTS).is_file():
            files[REQUIREMENTS] = beside
    else:
        always = [code.file.relative_to(source).as_posix()]
        if readme := config.get("readme_md"):
            always.append(_readme(source, readme))
        files = chosen(source, _lines(config, "include_files", ["*"]), _lines(config, "exclude_files", []), always)
    return files | additions(source if source.is_dir() else source.parent, project.copy_files)


def _lines(config: Mapping[str, Any], name: str, usual: list[str]) -> list[str]:
    value = config.get(name)
    if value is None:
        return usual
    if not isinstance(value, list | tuple) or not all(isinstance(line, str) for line in value):
        raise invalid(f"{name} is not a list of patterns")
    return list(value)


def _readme(source: Path, readme: object) -> str:
    path = (source / str(readme)).resolve()
    if not path.is_file() or not path.is_relative_to(source):
        raise invalid(f"readme_md is {readme!r}, which is no file of the project")
    return path.relative_to(source).as_posix()


def _check(config: Mapping[str, Any], source: Path) -> None:
    """What only a build checks. Raises INVALID_INPUT."""
    if config.get("cuda_version") and not config.get("gpu"):
        raise invalid(f"{source.name}: cuda_version is given, but gpu is not True")
    declared(ModelSpec("build"), config, source.name)  # its packages are requirements


async def _examined(python: Path, code: _Code, folder: Path, place: Path, log: Log, *, post_build: bool) -> dict[str, Any]:
    """Run the examination; what the model prints goes to `log`."""
    answer = place / "examined.json"
    request = {
        "name": _folder_name(code.source), "folder": str(folder), "module": code.module, "class": code.model_class, "post_build": post_build,
        "environment": str(python) != sys.executable, "answer": str(answer),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        str(python), "-c", _BOOT, str(_ROOT), json.dumps(request),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=_environ(python),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                log(line.decode("utf-8", "replace"))
        if rest:
            log(rest.decode("utf-8", "replace"))
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        found = json.loads(answer.read_bytes())
    except (OSError, ValueError):
        raise ServingError(Kind.MODEL_FAILED, f"the model ended the process that looked at it, with {status}") from None
    finally:
        answer.unlink(missing_ok=True)
    if "error" in found:
        raise ServingError(Kind.MODEL_FAILED, found["error"], trace=found["trace"])
    return dict(found)


def _environ(python: Path) -> dict[str, str]:
    """Modules of this interpreter are nothing for another one; compiled files in a model would be part of it."""
    own = str(python) == sys.executable
    kept_names = {name: value for name, value in os.environ.items() if own or name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return {**kept_names, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


# --- everything else ---


def _artifact(project: Project, place: Path) -> Prepared:
    """A model file, or a folder with one in any layout that `serve` takes."""
    source = project.source.resolve()
    found = Repository([str(source)], Defaults()).discover()
    if len(found) > 1:
        raise invalid(f"{source} holds several models ({', '.join(each.name for each in found[:5])}); build one of them")
    if found[0].error:
        raise invalid(found[0].error)
    spec = next(iter(found[0].versions.values()))
    if spec.runtime == RUNTIME:
        raise invalid(f"{source} holds versions of a Python model; build one of their folders")
    kind = "triton" if source.is_dir() and (source / layouts.TRITON_CONFIG).is_file() else spec.runtime
    leaf = source.name if kind == "triton" else ""
    if leaf and re.search(r"[\x00-\x1f\\]", leaf):
        raise invalid(f"the folder's name {leaf!r} cannot be kept")
    folder = place / "model"
    copy(whole(source) | additions(source if source.is_dir() else source.parent, project.copy_files), folder)
    return Prepared(folder, kind, {"leaf": leaf} if leaf else {}, str(source))
