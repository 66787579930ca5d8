"""Call a loaded model the way the servable does, with arrays instead of tensors. Used by tests of runtimes."""

from pathlib import Path
from typing import Any

import numpy as np

from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.plugins import find
from dragoman.core.tensors import BYTES, Datatype, Signature, Tensor, Tensors, datatype_of


def load(runtime: str, path: Path, signature: Signature | None = None, **arguments: Any) -> Model:
    """Load a file as the model 'm'."""
    spec = ModelSpec("m", runtime=runtime, artifact=str(path), signature=signature, arguments=arguments)
    model: Model = find("runtimes", runtime)(spec)
    return model


def tensor(name: str, values: Any, datatype: Datatype | None = None) -> Tensor:
    """A tensor of these values; a list of bytes is BYTES, and an array says its datatype unless one is given."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        known = datatype or datatype_of(values.dtype)
        assert known is not None
        return Tensor(name, known, values)
    array: Any = np.array(values, dtype=object if datatype in (None, BYTES) else datatype.numpy if datatype else None)
    return Tensor(name, datatype or BYTES, array)


def call(*tensors: Tensor, outputs: tuple[str, ...] = ()) -> Call:
    return Call(Tensors(list(tensors)), outputs=outputs)


def ask(model: Model, *tensors: Tensor, outputs: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Predict, and give the outputs by name, in order."""
    answer = model.predict(call(*tensors, outputs=outputs))
    assert isinstance(answer, Tensors)
    return {t.name: t for t in answer.items}
