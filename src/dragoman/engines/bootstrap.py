"""How a Python that has nothing of ours installed runs code of this package: model processes, and programs in other virtualenvs.

It is told where the package lies, and sees no other package of the server. Called by launch.py and by conversion.
"""

from pathlib import Path

_IMPORT = """\
import importlib.util, sys
folder, *arguments = sys.argv[1:]
spec = importlib.util.spec_from_file_location("dragoman", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["dragoman"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["dragoman"])
del sys.argv[1:]
"""


def command(python: str, code: str, *arguments: str) -> list[str]:
    """The command line that runs `code`, which has the texts in the list `arguments` and may import this package."""
    return [python, "-P", "-c", _IMPORT + code, str(Path(__file__).parents[1]), *arguments]
