"""Models written in Python: a folder with a module that declares a Tungstenkit or an MLRun model, a plain class or a plain function.

Loading changes the process: its working directory becomes the model's folder, which also goes first on the import path, because model files
open and import what lies beside them. So such a model usually lives in a process of its own (engine "process"). Loaded by name.
"""

import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import dragoman.core
from dragoman.core.artifacts import locate
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Model, ModelSpec
from dragoman.runtimes.options import Options
from dragoman.runtimes.python_mlrun import is_mlrun, load_mlrun
from dragoman.runtimes.python_mlrun_router import MEMBERS, load_router
from dragoman.runtimes.python_plain import load_plain
from dragoman.runtimes.python_tungsten import is_tungsten, load_tungsten

COMPAT = Path(dragoman.core.__file__).parents[1] / "compat"
"""Holds our `tungstenkit`; first on the import path, so that it is found before an installed original."""
ABSENT = COMPAT / "absent"
"""Holds our `mlrun`; last on the import path, so that an installed original is found before it."""
USUAL = ("tungsten_model", "model")
"""Modules that are looked for in a folder, the preferred one first."""

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
T = TypeVar("T")


def load(spec: ModelSpec) -> Model:
    """Import the model's module, make its object and run its `setup`.

    The artifact is the module's file or its folder; the arguments `module`, `class` and `batch_size` say which module, which class of it, and
    how many rows a batch has at most, where the model's own declarations do not. Raises INVALID_INPUT for a module that cannot be imported
    or declares no model, MODEL_FAILED, with the traceback, when the model's `setup` fails.
    """
    options = Options(spec)
    wanted = options.text("class", "model_class")
    size = options.integer("batch_size", low=1, high=1 << 20)
    path, name = module_file(spec, options.text("module", "model_module"))
    module = imported(spec, path, name)
    if MEMBERS in spec.arguments:
        model: Model = run(lambda: load_router(spec, module, path.name, wanted), spec, "could not be loaded")
    elif is_mlrun(module, wanted):
        model = run(lambda: load_mlrun(spec, module, path.name, wanted), spec, "could not be loaded")
    elif is_tungsten(module):
        model = run(lambda: load_tungsten(spec, module, wanted, size), spec, "could not be set up")
    else:
        model = run(lambda: load_plain(spec, module, path.name, wanted, size), spec, "could not be set up")
    return model


def module_file(spec: ModelSpec, module: str) -> tuple[Path, str]:
    """The file of the model's module, and the name under which it is imported."""
    path = Path(spec.artifact)
    if module and not _MODULE.fullmatch(module):
        raise invalid(f"'{module[:100]}' is no name of a module; model '{spec.name}' needs one such as 'tungsten_model'", what="model")
    if path.is_dir():
        for name in [module] if module else USUAL:
            below = path.joinpath(*name.split("."))
            for candidate in (below.with_suffix(".py"), below / "__init__.py"):
                if candidate.is_file():
                    return locate(str(candidate), "python", spec.name), name
        missing = f"no module '{module}'" if module else "neither " + " nor ".join(f"'{name}.py'" for name in USUAL)
        raise ServingError(Kind.NOT_FOUND, f"the folder of model '{spec.name}' has {missing}", what="model")
    path = locate(spec.artifact, "python", spec.name)
    name = path.stem
    if path.suffix != ".py" or not _MODULE.fullmatch(name):
        raise invalid(
            f"the file '{path.name}' of model '{spec.name}' is no Python module: its name must be like 'my_model.py'", what="model"
        )
    return path, name


def imported(spec: ModelSpec, path: Path, name: str) -> ModuleType:
    """The module of a model, imported afresh, with this process's working directory and import path as the model expects them."""
    folder = path.resolve().parents[name.count(".") + (path.name == "__init__.py")]
    for entry in (str(folder), str(COMPAT)):  # the latter comes first
        if entry in sys.path:
            sys.path.remove(entry)
        sys.path.insert(0, entry)
    if str(ABSENT) not in sys.path:
        sys.path.append(str(ABSENT))
    os.chdir(folder)
    _forget(name, path)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise invalid(f"'{path.name}' of model '{spec.name}' is not Python: {error.msg}{where}", what="model") from error
    except (Exception, SystemExit) as error:
        raise _broken(spec, f"'{path.name}' of model '{spec.name}' cannot be imported", error, Kind.INVALID_INPUT) from error


def _forget(name: str, path: Path) -> None:
    """Drop a module of that name which an earlier model of this process has brought from another place, with what belongs to it."""
    top = name.split(".", maxsplit=1)[0]
    known = sys.modules.get(name, sys.modules.get(top))
    file = getattr(known, "__file__", None)
    if known is not None and (file is None or Path(file).resolve() != path.resolve()):
        for each in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
            del sys.modules[each]


def run(step: Callable[[], T], spec: ModelSpec, failed: str) -> T:
    """Run a step of loading that calls user code; what that raises becomes MODEL_FAILED, with its traceback."""
    try:
        return step()
    except ServingError:
        raise
    except (Exception, SystemExit) as error:
        raise _broken(spec, f"model '{spec.name}' {failed}", error, Kind.MODEL_FAILED) from error


def _broken(spec: ModelSpec, text: str, error: BaseException, kind: Kind) -> ServingError:
    trace = "".join(traceback.format_exception(error))
    lines = str(error).strip().splitlines()
    why = f": {lines[0][:500]}" if lines else ""
    return ServingError(kind, f"{text}: {type(error).__name__}{why}{_hint(spec, error)}", what="model", trace=trace)


def _hint(spec: ModelSpec, error: BaseException) -> str:
    """What to do about a package that is missing while a list of packages lies there that nothing has been made of."""
    place = Path(spec.artifact)
    listed = (place if place.is_dir() else place.parent) / "requirements.txt"
    if not isinstance(error, ModuleNotFoundError) or spec.environment is not None or not listed.is_file():
        return ""
    return (
        ". The requirements.txt beside it is installed for a plain Python model with --environments always;"
        " a Tungsten model names its packages in python_packages of define_model"
    )
