"""A request mixed with background data: what a model is asked when some features of a data point count as unknown. Pure; for explained.py.

An explainer works on places instead of values, so that features may be of any type: place i of a feature is its value in data point i of the
background, and the last place is its value in the data point that is explained.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dragoman.core.errors import ServingError, invalid
from dragoman.core.rows import row_schema
from dragoman.core.tensors import BF16, Array, Form, Rows, Signature, Tensor, Tensors, TensorSpec, Value, datatype_of
from dragoman.serving.explain.background import Background

MOST_FEATURES = 500


class Table(Protocol):
    """`size` data points in the background; `names` of the features."""

    size: int
    names: tuple[str, ...]

    def count(self, inputs: Tensors | Rows) -> int:
        """How many data points a request has. Raises INVALID_INPUT for a request that has other features."""
        ...

    def mixed(self, inputs: Tensors | Rows, index: int, places: Array) -> Tensors | Rows:
        """What `places` (data points x features) name of the background and of data point `index` of the request."""
        ...


def table_of(background: Background, signature: Signature, model: str) -> Table:
    """Raises INVALID_INPUT for a model that is not tabular: whose data points are no numbers or texts by feature."""
    if signature.whole or (signature.form is Form.ROWS and signature.input_files):
        raise _not_tabular(model)
    if isinstance(background.inputs, Rows):
        return _Records(background.inputs.items, tuple(row_schema(signature).get("properties", ())), model)
    return _Columns(background.inputs, signature, background.names, model)


@dataclass(frozen=True, slots=True)
class _Block:
    """The features of one tensor: a matrix, or a single column."""

    spec: TensorSpec
    values: Array
    start: int
    width: int


class _Columns:
    """Of tensors: matrices and columns."""

    def __init__(self, background: Tensors, signature: Signature, names: tuple[str, ...], model: str) -> None:
        self._model = model
        self._blocks: list[_Block] = []
        found: list[str] = []
        for spec in signature.inputs:
            tensor = background.get(spec.name)
            if tensor is None:
                continue
            if not signature.batch or tensor.array.ndim not in (1, 2):
                raise _not_tabular(model)
            width = tensor.array.shape[1] if tensor.array.ndim == 2 else 1
            self._blocks.append(_Block(spec, tensor.array, len(found), width))
            found += [spec.name] if width == 1 else [f"{spec.name}[{index}]" for index in range(width)]
        self.size = len(self._blocks[0].values) if self._blocks else 0
        self.names = names if len(names) == len(found) else tuple(found)
        if not 0 < len(found) <= MOST_FEATURES:
            raise invalid(f"model '{model}' cannot be explained: a data point has {len(found)} features, expected 1 to {MOST_FEATURES}")

    def count(self, inputs: Tensors | Rows) -> int:
        return len(self._of(inputs, self._blocks[0]).array)

    def mixed(self, inputs: Tensors | Rows, index: int, places: Array) -> Tensors:
        made = []
        for block in self._blocks:
            tensor = self._of(inputs, block)
            pool = np.concatenate([block.values, tensor.array[index : index + 1]])
            datatype = tensor.datatype if tensor.datatype is BF16 else datatype_of(pool.dtype) or tensor.datatype
            chosen = places[:, block.start : block.start + block.width]
            array = pool[chosen[:, 0]] if pool.ndim == 1 else pool[chosen, np.arange(block.width)]
            made.append(Tensor(tensor.name, datatype, np.ascontiguousarray(array)))
        return Tensors(made)

    def _of(self, inputs: Tensors | Rows, block: _Block) -> Tensor:
        tensor = inputs.get(block.spec.name) if isinstance(inputs, Tensors) else None
        if tensor is None:
            raise invalid(f"to explain model '{self._model}' its input '{block.spec.name}' is needed: its background data has it")
        if tensor.array.shape[1:] != block.values.shape[1:] or (tensor.array.dtype.kind == "O") != (block.values.dtype.kind == "O"):
            raise invalid(
                f"input '{block.spec.name}' of model '{self._model}' has shape {list(tensor.array.shape)} of {tensor.datatype}, which does not"
                f" fit the background data, {list(block.values.shape)}"
            )
        return tensor


class _Records:
    """Of rows: objects by feature."""

    def __init__(self, background: list[Value], names: tuple[str, ...], model: str) -> None:
        if not 0 < len(names) <= MOST_FEATURES or not all(isinstance(row, dict) for row in background):
            raise _not_tabular(model)
        self._background = background
        self._model = model
        self.size = len(background)
        self.names = names

    def count(self, inputs: Tensors | Rows) -> int:
        rows = inputs.items
        if not all(isinstance(row, dict) for row in rows):
            raise invalid(f"to explain model '{self._model}' each data point must be an object with its features")
        return len(rows)

    def mixed(self, inputs: Tensors | Rows, index: int, places: Array) -> Rows:
        pool = [*self._background, inputs.items[index]]
        return Rows([self._row(pool, each) for each in places.tolist()])

    def _row(self, pool: list[Value], places: list[int]) -> dict[str, Value]:
        chosen = zip(self.names, places, strict=True)
        return {name: pool[place][name] for name, place in chosen if name in pool[place]}


def _not_tabular(model: str) -> ServingError:
    return invalid(f"model '{model}' cannot be explained: only tabular models can, whose data points are numbers and texts by feature")
