"""Begins the first process of a job: `PYTHON -I -S FOLDER N`. Makes this folder importable under its full name without anything around it."""

import importlib.machinery
import os
import sys
import types


def main() -> None:
    """Imports of this folder say its full name; here the packages above it are empty, whatever else the machine has under their names."""
    folder = os.path.dirname(os.path.abspath(__file__))
    for name, path in (("dragoman", []), ("dragoman.hosting", [os.path.dirname(folder)])):
        package = types.ModuleType(name)
        package.__path__ = path
        package.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = package
    sys.path.remove(folder)
    from dragoman.hosting.jobs.inside import run

    run(int(sys.argv[1]))


if __name__ == "__main__":
    main()
