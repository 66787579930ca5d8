"""Writes ONNX graphs as a folder that the ONNX runtime serves as one model: signatures.json, the graphs, and the weights that they share.

Runs in the virtualenv of `dragoman convert`; called by program.py. The form of the folder is in docs/runtimes/onnx.md.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.core.artifacts import SIGNATURES_KEY
from dragoman.core.tensors import Signature
from dragoman.runtimes.onnx_signatures import FORMAT

DESCRIPTION = "signatures.json"
_GRAPHS, _WEIGHTS = "graphs", "weights.bin"
_SHARED = 1024
"""Weights of at least so many bytes go to the file that the graphs share."""
_ALIGNED = 64
_LARGEST_GRAPH = 1 << 30
"""A lone graph with more weights than this has them beside it: a protobuf ends at 2 GiB."""


@dataclass(frozen=True, slots=True)
class Converted:
    """One signature: what it declares, its ONNX model, and the names of its inputs and outputs in that."""

    signature: Signature
    model: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def write(folder: Path, graphs: Mapping[str, Converted], default: str, origin: Mapping[str, Any]) -> None:
    """Write the folder, which exists and is empty. `origin` goes into the description, for people. The models stay as they are."""
    (folder / _GRAPHS).mkdir()
    sizes = [sum(len(tensor.raw_data) for tensor in _weights(each.model.graph)) for each in graphs.values()]
    beside = len(graphs) > 1 or sizes[0] > _LARGEST_GRAPH
    described: dict[str, Any] = {}
    files = file_names(graphs)
    places: dict[bytes, tuple[int, int]] = {}
    weights = (folder / _GRAPHS / _WEIGHTS).open("wb") if beside else None
    try:
        for key, each in graphs.items():
            model = type(each.model).FromString(each.model.SerializeToString()) if weights is not None else each.model
            if weights is not None:
                for tensor in _weights(model.graph):
                    _move(tensor, weights, places)
            (folder / _GRAPHS / files[key]).write_bytes(model.SerializeToString())
            described[key] = {
                "file": f"{_GRAPHS}/{files[key]}",
                "method": each.signature.method,
                "inputs": {spec.name: {"tensor": each.inputs[spec.name], "native": spec.native} for spec in each.signature.inputs},
                "outputs": {spec.name: {"tensor": each.outputs[spec.name], "native": spec.native} for spec in each.signature.outputs},
            }
    finally:
        if weights is not None:
            weights.close()
    if beside and not places:
        (folder / _GRAPHS / _WEIGHTS).unlink()
    text = json.dumps({SIGNATURES_KEY: FORMAT, "default": default, "signatures": described, **origin}, indent=2)
    (folder / DESCRIPTION).write_text(text + "\n", "utf-8")


def file_names(keys: Mapping[str, Any]) -> dict[str, str]:
    """A file for each signature, whose name may hold anything: "tensorflow/serving/regress" is one."""
    names: dict[str, str] = {}
    for key in keys:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", key)[:64] or "signature"
        name, number = f"{stem}.onnx", 2
        while name.lower() in {other.lower() for other in names.values()}:
            name, number = f"{stem}_{number}.onnx", number + 1
        names[key] = name
    return names


def _move(tensor: Any, weights: Any, places: dict[bytes, tuple[int, int]]) -> None:
    """Put one tensor's bytes into the shared file, once for all graphs that have them."""
    data = tensor.raw_data
    if len(data) < _SHARED:
        return
    digest = hashlib.sha256(data).digest()
    if digest not in places:
        start = -weights.tell() % _ALIGNED + weights.tell()
        weights.write(bytes(start - weights.tell()))
        weights.write(data)
        places[digest] = (start, len(data))
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    for name, value in (("location", _WEIGHTS), ("offset", places[digest][0]), ("length", places[digest][1])):
        entry = tensor.external_data.add()
        entry.key, entry.value = name, str(value)


def _weights(graph: Any) -> Iterator[Any]:
    """The initializers of a graph. Those of loops' bodies are small and stay where they are."""
    yield from graph.initializer
