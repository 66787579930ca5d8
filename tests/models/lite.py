"""LiteRT models of a few hundred bytes, written by hand through the file format's own schema: no TensorFlow. Used by tests of runtimes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.models.build import IRIS_CENTRES

TYPES: Mapping[str, int] = {
    "FP32": schema.TensorType.FLOAT32,
    "FP16": schema.TensorType.FLOAT16,
    "FP64": schema.TensorType.FLOAT64,
    "BF16": schema.TensorType.BFLOAT16,
    "BOOL": schema.TensorType.BOOL,
    "INT8": schema.TensorType.INT8,
    "INT16": schema.TensorType.INT16,
    "INT32": schema.TensorType.INT32,
    "INT64": schema.TensorType.INT64,
    "UINT8": schema.TensorType.UINT8,
    "UINT16": schema.TensorType.UINT16,
    "UINT32": schema.TensorType.UINT32,
    "UINT64": schema.TensorType.UINT64,
    "COMPLEX64": schema.TensorType.COMPLEX64,
    "COMPLEX128": schema.TensorType.COMPLEX128,
    "BYTES": schema.TensorType.STRING,
}
"""Datatype names of the Open Inference Protocol and their types in the file."""


@dataclass(frozen=True)
class Node:
    """One operation: its built-in code, or the name of a custom one, over tensors by name."""

    code: int | str
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: Any = None
    kind: int = 0
    """Which of the schema's options `options` is."""


@dataclass
class Graph:
    """One subgraph, and the signature that it is; `key` is "" for a graph without one."""

    key: str
    inputs: Mapping[str, str]
    """Name in the signature -> tensor."""
    outputs: Mapping[str, str]
    tensors: Mapping[str, tuple[str, Sequence[int]]]
    """Name -> datatype and shape, in which -1 varies."""
    nodes: Sequence[Node]
    constants: Mapping[str, "np.ndarray[Any, Any]"] = field(default_factory=dict)
    scales: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    """Tensor -> scale and zero point."""


def write(*graphs: Graph) -> bytes:
    """The file."""
    model = schema.ModelT()
    model.version = 3
    model.description = "test"
    model.operatorCodes, model.subgraphs, model.signatureDefs = [], [], []
    model.buffers = [schema.BufferT()]  # the first is the empty one
    for index, graph in enumerate(graphs):
        numbers, subgraph = _subgraph(model, graph)
        model.subgraphs.append(subgraph)
        if graph.key:
            signature = schema.SignatureDefT()
            signature.signatureKey, signature.subgraphIndex = graph.key, index
            signature.inputs = [_named(name, numbers[tensor]) for name, tensor in graph.inputs.items()]
            signature.outputs = [_named(name, numbers[tensor]) for name, tensor in graph.outputs.items()]
            model.signatureDefs.append(signature)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _subgraph(model: Any, graph: Graph) -> tuple[dict[str, int], Any]:
    subgraph = schema.SubGraphT()
    subgraph.name, subgraph.tensors, subgraph.operators = graph.key or "main", [], []
    numbers: dict[str, int] = {}
    for name, (datatype, shape) in graph.tensors.items():
        numbers[name] = len(subgraph.tensors)
        subgraph.tensors.append(_tensor(name, datatype, shape, graph.scales.get(name)))
    for name, array in graph.constants.items():
        numbers[name] = len(subgraph.tensors)
        tensor = _tensor(name, {"f": "FP32", "i": "INT32"}[array.dtype.kind] if array.dtype != np.int8 else "INT8", array.shape, None)
        tensor.buffer = len(model.buffers)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        model.buffers.append(buffer)
        subgraph.tensors.append(tensor)
    for node in graph.nodes:
        operator = schema.OperatorT()
        operator.opcodeIndex = _opcode(model, node.code)
        operator.inputs = [numbers[name] for name in node.inputs]
        operator.outputs = [numbers[name] for name in node.outputs]
        operator.builtinOptionsType, operator.builtinOptions = node.kind, node.options
        subgraph.operators.append(operator)
    subgraph.inputs = [numbers[tensor] for tensor in graph.inputs.values()]
    subgraph.outputs = list(dict.fromkeys(numbers[tensor] for tensor in graph.outputs.values()))
    return numbers, subgraph


def _tensor(name: str, datatype: str, shape: Sequence[int], scale: tuple[float, int] | None) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, TYPES[datatype], 0
    tensor.shape = [max(size, 1) for size in shape]
    if -1 in shape:
        tensor.shapeSignature = list(shape)
    if scale is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale[0]], [scale[1]]
    return tensor


def _opcode(model: Any, code: int | str) -> int:
    made = schema.OperatorCodeT()
    made.version = 1
    if isinstance(code, str):
        made.builtinCode = made.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        made.customCode = code
    else:
        made.builtinCode, made.deprecatedBuiltinCode = code, min(code, 127)
    model.operatorCodes.append(made)
    return len(model.operatorCodes) - 1


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def _softmax() -> Any:
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    return options


def iris(key: str = "serving_default", rows: int = -1) -> bytes:
    """The nearest of three flower centres: X FP32 [N,4] -> label INT64 [N], probabilities FP32 [N,3]; the tensors are called otherwise."""
    options = schema.ArgMaxOptionsT()
    options.outputType = schema.TensorType.INT64
    return write(
        Graph(
            key,
            {"X": "features:0"},
            {"label": "Partitioned:0", "probabilities": "Partitioned:1"},
            {
                "features:0": ("FP32", [rows, 4]),
                "scores": ("FP32", [rows, 3]),
                "Partitioned:0": ("INT64", [rows]),
                "Partitioned:1": ("FP32", [rows, 3]),
            },
            [
                Node(
                    schema.BuiltinOperator.FULLY_CONNECTED,
                    ["features:0", "weights", "bias"],
                    ["scores"],
                    schema.FullyConnectedOptionsT(),
                    schema.BuiltinOptions.FullyConnectedOptions,
                ),
                Node(schema.BuiltinOperator.SOFTMAX, ["scores"], ["Partitioned:1"], _softmax(), schema.BuiltinOptions.SoftmaxOptions),
                Node(schema.BuiltinOperator.ARG_MAX, ["scores", "axis"], ["Partitioned:0"], options, schema.BuiltinOptions.ArgMaxOptions),
            ],
            {
                "weights": np.ascontiguousarray(2 * IRIS_CENTRES),
                "bias": -(IRIS_CENTRES**2).sum(axis=1).astype(np.float32),
                "axis": np.array(1, np.int32),
            },
        )
    )


def reshape(datatype: str, shape: Sequence[int] = (-1,), to: Sequence[int] = (-1, 1), key: str = "serving_default") -> Graph:
    """x -> y, the same values in another shape, of any datatype."""
    return Graph(
        key,
        {"x": "x:0"},
        {"y": "y:0"},
        {"x:0": (datatype, shape), "y:0": (datatype, to)},
        [
            Node(
                schema.BuiltinOperator.RESHAPE,
                ["x:0", "shape"],
                ["y:0"],
                schema.ReshapeOptionsT(),
                schema.BuiltinOptions.ReshapeOptions,
            )
        ],
        {"shape": np.array(to, np.int32)},
    )


def add(key: str = "serving_default", shape: Sequence[int] = (-1, 2)) -> Graph:
    """a, b FP32 -> sum."""
    return Graph(
        key,
        {"a": "a:0", "b": "b:0"},
        {"sum": "sum:0"},
        {"a:0": ("FP32", shape), "b:0": ("FP32", shape), "sum:0": ("FP32", shape)},
        [Node(schema.BuiltinOperator.ADD, ["a:0", "b:0"], ["sum:0"], schema.AddOptionsT(), schema.BuiltinOptions.AddOptions)],
    )


def quantised(shape: Sequence[int] = (-1, 4)) -> bytes:
    """x INT8 (scale 0.05, zero point 3) -> the logistic function of it, INT8 (scale 1/256, zero point -128)."""
    return write(
        Graph(
            "serving_default",
            {"x": "x:0"},
            {"y": "y:0"},
            {"x:0": ("INT8", shape), "y:0": ("INT8", shape)},
            [Node(schema.BuiltinOperator.LOGISTIC, ["x:0"], ["y:0"])],
            scales={"x:0": (0.05, 3), "y:0": (1 / 256, -128)},
        )
    )


def custom(name: str = "FlexErf") -> bytes:
    """An operation that is not built in: x -> y."""
    tensors = {"x:0": ("FP32", [-1]), "y:0": ("FP32", [-1])}
    return write(Graph("serving_default", {"x": "x:0"}, {"y": "y:0"}, tensors, [Node(name, ["x:0"], ["y:0"])]))


def looks_up() -> bytes:
    """x INT32 [N] -> squares of 0..9 by index: other numbers make the model fail."""
    options = schema.GatherOptionsT()
    return write(
        Graph(
            "serving_default",
            {"x": "x:0"},
            {"square": "y:0"},
            {"x:0": ("INT32", [-1]), "y:0": ("FP32", [-1])},
            [Node(schema.BuiltinOperator.GATHER, ["table", "x:0"], ["y:0"], options, schema.BuiltinOptions.GatherOptions)],
            {"table": np.arange(10, dtype=np.float32) ** 2},
        )
    )
