"""Packages that exist for one test: modules with entry points, found as if somebody had installed them."""

import importlib
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_numbers = itertools.count()


def write(folder: Path, group: str, name: str, source: str, attribute: str = "load") -> str:
    """A package in `folder`, found by whoever has that on its path: a module with this source and one entry point. Returns its name."""
    module = f"package_of_a_test_{next(_numbers)}"
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source, "utf-8")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", "utf-8")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:{attribute}\n", "utf-8")
    return module


@contextmanager
def installed(folder: Path, group: str, name: str, source: str) -> Iterator[ModuleType]:
    """The same for this process; yields the imported module."""
    module = write(folder, group, name, source)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(module)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
