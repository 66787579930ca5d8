"""Python models on disk: which folders and files are one, and the spec that is made of one without running any of its code.

Called by repository.py for targets, and by library/ for what is built into the model store.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import EMPTY, Environment, ModelSpec
from dragoman.engines.requirements import environment_of, from_model
from dragoman.serving.installed import name_of, unmet
from dragoman.serving.paths import confine, read_bounded
from dragoman.serving.python_source import Declared, declarations, mlrun_classes, plain_batch
from dragoman.serving.settings import quoted

MODULE = "tungsten_model"
FILE = f"{MODULE}.py"
PLAIN = "model"
SUFFIX = ".py"
RECORD = "dragoman.json"
"""Says what a folder is that was built; see library/specs.py."""
RUNTIME = "python"
CLASS_ARGUMENTS = "class_args"
"""The argument of the runtime that holds those of an MLRun model (see class_arguments.py)."""
ENGINE = "process"
REQUIREMENTS = "requirements.txt"
_OLDEST_PYTHON = (3, 11)
_MAX_FILES = 10_000
_LARGEST_README = 256 << 10
_PASSED_OVER = frozenset({"__pycache__", "venv", "env", "node_modules"})
_ONLY_FOR_IMAGES: Mapping[str, object] = {
    "gpu": False, "gpu_mem_gb": 16.0, "mem_gb": 8.0, "system_packages": None, "cuda_version": None, "cudnn_version": None,
    "force_install_system_cuda": False, "dockerfile_commands": None, "base_image": None,
}  # fmt: skip
"""Arguments of define_model that a server without containers cannot act upon, and their defaults."""


def is_project(folder: Path) -> bool:
    """Whether a folder is a Tungsten project, or a Python model that was built."""
    return (folder / FILE).is_file() or (folder / RECORD).is_file()


def located(path: Path) -> tuple[Path, str]:
    """The artifact and the module of a target: a folder stands for its model file, any other file for itself."""
    if path.is_dir():
        plain = not (path / FILE).is_file() and (path / f"{PLAIN}{SUFFIX}").is_file()
        return path, PLAIN if plain else MODULE
    if path.name == FILE:
        return path.parent, MODULE
    if not path.stem.isidentifier():
        raise invalid(f"the Python file {quoted(path.name)} cannot be imported: its name is not a Python name")
    return path, path.stem


def module_file(artifact: Path, module: str) -> Path:
    """The file of a model's module. Raises INVALID_INPUT when the folder has none."""
    if artifact.is_file():
        return artifact
    below = artifact.joinpath(*module.split("."))
    file = below / "__init__.py" if below.is_dir() else below.with_name(f"{below.name}.py")
    if not file.is_file():
        raise invalid(f"there is no module '{module}' in the folder {artifact.name}")
    return file


def spec_of(
    base: ModelSpec,
    path: Path,
    *,
    batch_size: int = 0,
    environments: str = "auto",
    module: str = "",
    model_class: str = "",
    state: str = "",
) -> ModelSpec:
    """The spec of a Python model: what its file declares, over the defaults in `base`. `batch_size` > 0 is the operator's and wins.

    `state` is that of what else the model is made of, so that a change of it is a change of the model.

    Raises INVALID_INPUT when the file is not Python. Everything that is declared and has no effect here is in `warnings`.
    """
    artifact, module = (path, module) if module and path.is_dir() else located(path)
    file = module_file(artifact, module)
    found = declarations(file)
    chosen = next((d for d in found if d.name == model_class), None) if model_class else found[0] if len(found) == 1 else None
    spec = replace(
        base, runtime=RUNTIME, engine=ENGINE, artifact=str(artifact), arguments={**base.arguments, "module": module, "class": model_class}
    )
    servers = mlrun_classes(file)
    if model_class in servers or (servers and not found and not model_class):
        spec = _whole(spec, artifact if artifact.is_dir() else artifact.parent, environments)
    elif chosen is None and not found:
        if CLASS_ARGUMENTS in spec.arguments:
            spec = replace(
                spec, warnings=(*spec.warnings, f"{file.name}: class arguments are for MLRun's classes, and reading it finds none")
            )
        spec = _plain(spec, file, artifact if artifact.is_dir() else artifact.parent, batch_size, environments)
        if module == MODULE:
            spec = replace(spec, warnings=(*spec.warnings, *_unread(chosen, found, file.name)))
    else:
        usual = spec.batch.max_size
        spec = declared(spec, chosen.arguments if chosen else EMPTY, file.name, batch_size=batch_size, environments=environments)
        if not batch_size and (chosen is None or {"batch_size", "**"} & set(chosen.unknown)):
            spec = replace(spec, batch=replace(spec.batch, max_size=usual))  # the model itself cuts what is too long for it
        spec = replace(spec, warnings=(*spec.warnings, *_unread(chosen, found, file.name)))
    return spec.with_revision(state_of(artifact) + state)


def declared(spec: ModelSpec, arguments: Mapping[str, Any], source: str, *, batch_size: int = 0, environments: str = "auto") -> ModelSpec:
    """The spec with what `define_model` was given. Values of a wrong type have no effect: the model's own check names them when it loads."""
    own = arguments.get("batch_size", 1)
    size = batch_size or (max(1, own) if isinstance(own, int) else 1)
    environment, warnings = _environment(arguments, source, environments)
    ignored = [name for name, usual in _ONLY_FOR_IMAGES.items() if arguments.get(name) and arguments[name] != usual]
    if ignored:
        effect = "has" if len(ignored) == 1 else "have"
        warnings.append(f"{source}: {', '.join(ignored)} {effect} an effect in container images only (dragoman build --dockerfile)")
    told = {"batch_size": batch_size} if batch_size else {}
    readme, note = _readme(spec.artifact, arguments.get("readme_md"))
    warnings += [f"{source}: {note}"] if note else []
    return replace(
        spec,
        batch=replace(spec.batch, max_size=size),
        environment=environment,
        readme=readme,
        arguments={**spec.arguments, **told},
        warnings=(*spec.warnings, *warnings),
    )


def _readme(artifact: str, declared: Any) -> tuple[str, str]:
    """The text of the file that a model calls its readme, "" where there is none, and what there is to say about it."""
    if not artifact or not declared:
        return "", ""
    folder = Path(artifact) if Path(artifact).is_dir() else Path(artifact).parent
    try:
        content = read_bounded(confine(folder, str(declared), "readme_md"), _LARGEST_README, "readme_md")
    except ServingError as error:
        return "", f"{error.message}; it is not shown"
    return content.decode("utf-8", "replace"), ""


def state_of(artifact: Path) -> str:
    """Names, sizes and times of a model's files; what tools and runs leave behind (hidden files, caches, virtualenvs) does not count.

    Of a single file also the modules beside it, which it may import.
    """
    lines = []
    files = _below(artifact) if artifact.is_dir() else (p for p in sorted(artifact.parent.glob("*.py")) if p.is_file())
    for path in files:
        stat = path.stat()
        lines.append(f"{path}:{stat.st_size}:{stat.st_mtime_ns}")
        if len(lines) > _MAX_FILES:
            raise invalid(f"{artifact} holds more than {_MAX_FILES} files; is it a model?")
    return "\n".join([str(artifact), *lines])


def _below(folder: Path) -> Iterator[Path]:
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _PASSED_OVER)
        yield from (path for name in sorted(files) if not name.startswith(".") and (path := Path(base, name)).is_file())


def _plain(spec: ModelSpec, file: Path, folder: Path, batch_size: int, environments: str) -> ModelSpec:
    """A model of our own small API declares its batch size only; the requirements beside it count when the operator says so."""
    own = plain_batch(file)
    if own is not None:
        size = batch_size if batch_size and own > 1 else own
        told = {"batch_size": batch_size} if batch_size else {}
        spec = replace(spec, batch=replace(spec.batch, max_size=size), arguments={**spec.arguments, **told})
    environment = environment_of(requirements_file=folder / REQUIREMENTS) if environments == "always" else None
    return replace(spec, environment=environment)


def _whole(spec: ModelSpec, folder: Path, environments: str) -> ModelSpec:
    """An MLRun model takes one request at a time; the requirements beside it count as for a plain model."""
    environment = environment_of(requirements_file=folder / REQUIREMENTS) if environments == "always" else None
    return replace(spec, batch=replace(spec.batch, max_size=1), environment=environment)


def _unread(chosen: Declared | None, found: Sequence[Declared], source: str) -> list[str]:
    """What could not be learned from the text."""
    if chosen is None:
        seen = f"finds {', '.join(d.name for d in found)}" if found else "finds no class with @define_model(...)"
        return [f"{source}: reading it {seen}, so its batch size is not known before it runs, and it gets no environment of its own"]
    what = {
        "**": "some arguments of define_model are unpacked from a mapping",
        "batch_size": "batch_size is not a literal and is not known before the model runs: give --batch-size, or build the model",
        "python_packages": "python_packages is not a literal, so no environment of its own is made: write it out, or build the model",
        "python_version": "python_version is not a literal and is not looked at",
        "readme_md": "readme_md is not a literal and is not shown: write it out, or build the model",
    }
    return [f"{source}: {text}" for name, text in what.items() if name in chosen.unknown]


def _environment(arguments: Mapping[str, Any], source: str, environments: str) -> tuple[Environment | None, list[str]]:
    """The virtualenv that the model needs, None when this Python will do, and what there is to say about it."""
    lines, notes = packages_of(arguments)
    python, note = python_of(arguments.get("python_version"))
    missing = unmet(lines)
    if environments == "never":
        notes += [f"{', '.join(missing)} not installed here as asked for, and --environments is never"] if missing else []
        environment = None
    elif missing or python or environments == "always":
        packages = tuple(requirement.line for requirement in from_model(lines, "python_packages"))
        environment = Environment(python, packages) if packages or python else None
    else:
        environment = None
    return environment, [f"{source}: {text}" for text in (*notes, note) if text]


def packages_of(arguments: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The lines of python_packages and what there is to say about them. Raises INVALID_INPUT for what is no list of texts."""
    listed = arguments.get("python_packages") or []
    if not isinstance(listed, list | tuple) or not all(isinstance(line, str) for line in listed):
        raise invalid("python_packages is not a list of texts such as 'pillow==11.0'")
    lines = [line for line in listed if name_of(line) != "tungstenkit"]
    dropped = len(lines) < len(listed)
    return lines, ["tungstenkit is not installed: this server has a module of that name of its own"] if dropped else []


def python_of(wanted: Any) -> tuple[str, str]:
    """The Python version of the model's environment, "" for the server's own, and a note when it is not the one that is asked for."""
    if wanted is None:
        return "", ""
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+)?", wanted) if isinstance(wanted, str) else None
    if match is None:
        return "", f"python_version {quoted(str(wanted))} is no version and has no effect"
    version = (int(match[1]), int(match[2]))
    if version == sys.version_info[:2]:
        return "", ""
    if version < _OLDEST_PYTHON:
        own = ".".join(map(str, sys.version_info[:2]))
        return "", f"python_version is {wanted}; models run on Python 3.11 or later, so this one gets {own}"
    return f"{version[0]}.{version[1]}", ""
