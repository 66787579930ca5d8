"""The classification extension: an output as its best classes, `value:index[:label]`, best first. Called by the codec while it encodes."""

import numpy as np

from dragoman.core.errors import invalid
from dragoman.core.tensors import BYTES, FP16, Array, Tensor, element_count

_RANKED = frozenset({"int", "uint", "float"})


def classify(tensor: Tensor, count: int, batch: bool, labels: tuple[str, ...], model: str) -> Tensor:
    """The best `count` (clamped) elements per batch item, or of the whole tensor when `batch` is false, as a BYTES tensor.

    Ties go to the lower index and NaN comes last. Raises INVALID_INPUT for datatypes that have no order here: BYTES, BOOL, FP16, BF16.
    """
    datatype, array = tensor.datatype, tensor.array
    if datatype.kind not in _RANKED or datatype is FP16:
        raise invalid(f"output '{tensor.name}' of model '{model}' has datatype {datatype}, which cannot be classified")
    items = array.shape[:1] if batch else ()
    width = element_count(array.shape[len(items) :])
    count = min(count, width)
    rows = array.reshape(element_count(items), width)
    pattern = "%f:%d" if datatype.kind == "float" else "%d:%d"
    made: list[bytes] = []
    for row, best in zip(rows, _best(rows, count).tolist(), strict=True):
        for index in best:
            text = pattern % (row[index], index)
            made.append((f"{text}:{labels[index]}" if index < len(labels) else text).encode())
    classes: Array = np.empty(len(made), object)
    classes[:] = made
    return Tensor(tensor.name, BYTES, classes.reshape((*items, count)))


def _best(rows: Array, count: int) -> Array:
    """Indexes of the largest `count` elements of each row, largest first."""
    if rows.dtype.kind == "f":
        rows = np.where(np.isnan(rows), -np.inf, rows)
    # A stable ascending sort of the mirrored row, read backwards, is a descending sort in which equal elements keep their order.
    ascending = np.argsort(rows[:, ::-1], axis=1, kind="stable")
    best: Array = rows.shape[1] - 1 - ascending[:, ::-1][:, :count]
    return best
