"""Python models as texts: written to a folder, loaded in this process, and the process put back as it was. Used by tests of the Python runtime."""

import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dragoman.core.model import Call, Model
from dragoman.core.rows import checked
from dragoman.core.tensors import Rows
from tests.models.calls import load


@contextmanager
def same_process() -> Iterator[None]:
    """Undo what loading a Python model does to a process: working directory, import path, imported modules."""
    folder, path, modules = Path.cwd(), list(sys.path), dict(sys.modules)
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path[:] = path
        for name in sys.modules.keys() - modules.keys():
            if name.partition(".")[0] in _THEIRS:
                del sys.modules[name]


_THEIRS = frozenset({"model", "tungsten_model", "beside", "package", "tungstenkit", "loader_of_mine", "mlrun"})
"""Modules of models. Others stay: dropping them would make second copies of classes that tests hold on to."""


def write(folder: Path, source: str, name: str = "model.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(textwrap.dedent(source), "utf-8")
    return path


def model_of(folder: Path, source: str, **arguments: Any) -> Model:
    """The model 'm' that a source declares."""
    return load("python", write(folder, source).parent, **arguments)


def answers(model: Model, *rows: dict[str, Any], operation: str = "predict") -> list[Any]:
    """What the model answers to rows as a client would send them."""
    outputs = model.predict(Call(Rows(checked(list(rows), model.signatures[""], "m")), operation))
    assert isinstance(outputs, Rows)
    return outputs.items
