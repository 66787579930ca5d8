"""Small models of our own, for tests of everything around models."""

import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from dragoman.core.model import EMPTY, Call
from dragoman.core.tensors import FP32, Rows, Signature, Tensor, Tensors, TensorSpec

DOUBLER = Signature(inputs=(TensorSpec("x", FP32, (-1, 2)),), outputs=(TensorSpec("y", FP32, (-1, 2)),), batch=True)


class FakeModel:
    """Doubles `x`; a row that starts with a negative number fails the whole run, as real frameworks do."""

    def __init__(
        self,
        *,
        signature: Signature = DOUBLER,
        run: Callable[[Call], Tensors | Rows] | None = None,
        gate: threading.Event | None = None,
        others: Mapping[str, Signature] = EMPTY,
    ) -> None:
        self.signatures: Mapping[str, Signature] = {"": signature, **others}
        self.operations = frozenset({"predict"})
        self.platform = "fake"
        self.concurrent = True
        self.entered = 0
        self.calls: list[int] = []
        self.closed = False
        self._run = run
        self._gate = gate

    def predict(self, call: Call) -> Tensors | Rows:
        assert isinstance(call.inputs, Tensors)
        self.entered += 1
        if self._gate is not None and not self._gate.wait(10):
            raise TimeoutError("the test never opened the gate")
        array = call.inputs.items[0].array
        self.calls.append(len(array) if array.ndim else 1)
        if self._run is not None:
            return self._run(call)
        if (array < 0).any():
            raise ArithmeticError("a negative number")
        array *= 2  # a model owns its inputs
        return Tensors([Tensor("y", FP32, array)])

    def close(self) -> None:
        self.closed = True


def row(*values: float) -> Tensors:
    """One or more rows of two numbers."""
    return Tensors([Tensor("x", FP32, np.array(values, dtype="f4").reshape(-1, 2))])


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll a condition from a thread of its own; fails after the time-out."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the condition never came true")
        time.sleep(0.002)
