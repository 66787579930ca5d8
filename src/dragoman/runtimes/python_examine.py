"""Look at a Python model without serving it: import it, check what it declares, run its `post_build`. For `dragoman build`.

Runs in a process of its own, with the interpreter of the model's environment (see serving/library/building.py, which starts it).
The request is one JSON argument; the answer is a JSON file, because what is printed belongs to the model's author.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from dragoman.core.errors import ServingError
from dragoman.core.model import ModelSpec
from dragoman.runtimes.python import imported, module_file, run
from dragoman.runtimes.python_tungsten import is_tungsten


def main(text: str) -> None:
    """Answer one request: `name`, `folder`, `module`, `class`, `post_build`, `answer` (where to write)."""
    request: dict[str, Any] = json.loads(text)
    answer: dict[str, Any]
    try:
        answer = examine(request["name"], Path(request["folder"]), request["module"], request["class"], post_build=request["post_build"])
    except ServingError as error:
        answer = {"error": error.message, "trace": error.trace}
        sys.stderr.write(error.trace)
    Path(request["answer"]).write_text(json.dumps(answer), "utf-8")
    sys.exit(1 if "error" in answer else 0)


def examine(name: str, folder: Path, module: str, model_class: str, *, post_build: bool) -> dict[str, Any]:
    """What a model is: `kind` ("tungsten" or "python"), `class`, and `config`, what `define_model` was given.

    Raises ServingError with the traceback when it cannot be imported, declares nothing that can be served, or its `post_build` fails.
    """
    spec = ModelSpec(name, artifact=str(folder), arguments={"module": module, "class": model_class})
    found = imported(spec, *module_file(spec, module))
    if not is_tungsten(found):
        return {"kind": "python", "class": model_class, "config": {}}
    bridge: Any = importlib.import_module("tungstenkit._bridge")
    chosen = run(lambda: bridge.find_model(found, model_class), name, "cannot be built")
    described = run(lambda: bridge.describe(chosen), name, "cannot be built")
    if post_build:
        run(chosen.post_build, name, "failed in post_build")
    config = {key: value for key, value in described.config.items() if _plain(value)}
    return {"kind": "tungsten", "class": chosen.__name__, "config": config}


def _plain(value: Any) -> bool:
    """Whether JSON keeps a value as it is. What cannot be kept (classes) is not needed to build or serve."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == (list(value) if isinstance(value, tuple) else value))
    except (TypeError, ValueError):
        return False
