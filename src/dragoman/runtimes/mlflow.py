"""MLflow model folders: a native flavor through the runtime of its format, anything else through its python_function. See docs/runtimes/mlflow.md.

load(spec) -> Model. The folder was read by serving/mlflow_specs.py, which put what is needed into the spec: the argument `mlflow`, and the
declared signature. Nothing here reads `MLmodel`.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Model, ModelSpec
from dragoman.core.plugins import find
from dragoman.core.tensors import Signature
from dragoman.runtimes import mlflow_columns
from dragoman.runtimes.estimator_files import METHODS, open_estimator
from dragoman.runtimes.estimators import SklearnModel
from dragoman.runtimes.mlflow_frames import Framed
from dragoman.runtimes.mlflow_function import load_function

_ANSWERS = frozenset({*METHODS, "predict_log_proba", "decision_function", "score_samples", "kneighbors_graph"})
"""Methods of estimators that MLflow's `pyfunc_predict_fn` may name here."""


def load(spec: ModelSpec) -> Model:
    """Load what the spec says. Raises ServingError when it cannot be served, with the reason."""
    facts = spec.arguments.get("mlflow")
    if not isinstance(facts, Mapping):
        raise invalid(f"model '{spec.name}' is no MLflow folder: the runtime 'mlflow' loads folders with an MLmodel file", what="model")
    runtime = str(facts.get("runtime") or "")
    if not runtime:
        return load_function(spec, facts)
    inner = replace(spec, runtime=runtime, signature=None, arguments={k: v for k, v in spec.arguments.items() if k != "mlflow"})
    if runtime == "sklearn":
        return _estimator(inner, spec, facts)
    if runtime == "torch" and spec.signature is not None and not spec.artifact.endswith(".pt2"):
        inner = replace(inner, signature=spec.signature)  # TorchScript declares nothing itself
    if runtime == "xgboost" and str(facts.get("model_class")).endswith("Classifier"):
        inner = replace(inner, arguments={**inner.arguments, "classes": True})
    model: Model = find("runtimes", runtime)(inner)
    return model if inner.signature is not None else _bound(model, spec, facts)


def _bound(model: Model, spec: ModelSpec, facts: Mapping[str, Any]) -> Model:
    try:
        return mlflow_columns.bind(model, spec, columns=bool(facts.get("columns")))
    except BaseException:
        model.close()
        raise


def _estimator(inner: ModelSpec, spec: ModelSpec, facts: Mapping[str, Any]) -> Model:
    """scikit-learn is fed one array where that will do, and a table of pandas where a step asks for names or types of columns."""
    estimator = open_estimator(inner)
    method = str(facts.get("predict_fn") or "predict")
    if method not in _ANSWERS or not callable(getattr(estimator, method, None)):
        raise ServingError(
            Kind.UNSUPPORTED,
            f"model '{spec.name}' answers with {method!r}, which {type(estimator).__name__} does not have or this server does not call",
            what="model",
        )
    signature = spec.signature
    model = SklearnModel(estimator, inner, (method,))
    if signature is None or not facts.get("columns"):
        return _bound(model, spec, facts)
    if _wants_names(model, signature):
        return Framed(spec, signature, lambda table, _: getattr(estimator, method)(table), platform="sklearn", whole=True)
    return _bound(model, spec, facts)


def _wants_names(model: SklearnModel, signature: Signature) -> bool:
    """Whether an estimator must see the columns' names: it was fitted on them, and neither an array of numbers nor single columns will do."""
    known = set(model.feature_names)
    if not known or not known <= signature.input_by_name.keys():
        return False
    return not mlflow_columns.fits(model, signature.inputs) or (not model.sampled and _has_pandas())


def _has_pandas() -> bool:
    return find_spec("pandas") is not None
