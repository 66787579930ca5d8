"""Import something without what it would import only because it is installed. Called by estimator_files.py."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType


@contextmanager
def hidden(*modules: str) -> Iterator[None]:
    """Within the block these modules cannot be imported by this thread: ImportError. Others may import them meanwhile; what is there stays."""
    finder = _Finder(frozenset(modules))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    def __init__(self, modules: frozenset[str]) -> None:
        self._modules = modules
        self._thread = threading.get_ident()

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name in self._modules and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return None
