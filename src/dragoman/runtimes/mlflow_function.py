"""MLflow's python_function: whatever MLflow itself can load, called through its API. Runs in a process of its own. Called by mlflow.py.

With MLflow (mlflow-skinny will do) in the environment, that loads the folder; without it, a `loader_module` of the model's own code is
loaded the same way. Both run the author's code, so nothing is loaded that the operator does not trust.
"""

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.core.artifacts import TRUST
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Model, ModelSpec
from dragoman.core.tensors import Signature
from dragoman.runtimes.mlflow_frames import Framed, Function
from dragoman.runtimes.options import Options
from dragoman.runtimes.python import run

_INT32, _INT64 = 1 << 31, 1 << 63


def load_function(spec: ModelSpec, facts: Mapping[str, Any]) -> Model:
    """Load the folder. Raises UNSUPPORTED when it is not trusted or MLflow is missing, MODEL_FAILED when the model's code fails."""
    if not Options(spec).boolean("trust_pickle"):
        raise ServingError(
            Kind.UNSUPPORTED,
            f"model '{spec.name}' is an MLflow python_function, whose code runs when it is opened; {TRUST}",
            what="model",
        )
    function, refusals = run(lambda: _loaded(spec, facts), spec, "could not be loaded")
    signature = spec.signature or Signature(batch=True)
    declared = [each for each in facts.get("params") or () if isinstance(each, Mapping)]
    return Framed(
        spec,
        signature,
        function,
        platform=f"mlflow_{facts.get('flavor') or 'python_function'}",
        listed=len(signature.inputs) == 1 and bool(facts.get("listed")),
        refusals=refusals,
        parameters=lambda given: parameters(given, declared, spec.name),
    )


def _loaded(spec: ModelSpec, facts: Mapping[str, Any]) -> tuple[Function, tuple[type[Exception], ...]]:
    loader = str(facts.get("loader_module") or "")
    try:
        import mlflow.pyfunc
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        if not loader or loader.split(".")[0] == "mlflow":
            raise ServingError(
                Kind.UNSUPPORTED,
                f"model '{spec.name}' is loaded by MLflow ({loader or 'no loader_module'}), which its environment lacks: it belongs into its "
                "requirements.txt, or with --environments never into the server's own: pip install mlflow-skinny",
                what="model",
            ) from error
        return _own(spec, facts, loader), ()
    model = mlflow.pyfunc.load_model(spec.artifact)
    takes_parameters = bool(facts.get("params"))

    def predict(table: Any, given: Mapping[str, Any]) -> Any:
        return model.predict(table, params=dict(given)) if takes_parameters else model.predict(table)

    return predict, (MlflowException,)


def _own(spec: ModelSpec, facts: Mapping[str, Any], loader: str) -> Function:
    """The model of a loader that is part of the folder's code."""
    code = str(facts.get("code") or "")
    if code:
        sys.path.insert(0, code)
        importlib.invalidate_caches()
    module = importlib.import_module(loader)
    model = module._load_pyfunc(str(facts.get("data") or spec.artifact))  # noqa: SLF001 # MLflow's name of a loader's only function
    return lambda table, given: model.predict(table, params=dict(given)) if given else model.predict(table)


def parameters(given: Mapping[str, Any], declared: Sequence[Mapping[str, Any]], model: str) -> dict[str, Any]:
    """Those parameters of a request that the signature names, in its types; the others are ignored, as MLflow does.

    Raises INVALID_INPUT, naming the parameter, its type and the kind of what came.
    """
    found = {}
    for each in declared:
        name, kind = str(each["name"]), str(each["type"])
        value = given.get(name)
        if value is None:
            continue
        if each.get("list") and not isinstance(value, list):
            raise invalid(f"parameter '{name}' of model '{model}' is {_named(value)}, expected a list of {kind}")
        found[name] = [_parameter(item, kind, name, model) for item in value] if each.get("list") else _parameter(value, kind, name, model)
    return found


def _parameter(value: Any, kind: str, name: str, model: str) -> Any:
    fits = {
        "boolean": isinstance(value, bool),
        "integer": type(value) is int and -_INT32 <= value < _INT32,
        "long": type(value) is int and -_INT64 <= value < _INT64,
        "float": type(value) in (int, float) and (type(value) is float or abs(value) < 1 << 128),
        "double": type(value) in (int, float) and (type(value) is float or abs(value) < 1 << 1000),
        "string": isinstance(value, str),
        "datetime": isinstance(value, str),
    }.get(kind, True)
    if not fits:
        raise invalid(f"parameter '{name}' of model '{model}' is {_named(value)}, expected {kind}")
    return float(value) if kind in ("float", "double") else value


def _named(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "not finite"
    kinds = {bool: "a boolean", int: "an integer", float: "a fraction", str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)
