"""model_warmup of a model configuration: requests that the model answers before it is ready. Called by translate.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.core.errors import invalid
from dragoman.core.tensors import BYTES, FP64, Array, Datatype, Shape, element_count, unpack_bytes
from dragoman.serving.paths import confine, read_bounded
from dragoman.serving.settings import quoted
from dragoman.serving.triton.tensors import datatype, dimensions

_FOLDER = "warmup"
_LARGEST = 256 << 20
"""Bytes of all samples of a model together; a configuration may ask for more than the machine has."""
_MOST_RUNS = 1000


def warmup_samples(message: Any, folder: Path, source: str) -> tuple[Mapping[str, Any], ...]:
    """Each sample as {"name", "inputs": {name: array}, "count"}, with the batch dimension where the model batches.

    Data files lie in the model's folder `warmup`. Random data are the same each time. A sample of batch size 0 is none, as in Triton.
    """
    samples: list[Mapping[str, Any]] = []
    left = _LARGEST
    for index, sample in enumerate(message.model_warmup):
        here = f"{source}: model_warmup[{index}]"
        if not sample.batch_size:
            continue
        if not message.max_batch_size and sample.batch_size != 1:
            raise invalid(f"{here}: batch_size is {sample.batch_size}, expected 1 because max_batch_size is 0")
        if message.max_batch_size and sample.batch_size > message.max_batch_size:
            raise invalid(f"{here}: batch_size is {sample.batch_size}, expected 1 to max_batch_size ({message.max_batch_size})")
        if sample.count > _MOST_RUNS:
            raise invalid(f"{here}: count is {sample.count}, at most {_MOST_RUNS} are possible")
        if not sample.inputs:
            raise invalid(f"{here}: expected inputs")
        batch: Shape = (sample.batch_size,) if message.max_batch_size else ()
        inputs: dict[str, Array] = {}
        for name, tensor in sorted(sample.inputs.items()):
            where = f"{here}: input {quoted(name)}"
            kind = datatype(tensor.data_type, where)
            if kind is None:
                raise invalid(f"{where}: expected data_type")
            shape = dimensions(tensor.dims, f"{where}: dims")
            if -1 in shape:
                raise invalid(f"{where}: dims are {list(shape)}, expected only fixed dimensions")
            left -= element_count(batch + shape) * (kind.size or 8)
            if left < 0:
                raise invalid(f"{where}: the samples hold more than {_LARGEST >> 20} MiB together")
            one = _one(tensor, kind, shape, folder, where)
            # A view: the same bytes for every item of the batch. Whoever runs it makes a copy.
            inputs[name] = np.broadcast_to(one, batch + shape)
        samples.append({"name": sample.name or str(index), "inputs": inputs, "count": sample.count or 1})
    return tuple(samples)


def _one(tensor: Any, kind: Datatype, shape: Shape, folder: Path, where: str) -> Array:
    """One item of the batch."""
    choice = tensor.WhichOneof("input_data_type")
    if choice is None:
        raise invalid(f"{where}: expected zero_data, random_data or input_data_file")
    if choice == "input_data_file":
        return _stored(tensor.input_data_file, kind, shape, folder, where)
    if kind is BYTES:
        array: Array = np.empty(shape, dtype=object)
        array.fill(b"")
        return array
    if choice == "zero_data":
        return np.zeros(shape, kind.numpy)
    return _random(kind, shape)


def _random(kind: Datatype, shape: Shape) -> Array:
    """Small values of every sort: random bits would be infinities and denormals, which run slower than what the model will see."""
    generator = np.random.default_rng(0)
    if kind.kind == "float":
        return generator.random(shape, np.float64 if kind is FP64 else np.float32).astype(kind.numpy, copy=False)
    if kind.kind == "bits":  # BF16 is the upper half of a float32
        bits: Array = (generator.random(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return bits
    return generator.integers(0, 2, shape, kind.numpy)


def _stored(file: str, kind: Datatype, shape: Shape, folder: Path, where: str) -> Array:
    what = f"{where}: input_data_file"
    content = read_bounded(confine(folder / _FOLDER, file, what), _LARGEST, what)
    count = element_count(shape)
    if kind is BYTES:
        try:
            return unpack_bytes(content, count).reshape(shape)
        except ValueError as reason:
            raise invalid(f"{what} does not hold {count} length-prefixed elements ({reason})") from None
    if len(content) < count * kind.size:
        raise invalid(f"{what} has {len(content)} bytes, expected {count * kind.size}")
    return np.frombuffer(content, kind.numpy, count).reshape(shape)
