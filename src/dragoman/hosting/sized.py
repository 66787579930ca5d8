"""A model that is run with certain batch sizes only: filled up to the next allowed one, cut where it is larger. Wrapped around the loaded model.

Some frameworks compile for each size that they see; TensorFlow Serving's `allowed_batch_sizes` keeps those few. Called by servable.py.
"""

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from dragoman.core.model import BatchPolicy, Call, Model
from dragoman.core.tensors import Form, Rows, Signature, Tensor, Tensors, batch_length, concat


def sized(model: Model, policy: BatchPolicy) -> Model:
    """The model under its policy; the model itself where every size will do. Rows, and models that stream, have no size to fill up."""
    if not (policy.allowed or policy.cut) or getattr(model, "streams", False):
        return model
    if not any(s.form is Form.TENSORS and s.batch for s in model.signatures.values()):
        return model
    return _Sized(model, policy)


class _Sized:
    def __init__(self, model: Model, policy: BatchPolicy) -> None:
        self._model = model
        self._allowed = policy.allowed
        self._largest = policy.allowed[-1] if policy.allowed else policy.max_size
        self.signatures: Mapping[str, Signature] = model.signatures
        self.operations = model.operations
        self.platform = model.platform
        self.concurrent = model.concurrent
        self.batch_size: int = getattr(model, "batch_size", 0)

    def predict(self, call: Call) -> Tensors | Rows:
        inputs = call.inputs
        length = batch_length(inputs, self.signatures[call.signature]) if isinstance(inputs, Tensors) else None
        if not length or isinstance(inputs, Rows):  # a batch without rows has none to fill up with
            return self._model.predict(call)
        if length <= self._largest:
            return self._run(call, inputs, length)
        parts = [
            self._run(
                call,
                Tensors([Tensor(t.name, t.datatype, t.array[at : at + self._largest]) for t in inputs.items]),
                min(self._largest, length - at),
            )
            for at in range(0, length, self._largest)
        ]
        return concat(parts)

    def _run(self, call: Call, inputs: Tensors, length: int) -> Tensors | Rows:
        """Run up to the largest size, as one batch of an allowed one."""
        size = self._allowed[bisect_left(self._allowed, length)] if self._allowed else length
        if size > length:  # with copies of a row that is valid, as zeros need not be
            inputs = Tensors(
                [Tensor(t.name, t.datatype, np.concatenate([t.array, np.repeat(t.array[:1], size - length, axis=0)])) for t in inputs.items]
            )
        outputs = self._model.predict(Call(inputs, call.operation, call.signature, call.outputs, call.parameters))
        if size == length or isinstance(outputs, Rows):
            return outputs
        # An output without the batch in front is as it is: whoever splits the batch says so.
        return Tensors([Tensor(t.name, t.datatype, t.array[:length] if t.array.shape[:1] == (size,) else t.array) for t in outputs.items])

    def close(self) -> None:
        self._model.close()
