"""What a request and its answer are at one moment, kept apart from whatever a model or a protocol does with them afterwards.

Called by the recorder on the event loop, for requests that are recorded only: it copies memory and converts nothing.
"""

from typing import Any

import numpy as np

from dragoman.core.tensors import Blob, Failure, Reply, Rows, Tensor, Tensors, Value

MOST_BYTES = 1 << 20
"""Of a request or an answer in one record. Brokers commonly take a megabyte; of a larger one the record says the size and nothing else."""

_CELL_BYTES = 16
_LEAVES = frozenset({type(None), bool, int, float})


class TooLargeError(Exception):
    """More than one record may hold. `size` is what had been counted by then."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Copy:
    """Copies values while it counts them. Raises TooLargeError. Immutable values are shared."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0

    def payload(self, payload: Tensors | Rows) -> Tensors | Rows:
        """Tensors or rows, each element of its own."""
        if isinstance(payload, Tensors):
            return Tensors([self._tensor(tensor) for tensor in payload.items])
        return Rows(self.value(payload.items))

    def value(self, value: Value) -> Any:
        """A row's value, a reply included."""
        kind = type(value)
        if kind in _LEAVES:
            return value
        if kind is list:
            self._count(len(value) * _CELL_BYTES)
            return [each if type(each) in _LEAVES else self.value(each) for each in value]
        if kind is dict:
            self._count(len(value) * _CELL_BYTES)
            return {name: each if type(each) in _LEAVES else self.value(each) for name, each in value.items()}
        if kind is str or kind is bytes:
            self._count(len(value))
            return value
        if isinstance(value, np.ndarray):
            self._count(value.nbytes)
            return value.copy()
        if kind is Blob:
            self._count(len(value.data))
            return value
        if kind is Reply:
            return Reply(self.value(value.body), value.status, value.content_type)
        if kind is Failure:
            return value
        return self.value(list(value)) if kind is tuple else str(value)[:1000]

    def _tensor(self, tensor: Tensor) -> Tensor:
        array = tensor.array
        self._count(array.nbytes if tensor.datatype.size else array.size * _CELL_BYTES)
        if not tensor.datatype.size:
            self._count(sum(map(len, array.ravel())))
        return Tensor(tensor.name, tensor.datatype, array.copy())

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > MOST_BYTES:
            raise TooLargeError(self.size)
