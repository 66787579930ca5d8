"""Tensors and rows as the tables that MLflow models take, and whatever these answer as tensors or rows again.

Framed is a model around a function of a pandas DataFrame: MLflow's python_function, or an estimator that asks for names of columns. Called
by mlflow.py and mlflow_function.py.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dragoman.core.convert import output_rows
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, ModelSpec
from dragoman.core.plugins import missing
from dragoman.core.tensors import BYTES, Array, Datatype, Form, Rows, Signature, Tensor, Tensors, TensorSpec, datatype_of
from dragoman.core.values import jsonable
from dragoman.runtimes import arrays, memory
from dragoman.runtimes.estimator_files import line_of
from dragoman.runtimes.mlflow_columns import length_of
from dragoman.runtimes.refusals import no_output

Function = Callable[[Any, Mapping[str, Any]], Any]
"""A table (or array, list, or arrays by name) and the request's parameters to an answer."""

OUTPUT = "predict"


class Framed:
    """One function and the signature that its folder declares; without one it takes whatever tensors come, as columns.

    With `whole` the table has every declared column, missing ones as NaN; otherwise optional ones that do not come are left out. `listed`
    is for models whose declaration is a list of plain values.
    """

    operations = frozenset({"predict"})
    concurrent = False

    def __init__(
        self,
        spec: ModelSpec,
        signature: Signature,
        function: Function,
        *,
        platform: str,
        whole: bool = False,
        listed: bool = False,
        refusals: tuple[type[Exception], ...] = (),
        parameters: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda given: given,
    ) -> None:
        try:
            import pandas
        except ImportError as error:
            raise missing("mlflow", "pandas", error) from error
        self._pandas = pandas
        self._name = spec.name
        self._function: Function | None = function
        self._whole = whole
        self._listed = listed
        self._refusals = refusals
        self._parameters = parameters
        self.platform = platform
        self.signature = signature
        self.signatures: Mapping[str, Signature] = {"": signature}

    def predict(self, call: Call) -> Tensors | Rows:
        function = self._function
        if function is None:
            raise ServingError(Kind.UNAVAILABLE, f"model '{self._name}' is closed", what="model")
        table = self._input(call.inputs)
        parameters = self._parameters(call.parameters)
        try:
            answer = function(table, parameters)
        except self._refusals as error:
            raise ServingError(
                Kind.INVALID_INPUT, f"model '{self._name}' refused the input: it does not fit its MLflow signature", trace=line_of(error)
            ) from error
        given = self._answer(answer, call.inputs)
        if isinstance(given, Tensors) and call.outputs:
            return Tensors([self._wanted(given, name) for name in call.outputs])
        return given

    def close(self) -> None:
        if self._function is not None:
            self._function = None
            memory.release(cycles=True)

    # --- in ---

    def _input(self, inputs: Tensors | Rows) -> Any:
        if isinstance(inputs, Rows):
            return self._pandas.DataFrame(inputs.items)
        specs = self.signature.inputs
        given = {tensor.name: tensor for tensor in inputs.items}
        if not specs:
            return self._undeclared(inputs.items)
        if specs[0].native == "tensor" or (specs[0].shape is not None and len(specs[0].shape) == 2):
            if len(specs) == 1 and len(inputs.items) == 1:
                return self._plain(inputs.items[0])
            return {name: self._plain(tensor) for name, tensor in given.items()}
        length = length_of(given, specs, self._name)
        if self._listed:
            return self._values(given[specs[0].name], specs[0], length).tolist()
        columns = {
            spec.name: self._values(given[spec.name], spec, length) if spec.name in given else np.full(length, np.nan)
            for spec in specs
            if spec.name in given or self._whole
        }
        return self._pandas.DataFrame(columns)

    def _undeclared(self, tensors: Sequence[Tensor]) -> Any:
        """One value per row makes columns; anything else stays an array, or arrays by name."""
        if len(tensors) == 1 and tensors[0].array.ndim != 1:
            return self._plain(tensors[0])
        if all(tensor.array.ndim == 1 for tensor in tensors) and len({len(tensor.array) for tensor in tensors}) == 1:
            return self._pandas.DataFrame({tensor.name: self._plain(tensor) for tensor in tensors})
        return {tensor.name: self._plain(tensor) for tensor in tensors}

    def _plain(self, tensor: Tensor) -> Array:
        return arrays.text(tensor, self._name) if tensor.datatype is BYTES else arrays.numbers(tensor, self._name)

    def _values(self, tensor: Tensor, spec: TensorSpec, length: int) -> Any:
        """One column of the table, in the type that MLflow's declaration means."""
        if tensor.datatype is not spec.datatype:
            raise invalid(f"column '{spec.name}' of model '{self._name}' is {tensor.datatype}, expected {spec.datatype}")
        if tensor.datatype is not BYTES:
            return arrays.numbers(tensor, self._name).reshape(length)
        if spec.native == "binary":
            return tensor.array.reshape(length)
        texts = arrays.text(tensor, self._name).reshape(length)
        if spec.native != "datetime":
            return texts
        try:
            return self._pandas.to_datetime(texts, format="ISO8601").to_numpy()
        except (ValueError, TypeError, OverflowError):
            raise invalid(f"column '{spec.name}' of model '{self._name}' holds a text that is no ISO 8601 date") from None

    # --- out ---

    def _wanted(self, answers: Tensors, name: str) -> Tensor:
        tensor = answers.get(name)
        if tensor is None:
            raise no_output(self._name, name)
        return tensor

    def _answer(self, answer: Any, inputs: Tensors | Rows) -> Tensors | Rows:
        tensors = self._tensors(answer)
        if tensors is None:
            return Rows(self._listing(answer))
        if self.signature.form is Form.ROWS or isinstance(inputs, Rows):
            return Rows(output_rows(tensors, Signature(outputs=self.signature.outputs, batch=True), self._name))
        return tensors

    def _tensors(self, answer: Any) -> Tensors | None:
        """The answer as tensors; None when it is no box of values of one kind."""
        pandas = self._pandas
        declared = self.signature.outputs
        single = declared[0].name if len(declared) == 1 else OUTPUT
        if hasattr(answer, "toarray"):
            answer = answer.toarray()
        if isinstance(answer, pandas.DataFrame):
            columns = {str(name): answer.iloc[:, index].to_numpy() for index, name in enumerate(answer.columns)}
            if len(columns) < answer.shape[1]:
                return None
            if not declared and all(type(name) is int for name in answer.columns):
                columns = {OUTPUT: answer.to_numpy()}
            elif len(declared) == len(columns) and columns.keys().isdisjoint(self.signature.output_by_name):
                columns = dict(zip(self.signature.output_by_name, columns.values(), strict=True))
        elif isinstance(answer, Mapping) and all(isinstance(value, np.ndarray | list) for value in answer.values()):
            columns = {str(name): value for name, value in answer.items()}
        elif isinstance(answer, pandas.Series | np.ndarray | list | tuple):
            array = _array(answer)
            if array is not None and len(declared) > 1 and array.ndim == 2 and array.shape[1] == len(declared):
                columns = {spec.name: array[:, index] for index, spec in enumerate(declared)}
            else:
                columns = {single: answer}
        else:
            return None
        made = []
        for name, values in columns.items():
            array = _array(values)
            if array is None:
                return None
            spec = self.signature.output_by_name.get(name)
            made.append(_tensor(name, array, spec.datatype if spec is not None else None))
        return Tensors(made)

    def _listing(self, answer: Any) -> list[Any]:
        """One value per row: what is no list is the one answer."""
        if isinstance(answer, self._pandas.DataFrame):
            answer = answer.to_dict(orient="records")
        return [jsonable(value) for value in answer] if isinstance(answer, list | tuple) else [jsonable(answer)]


def _array(values: Any) -> Array | None:
    """Values of one kind as an array; None for nested objects, and for lists that form no box."""
    try:
        array = np.asarray(values)
    except ValueError:
        return None
    if array.dtype.kind == "O":
        kinds = {type(value) for value in array.ravel()}
        return array if kinds <= {str, bytes} else None
    return array.astype(str) if array.dtype.kind in "mM" else array


def _tensor(name: str, array: Array, datatype: Datatype | None) -> Tensor:
    """In the declared datatype where no value changes by it, otherwise in the array's own."""
    own = datatype_of(array.dtype)
    if own is BYTES or own is None:
        return Tensor(name, BYTES, arrays.encoded(array))
    if datatype is None or datatype is BYTES or not np.can_cast(array.dtype, datatype.numpy, "same_kind"):
        datatype = own
    return Tensor(name, datatype, np.require(array, datatype.numpy, ["C", "W", "A"]))
