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
from dragoman.core.model import Environment, ModelSpec
from dragoman.runtimes.python import imported, module_file, run
from dragoman.runtimes.python_tungsten import is_tungsten


def main(text: str) -> None:
    """Answer one request: `name`, `folder`, `module`, `class`, `post_build`, `environment` (whether it has one of its own), `answer`."""
    request: dict[str, Any] = json.loads(text)
    answer: dict[str, Any]
    try:
        spec = ModelSpec(
            request["name"],
            artifact=request["folder"],
            arguments={"module": request["module"], "class": request["class"]},
            environment=Environment() if request["environment"] else None,
        )
        answer = examine(spec, post_build=request["post_build"])
    except ServingError as error:
        answer = {"error": error.message, "trace": error.trace}
        sys.stderr.write(error.trace)
    Path(request["answer"]).write_text(json.dumps(answer), "utf-8")
    sys.exit(1 if "error" in answer else 0)


def examine(spec: ModelSpec, *, post_build: bool) -> dict[str, Any]:
    """What a model is: `kind` ("tungsten" or "python"), `class`, and `config`, what `define_model` was given.

    Raises ServingError with the traceback when it cannot be imported, declares nothing that can be served, or its `post_build` fails.
    """
    model_class = spec.arguments["class"]
    found = imported(spec, *module_file(spec, spec.arguments["module"]))
    if not is_tungsten(found):
        return {"kind": "python", "class": model_class, "config": {}}
    bridge: Any = importlib.import_module("tungstenkit._bridge")
    chosen = run(lambda: bridge.find_model(found, model_class), spec, "cannot be built")
    described = run(lambda: bridge.describe(chosen), spec, "cannot be built")
    if post_build:
        run(chosen.post_build, spec, "failed in post_build")
    config = {key: value for key, value in described.config.items() if _plain(value)}
    return {"kind": "tungsten", "class": chosen.__name__, "config": config}


def _plain(value: Any) -> bool:
    """Whether JSON keeps a value as it is. What cannot be kept (classes) is not needed to build or serve."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == (list(value) if isinstance(value, tuple) else value))
    except (TypeError, ValueError):
        return False
