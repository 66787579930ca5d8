"""scikit-learn models from .skops files, and from joblib and pickle files when these are trusted. See docs/runtimes/estimators.md.

load_sklearn(spec) -> Model. Files are opened in estimator_files.py. XGBoost and LightGBM files have their own module, boosters.py.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.tensors import BOOL, BYTES, FP32, FP64, INT64, Array, Datatype, Rows, Signature, Tensor, Tensors, TensorSpec
from dragoman.runtimes import arrays, memory
from dragoman.runtimes.estimator_files import METHODS, line_of, open_estimator
from dragoman.runtimes.refusals import no_output, takes_tensors
from dragoman.runtimes.signatures import settle

log = logging.getLogger("dragoman.runtimes.sklearn")

_OF_DICTS = frozenset({"DictVectorizer", "FeatureHasher"})


def load_sklearn(spec: ModelSpec) -> Model:
    """Open the file and ask the estimator what it takes and gives. Raises ServingError when it cannot be served, with the reason."""
    return SklearnModel(open_estimator(spec), spec)


class SklearnModel:
    """An estimator and the shape of its calls, which is learned by calling it once while loading."""

    operations = frozenset({"predict"})
    platform = "sklearn"
    concurrent = False  # some estimators keep things between calls

    def __init__(self, estimator: Any, spec: ModelSpec, methods: Sequence[str] = ()) -> None:
        """`methods` are those whose answers are the outputs; without any, what the estimator has to say."""
        from sklearn.base import is_classifier, is_regressor

        self._name = spec.name
        self._estimator = estimator
        self._columns: tuple[str, ...] = ()
        self._origin: dict[str, str] = {}
        """Output -> the method that gives it."""
        self._precision: Any = None
        first = _first_step(estimator)
        if type(first).__name__ in _OF_DICTS:
            raise ServingError(
                Kind.UNSUPPORTED, f"model '{spec.name}' starts with {type(first).__name__}, whose input is no tensor", what="model"
            )
        width = getattr(estimator, "n_features_in_", -1)
        self._text = _takes_text(first)
        if self._text:
            inputs: tuple[TensorSpec, ...] = (TensorSpec(arrays.NAME, BYTES, (-1,)),)
        elif names := _named_columns(first):
            self._columns = names
            inputs = tuple(TensorSpec(name, None, (-1, 1)) for name in names)
        else:
            inputs = (arrays.features(int(width)),)
        self.feature_names = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
        """The columns of the table that it was fitted on, in that order; () when it was no table."""
        # a classifier's transform is a step inside of pipelines, not an answer
        self._methods = list(methods) or [m for m in METHODS[:2] if callable(getattr(estimator, m, None))] or ["transform"]
        self.sampled = True
        """Whether it took the sample of zeros, so that its outputs are known."""
        outputs = self._learn(inputs, classifies=is_classifier(estimator), regresses=is_regressor(estimator))
        batch = all(t.shape is None or t.shape[:1] == (-1,) for t in outputs)
        self.signature = settle(spec, Signature(inputs=inputs, outputs=outputs, batch=batch, any_name=not self._columns))
        self.signatures: Mapping[str, Signature] = {"": self.signature}
        self._types = {t.name: t.datatype for t in self.signature.outputs}

    def _nothing(self) -> list[Tensor] | None:
        """The answer to no rows, which estimators refuse; None when their shape or type is not known."""
        tensors = []
        for spec in self.signature.outputs:
            if spec.shape is None or spec.datatype is None or not self.signature.batch:
                return None
            tensors.append(Tensor(spec.name, spec.datatype, np.zeros([max(d, 0) for d in spec.shape], spec.datatype.numpy)))
        return tensors

    def predict(self, call: Call) -> Tensors:
        estimator = self._estimator
        if estimator is None:
            raise ServingError(Kind.UNAVAILABLE, f"model '{self._name}' is closed", what="model")
        for name in call.outputs:
            if name not in self._types:
                raise no_output(self._name, name)
        wanted = call.outputs or tuple(self._types)
        methods = dict.fromkeys(self._origin[name] for name in wanted)
        x = self._table(call.inputs)
        if x.shape and not len(x) and (nothing := self._nothing()) is not None:
            return Tensors([t for t in nothing if t.name in wanted])
        try:
            results = [pair for method in methods for pair in self._run(estimator, method, x)]
        except (ValueError, TypeError) as error:  # how scikit-learn refuses input
            raise invalid(f"model '{self._name}' refused the input: {line_of(error)}") from error
        return Tensors([_tensor(name, result, self._types[name]) for name, result in results if name in wanted])

    def close(self) -> None:
        if self._estimator is not None:
            self._estimator = None
            memory.release(cycles=True)

    @staticmethod
    def _run(estimator: Any, method: str, x: Any) -> list[tuple[str, Any]]:
        result = getattr(estimator, method)(x)
        if method == "predict_proba" and isinstance(result, list):  # several targets: one array each
            return [(f"{method}_{index}", each) for index, each in enumerate(result)]
        return [(method, result)]

    def _table(self, inputs: Tensors | Rows) -> Any:
        if not self._columns:
            tensor = arrays.only_input(inputs, self._name)
            if self._text and tensor.datatype is not BYTES:
                raise invalid(f"input '{tensor.name}' of model '{self._name}' has datatype {tensor.datatype}, expected BYTES")
            if tensor.datatype is BYTES:
                return arrays.text(tensor, self._name)
            numbers = arrays.numbers(tensor, self._name)
            return numbers if self._precision is None else numbers.astype(self._precision, copy=False)
        if isinstance(inputs, Rows):
            raise takes_tensors(self._name)
        given = {t.name: t for t in inputs.items}
        if given.keys() != set(self._columns):
            wrong = ", ".join(f"'{name}'" for name in sorted(given.keys() ^ set(self._columns))[:10])
            raise invalid(f"model '{self._name}' takes one input per column of its table; missing or unknown: {wrong}")
        length = max((t.array.size for t in inputs.items), default=0)
        rows: Array = np.empty((length, len(self._columns)), dtype=object)
        for index, name in enumerate(self._columns):
            tensor = given[name]
            if tensor.array.size != length:
                raise invalid(f"the inputs of model '{self._name}' disagree: '{name}' has {tensor.array.size} elements, another {length}")
            column = arrays.text(tensor, self._name) if tensor.datatype is BYTES else arrays.numbers(tensor, self._name)
            rows[:, index] = column.ravel()
        return rows

    def _learn(self, inputs: tuple[TensorSpec, ...], *, classifies: bool, regresses: bool) -> tuple[TensorSpec, ...]:
        """The outputs, as two rows of zeros show them; what cannot be seen that way is left open.

        Some estimators, KMeans for one, take only the precision that they were fitted in: then numbers are cast to it from now on.
        """
        samples = self._samples(inputs)
        working = [sample for sample in samples if self._takes(sample)]
        self.sampled = bool(working)
        if len(working) == 1 < len(samples):
            self._precision = working[0].dtype
        outputs = []
        classes = getattr(self._estimator, "classes_", None) if classifies else None
        for method in self._methods:
            proba = method == "predict_proba"
            if not working:
                several = classes if proba and isinstance(classes, list) else None
                datatype = FP64 if proba or regresses else _datatype_of_classes(classes)
                names = [method] if several is None else [f"{method}_{index}" for index in range(len(several))]
                self._origin.update(dict.fromkeys(names, method))
                for index, name in enumerate(names):
                    known = _labels(classes if several is None else several[index]) if proba else ()
                    outputs.append(TensorSpec(name, datatype, None, labels=known))
                continue
            for index, (name, result) in enumerate(self._run(self._estimator, method, working[0])):
                self._origin[name] = method
                tensor = _tensor(name, result, None)
                shape = tensor.array.shape
                labels = _labels(classes[index] if isinstance(classes, list) and proba else classes) if proba else ()
                # a mean of whole numbers may happen to be one
                datatype = FP64 if regresses and tensor.datatype is INT64 else tensor.datatype
                outputs.append(TensorSpec(name, datatype, (-1, *shape[1:]) if shape[:1] == (2,) else shape, labels=labels))
        return tuple(outputs)

    def _takes(self, sample: Any) -> bool:
        try:
            for method in self._methods:
                self._run(self._estimator, method, sample)
        except Exception as error:  # zeros may be anything but valid, and code of one's own can raise anything
            log.debug("model '%s' does not take a sample of zeros: %s", self._name, error)
            return False
        return True

    def _samples(self, inputs: tuple[TensorSpec, ...]) -> list[Array]:
        first = inputs[0]
        if first.datatype is BYTES:
            return [np.array(["", ""], dtype=object)]
        if self._columns:
            return [np.zeros((2, len(self._columns)), dtype=object)]
        assert first.shape is not None
        if first.shape[1] < 0:
            return []
        return [np.zeros((2, first.shape[1])), np.zeros((2, first.shape[1]), np.float32)]


def _first_step(estimator: Any) -> Any:
    """What meets the input first: searches and pipelines hand it on."""
    for _ in range(100):
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(getattr(estimator, "steps", None), list) and estimator.steps:
            estimator = next((step for _, step in estimator.steps if step not in (None, "passthrough")), None)
        else:
            break
    return estimator


def _takes_text(first: Any) -> bool:
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

    return isinstance(first, CountVectorizer | HashingVectorizer)


def _named_columns(first: Any) -> tuple[str, ...]:
    """The columns of the table that a ColumnTransformer was fitted on, which from now on selects them by position; () for anything else.

    scikit-learn selects by name only from data frames, for which no client has a wire format.
    """
    from sklearn.compose import ColumnTransformer

    names = getattr(first, "feature_names_in_", None)
    if not isinstance(first, ColumnTransformer) or names is None:
        return ()
    position = {str(name): index for index, name in enumerate(names)}

    def places(columns: Any) -> Any:
        if isinstance(columns, str):
            return position[columns]
        if isinstance(columns, slice) and isinstance(columns.start or columns.stop, str):
            start = None if columns.start is None else position[columns.start]
            return slice(start, None if columns.stop is None else position[columns.stop] + 1, columns.step)
        if isinstance(columns, list | tuple | np.ndarray):
            return [position[c] if isinstance(c, str) else c for c in columns]
        return columns

    first.transformers_ = [(name, step, places(columns)) for name, step, columns in first.transformers_]
    return tuple(position)


def _labels(classes: Any) -> tuple[str, ...]:
    return () if classes is None or isinstance(classes, list) else tuple(str(c) for c in classes)


def _datatype_of_classes(classes: Any) -> Datatype | None:
    if classes is None or isinstance(classes, list):
        return None
    return _common(np.asarray(classes).dtype)


def _common(dtype: "np.dtype[Any]") -> Datatype:
    """The one datatype that answers of this kind get, whatever they were computed in."""
    if dtype.kind == "b":
        return BOOL
    if dtype.kind in "iu":
        return INT64
    if dtype.kind == "f":
        return FP32 if dtype.itemsize == 4 else FP64
    return BYTES


def _tensor(name: str, result: Any, datatype: Datatype | None) -> Tensor:
    if hasattr(result, "toarray"):
        result = result.toarray()
    array = np.asarray(result)
    datatype = datatype or _common(array.dtype)
    if datatype is BYTES:
        return Tensor(name, BYTES, arrays.encoded(array))
    if array.dtype.kind == "f" and datatype.kind != "float":
        raise RuntimeError(f"'{name}' was {datatype} when the model was loaded and is {array.dtype} now")
    return Tensor(name, datatype, np.require(array, datatype.numpy, ["C", "W", "A"]))
