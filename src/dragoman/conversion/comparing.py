"""Whether a converted signature answers as the original does, on samples that TensorFlow accepts. Pure but for calling the two models.

Runs in the virtualenv of `dragoman convert`; called by program.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model
from dragoman.core.tensors import BF16, BYTES, FP32, Array, Signature, Tensor, Tensors, TensorSpec, element_count, widened

_ROWS = (3, 1)
_SIDES = (3, 1, 2, 4, 5, 6, 8, 10, 16, 28, 32, 64, 128, 224, 256, 512)
"""What variable dimensions other than the first are tried with: graphs of images and texts do not take any."""
_LARGEST = 32 << 20


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest one over all elements of all outputs, and the same in proportion to the largest number of that output."""

    absolute: float = 0.0
    relative: float = 0.0
    samples: int = 0


def compare(original: Model, converted: Model, key: str, given: Mapping[str, Any] | None, tolerance: float) -> Difference:
    """Run both on the `given` inputs (nested lists by name), or else on samples of random numbers.

    Raises MODEL_FAILED when they differ by more than `tolerance` or in shape, and when no sample can be found.
    """
    signature = original.signatures[key]
    absolute = relative = 0.0
    tried = 0
    refused = ""
    for sample in [_given(signature, given)] if given is not None else _random(signature):
        if tried == len(_ROWS):
            break
        try:
            expected = _ask(original, key, sample)
        except ServingError as error:
            if given is not None:
                raise
            refused = error.message
            continue
        tried += 1
        for one, other in zip(expected.items, _ask(converted, key, sample).items, strict=True):
            gap = _gap(one, other, tolerance)
            absolute, relative = max(absolute, gap[0]), max(relative, gap[1])
    if not tried:
        reason = f": {' '.join(refused.split())[:300]}" if refused else ""
        raise ServingError(Kind.MODEL_FAILED, f"TensorFlow refuses the samples that were tried, so give one with --sample{reason}")
    return Difference(absolute, relative, tried)


def _gap(one: Tensor, other: Tensor, tolerance: float) -> tuple[float, float]:
    """The largest difference of two outputs, also in proportion. Raises MODEL_FAILED when it is too large."""
    if one.array.shape != other.array.shape or one.datatype is not other.datatype:
        raise _differs(one.name, f"{other.datatype} {list(other.array.shape)} instead of {one.datatype} {list(one.array.shape)}")
    absolute, relative = _largest(one, other)
    if not relative <= tolerance:
        raise _differs(one.name, f"by {absolute:.3g}, which is {relative:.3g} of its largest number")
    return absolute, relative


def _largest(one: Tensor, other: Tensor) -> tuple[float, float]:
    if one.datatype is BYTES:
        wrong = float(one.array.tolist() != other.array.tolist())
        return wrong, wrong
    first, second = (widened(t.array) if t.datatype is BF16 else t.array for t in (one, other))
    wide = np.complex128 if first.dtype.kind == "c" else np.float64
    first, second = first.astype(wide), second.astype(wide)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    if same.all():
        return 0.0, 0.0
    with np.errstate(invalid="ignore"):
        gap = np.abs(first - second)[~same]
    if not np.isfinite(gap).all():
        return np.inf, np.inf
    finite = np.abs(first[np.isfinite(first)])
    largest = float(finite.max()) if finite.size else 0.0
    absolute = float(gap.max())
    return absolute, absolute / max(largest, 1e-6)


def _differs(name: str, how: str) -> ServingError:
    return ServingError(Kind.MODEL_FAILED, f"its output '{name}' differs from TensorFlow's: {how}")


def _ask(model: Model, key: str, sample: Tensors) -> Tensors:
    fresh = Tensors([Tensor(t.name, t.datatype, t.array.copy()) for t in sample.items])
    answer = model.predict(Call(fresh, signature=key))
    assert isinstance(answer, Tensors)
    return answer


def _random(signature: Signature) -> Iterator[Tensors]:
    """Samples of a few rows, of one row, and with other variable dimensions in growing sizes."""
    for side in _SIDES:
        for rows in _ROWS:
            yield Tensors([_sample(spec, rows, side) for spec in signature.inputs if not spec.optional])


def _sample(spec: TensorSpec, rows: int, side: int) -> Tensor:
    datatype = spec.datatype or FP32
    sizes = (-1, -1) if spec.shape is None else spec.shape
    shape = tuple((rows if axis == 0 else side) if size < 0 else size for axis, size in enumerate(sizes))
    if element_count(shape) > _LARGEST:
        raise ServingError(Kind.MODEL_FAILED, f"its input '{spec.name}' is too large for a random sample, so give one with --sample")
    random = np.random.default_rng(element_count(shape))
    array: Array
    if datatype is BYTES:
        array = np.full(shape, b"text", dtype=object)
    elif datatype is BF16:
        array = (random.standard_normal(shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    elif datatype.kind in ("float", "complex"):
        array = np.asarray(random.standard_normal(shape)).astype(datatype.numpy)
    else:  # small, because integers are often indexes
        array = np.asarray(random.integers(0, 2, shape)).astype(datatype.numpy)
    return Tensor(spec.name, datatype, array)


def _given(signature: Signature, given: Mapping[str, Any]) -> Tensors:
    tensors = []
    for name, value in given.items():
        spec = signature.input_by_name.get(name)
        if spec is None or spec.datatype is None:
            raise invalid(f"the sample names the input '{name}', which the signature lacks")
        try:
            array: Array = np.array(value, dtype=spec.datatype.numpy)
        except (TypeError, ValueError, OverflowError) as error:
            raise invalid(f"the sample's input '{name}' is no {spec.datatype} tensor: {error}") from error
        if spec.datatype is BYTES:
            texts: Array = np.empty(array.size, dtype=object)
            texts[:] = [element.encode() if isinstance(element, str) else b"" for element in array.ravel()]
            array = texts.reshape(array.shape)
        tensors.append(Tensor(name, spec.datatype, array))
    return Tensors(tensors)
