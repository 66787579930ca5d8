"""XGBoost models (UBJSON, JSON) and LightGBM models (text): load_xgboost(spec), load_lightgbm(spec) -> Model. See docs/runtimes/estimators.md.

Both are fed one matrix of numbers, missing values as NaN, and give what the booster itself gives: probabilities or values, not class names.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.core.artifacts import locate, looks_like_lightgbm, looks_like_xgboost, read_head
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.plugins import missing
from dragoman.core.tensors import FP32, FP64, INT64, Array, Datatype, Signature, Tensor, Tensors, TensorSpec
from dragoman.runtimes import arrays, lightgbm_text, memory, xgboost_model
from dragoman.runtimes.options import Options
from dragoman.runtimes.refusals import no_output
from dragoman.runtimes.signatures import settle

log = logging.getLogger("dragoman.runtimes.boosters")

_OUTPUT = "predict"
Run = Callable[[Array], Any]


def load_xgboost(spec: ModelSpec) -> Model:
    """Open the file. Raises ServingError when it cannot be served, with the reason."""
    path = locate(spec.artifact, "xgboost", spec.name)
    if not looks_like_xgboost(read_head(path)):
        raise _wrong(path, spec, "an XGBoost model in JSON or UBJSON, which is what save_model of XGBoost 2.1 and later writes")
    try:
        import xgboost
    except ImportError as error:
        raise missing("xgboost", "xgboost", error) from error
    threads = _threads(spec, "nthread")
    booster = xgboost.Booster()
    try:
        data = path.read_bytes()
        xgboost_model.check(data)
        # from memory, because from a file the format would be guessed by its suffix
        booster.load_model(bytearray(data))
        booster.set_param({"nthread": threads, "verbosity": 0})
        settings = json.loads(booster.save_config())
        name = settings["learner"]["gradient_booster"]["name"]
        objective = str(settings["learner"].get("objective", {}).get("name", ""))
    except (xgboost.core.XGBoostError, ValueError, KeyError) as error:
        raise _damaged(path, spec, error) from error
    width = int(booster.num_features())
    # Trees that early stopping found to be too many are left out, as XGBoost's own scikit-learn classes do.
    last = booster.attr("best_iteration")
    rounds = (0, int(last) + 1) if last is not None and last.isdecimal() else (0, 0)

    def run(x: Array) -> Any:
        return booster.inplace_predict(x, iteration_range=rounds, validate_features=False)

    def run_linear(x: Array) -> Any:
        return booster.predict(xgboost.DMatrix(x, nthread=threads or None), validate_features=False)

    linear = name == "gblinear"
    ask: Run = run_linear if linear else run
    datatype = FP32
    if Options(spec).boolean("classes"):
        ask, datatype = _classes(ask, objective), INT64
    return Booster(
        spec, "xgboost", ask, width, datatype, (xgboost.core.XGBoostError,), concurrent=not linear, feature_names=booster.feature_names
    )


def _classes(run: Run, objective: str) -> Run:
    """What XGBoost's own classifiers answer: the number of the class instead of probabilities."""

    def classes(x: Array) -> Any:
        scores = np.asarray(run(x))
        if scores.ndim == 2 and objective.startswith("multi:"):
            return scores.argmax(axis=1)
        return (scores if objective == "multi:softmax" else scores > 0.5).astype(np.int64)

    return classes


def load_lightgbm(spec: ModelSpec) -> Model:
    """Open the file. Raises ServingError when it cannot be served, with the reason."""
    path = locate(spec.artifact, "lightgbm", spec.name)
    if not looks_like_lightgbm(read_head(path)):
        raise _wrong(path, spec, "a LightGBM model in its text format, which is what save_model writes")
    try:
        import lightgbm
    except ImportError as error:
        raise missing("lightgbm", "lightgbm", error) from error
    lightgbm.register_logger(log)
    threads = _threads(spec, "num_threads")
    try:
        data = path.read_bytes()
        lightgbm_text.check(data)
        booster = lightgbm.Booster(model_str=data.decode())
        width = int(booster.num_feature())
    except (lightgbm.basic.LightGBMError, ValueError, KeyError) as error:
        raise _damaged(path, spec, error) from error

    def run(x: Array) -> Any:
        # it reads single and double precision; everything else is converted here
        return booster.predict(x if x.dtype.char in "fd" else x.astype(np.float64), num_threads=threads)

    return Booster(
        spec, "lightgbm", run, width, FP64, (lightgbm.basic.LightGBMError,), concurrent=True, feature_names=booster.feature_name()
    )


class Booster:
    """One booster: X [-1, features] -> predict, [-1] or [-1, classes]."""

    operations = frozenset({"predict"})

    def __init__(
        self,
        spec: ModelSpec,
        platform: str,
        run: Run,
        width: int,
        datatype: Datatype,
        refusals: tuple[type[Exception], ...],
        *,
        concurrent: bool,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        self._name = spec.name
        self.feature_names = tuple(feature_names or ())
        """The columns of the table that it was trained on, in that order, where it knows."""
        self.platform = platform
        self.concurrent = concurrent
        self._run: Run | None = run
        self._width = width
        self._datatype = datatype
        self._refusals: tuple[type[Exception], ...] = (*refusals, ValueError, TypeError)
        shape = np.asarray(run(np.zeros((2, width), np.float32))).shape
        own = Signature(
            inputs=(arrays.features(width),),
            outputs=(TensorSpec(_OUTPUT, datatype, (-1, *shape[1:])),),
            batch=shape[:1] == (2,),
            any_name=True,
        )
        self.signature = settle(spec, own)
        self.signatures: Mapping[str, Signature] = {"": self.signature}

    def predict(self, call: Call) -> Tensors:
        run = self._run
        if run is None:
            raise ServingError(Kind.UNAVAILABLE, f"model '{self._name}' is closed", what="model")
        for name in call.outputs:
            if name != _OUTPUT:
                raise no_output(self._name, name)
        x = arrays.table(arrays.only_input(call.inputs, self._name), self._width, self._name)
        if not len(x):
            shape = self.signature.outputs[0].shape or (0,)
            return Tensors([Tensor(_OUTPUT, self._datatype, np.zeros((0, *shape[1:]), self._datatype.numpy))])
        try:
            result = run(x)
        except self._refusals as error:
            lines = str(error).strip().splitlines()
            raise invalid(f"model '{self._name}' refused the input: {lines[0][:300] if lines else type(error).__name__}") from error
        return Tensors([Tensor(_OUTPUT, self._datatype, np.require(result, self._datatype.numpy, ["C", "W", "A"]))])

    def close(self) -> None:
        if self._run is not None:
            self._run = None
            memory.release(cycles=True)


def _threads(spec: ModelSpec, also: str) -> int:
    """One unless more are asked for: for small batches both are several times slower with more, because waking threads takes longer."""
    threads = Options(spec).integer("threads", also, low=0, high=1024)
    return 1 if threads is None else threads


def _wrong(path: Path, spec: ModelSpec, expected: str) -> ServingError:
    return invalid(f"the file '{path.name}' of model '{spec.name}' is not {expected}", what="model")


def _damaged(path: Path, spec: ModelSpec, error: Exception) -> ServingError:
    lines = str(error).strip().splitlines()
    return invalid(
        f"the file '{path.name}' of model '{spec.name}' is damaged: {lines[0][:300] if lines else type(error).__name__}", what="model"
    )
