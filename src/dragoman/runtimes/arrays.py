"""Tensors as the arrays that frameworks want, and back. Called by runtimes for every request."""

import numpy as np

from dragoman.core.errors import ServingError, invalid
from dragoman.core.tensors import BF16, Array, Rows, Tensor, Tensors, TensorSpec, widened

NAME = "X"
"""scikit-learn, XGBoost and LightGBM have no name for their input; this is what papers and manuals call it."""


def features(width: int) -> TensorSpec:
    """The input of a model that takes one row of numbers per item, of any numeric datatype."""
    return TensorSpec(NAME, None, (-1, width))


def only_input(inputs: Tensors | Rows, model: str) -> Tensor:
    """The one input. Raises INVALID_INPUT for rows and for more, fewer or other tensors."""
    if isinstance(inputs, Tensors) and len(inputs.items) == 1 and inputs.items[0].name == NAME:
        return inputs.items[0]
    got = ", ".join(f"'{t.name}'" for t in inputs.items) or "none" if isinstance(inputs, Tensors) else "rows"
    raise invalid(f"model '{model}' takes one input '{NAME}', got {got}")


def numbers(tensor: Tensor, model: str) -> Array:
    """The array, BF16 widened to FP32. Raises INVALID_INPUT for text and complex numbers."""
    if tensor.datatype is BF16:
        return widened(tensor.array)
    if tensor.datatype.kind in ("bytes", "complex"):
        raise _not_numeric(tensor, model)
    return tensor.array


def table(tensor: Tensor, width: int, model: str) -> Array:
    """Numbers as [rows, width]. Raises INVALID_INPUT for anything else."""
    array = numbers(tensor, model)
    if array.ndim != 2 or array.shape[1] != width:
        raise invalid(f"input '{tensor.name}' of model '{model}' has shape {list(array.shape)}, expected [-1, {width}]")
    return array


def text(tensor: Tensor, model: str) -> Array:
    """BYTES as an object array of str. Raises INVALID_INPUT when an element is not UTF-8."""
    texts: Array = np.empty(tensor.array.size, dtype=object)
    for index, element in enumerate(tensor.array.ravel()):
        try:
            texts[index] = element.decode()
        except UnicodeDecodeError:
            raise invalid(f"input '{tensor.name}' of model '{model}' must be UTF-8 text; element {index} is not") from None
    return texts.reshape(tensor.array.shape)


def encoded(array: Array) -> Array:
    """An array of str, or of anything that has a text, as BYTES."""
    elements: Array = np.empty(array.size, dtype=object)
    for index, element in enumerate(array.ravel()):
        elements[index] = element if isinstance(element, bytes) else str(element).encode()
    return elements.reshape(array.shape)


def _not_numeric(tensor: Tensor, model: str) -> ServingError:
    return invalid(f"input '{tensor.name}' of model '{model}' has datatype {tensor.datatype}, expected a numeric one")
