"""The inputs and outputs that a model configuration declares: datatypes, complete shapes, reshapes, labels. Called by translate.py."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from dragoman.core.errors import invalid
from dragoman.core.tensors import BYTES, DATATYPES, Datatype, Shape, TensorSpec, element_count
from dragoman.serving.paths import confine, read_labels
from dragoman.serving.settings import quoted

_TYPES = (
    *(None, "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BYTES", "BF16"),
)
"""Our datatypes by the numbers of Triton's DataType."""
_MOST_DIMENSIONS = 32


def datatype(number: int, where: str) -> Datatype | None:
    """The datatype of a DataType number; None when it was left out."""
    if not 0 <= number < len(_TYPES):
        raise invalid(f"{where}: data_type {number} is not known")
    name = _TYPES[number]
    return DATATYPES[name] if name else None


def type_name(kind: Datatype | None) -> str:
    """The name that a configuration uses: TYPE_FP32, TYPE_STRING; TYPE_INVALID for none and for what Triton does not have."""
    name = kind.name if kind is not None else None
    return "TYPE_STRING" if kind is BYTES else f"TYPE_{name}" if name in _TYPES and name else "TYPE_INVALID"


def tensors(
    declared: Sequence[Any], kind: str, batched: bool, folder: Path, source: str
) -> tuple[tuple[TensorSpec, ...], dict[str, Shape]]:
    """The specs of `input` or `output` (which is `kind`), and the reshapes by name. Shapes get a batch dimension when the model batches."""
    specs: dict[str, TensorSpec] = {}
    reshapes: dict[str, Shape] = {}
    batch: Shape = (-1,) if batched else ()
    for index, tensor in enumerate(declared):
        if not tensor.name:
            raise invalid(f"{source}: {kind}[{index}]: expected a name")
        where = f"{source}: {kind} {quoted(tensor.name)}"
        if tensor.name in specs:
            raise invalid(f"{where} is listed twice")
        dims = dimensions(tensor.dims, f"{where}: dims")
        if tensor.HasField("reshape"):
            reshaped = dimensions(tensor.reshape.shape, f"{where}: reshape")
            _check_reshape(dims, reshaped, batched, where)
            reshapes[tensor.name] = batch + reshaped
        specs[tensor.name] = TensorSpec(
            tensor.name,
            datatype(tensor.data_type, where),
            batch + dims if dims else None,
            optional=kind == "input" and tensor.optional,
            labels=_labels(tensor, folder, f"{where}: label_filename") if kind == "output" else (),
        )
    return tuple(specs.values()), reshapes


def dimensions(values: Sequence[int], where: str) -> Shape:
    """The dimensions as a shape: each at least 1, or -1 for one that varies."""
    if len(values) > _MOST_DIMENSIONS:
        raise invalid(f"{where}: {len(values)} dimensions, at most {_MOST_DIMENSIONS} are possible")
    for value in values:
        if value < 1 and value != -1:
            raise invalid(f"{where}: {value} is not a dimension; expected 1 or more, or -1 for one that varies")
    return tuple(values)


def _check_reshape(dims: Shape, reshaped: Shape, batched: bool, where: str) -> None:
    if not dims:
        raise invalid(f"{where}: reshape needs dims")
    if not reshaped and not batched:
        raise invalid(f"{where}: reshape is empty, which only a model with max_batch_size above 0 may have")
    if not _same_elements(dims, reshaped):
        raise invalid(f"{where}: reshape {list(reshaped)} does not hold as many elements as dims {list(dims)}")


def _same_elements(one: Shape, other: Shape) -> bool:
    """Whether one can become the other, whatever sizes the variable dimensions have: as many elements before, between and after them."""
    return _stretches(one) == _stretches(other)


def _stretches(shape: Shape) -> list[int]:
    """Elements in each stretch of fixed dimensions: [2, 4, -1, 6] has 8 and 6."""
    counts = [1]
    for varies, stretch in groupby(shape, lambda dimension: dimension < 0):
        if varies:
            counts += [1] * len(list(stretch))
        else:
            counts[-1] = element_count(stretch)
    return counts


def _labels(tensor: Any, folder: Path, what: str) -> tuple[str, ...]:
    if not tensor.label_filename:
        return ()
    return read_labels(confine(folder, tensor.label_filename, what), what)
