"""ONNX models by onnxruntime: load(spec) -> Model. Sessions are thread-safe, so one serves every instance. See docs/runtimes/onnx.md.

How files are refused is in onnx_errors.py, what onnxruntime does not tell about them in onnx_file.py.
"""

import ctypes
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.core.artifacts import locate
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.plugins import missing
from dragoman.core.tensors import BF16, BYTES, DATATYPES, FP32, FP64, Array, Datatype, Rows, Signature, Tensor, Tensors, TensorSpec
from dragoman.runtimes import arrays, memory, onnx_errors, onnx_file, onnx_signatures
from dragoman.runtimes.options import Options, processors
from dragoman.runtimes.refusals import needs_input, no_output, takes_tensors
from dragoman.runtimes.signatures import settle

log = logging.getLogger("dragoman.runtimes.onnx")

_BFLOAT16 = 16
"""TensorProto.BFLOAT16"""
_ELEMENTS: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
_TENSOR = re.compile(r"tensor\((\w+)\)")
_DICTS = re.compile(r"seq\(map\((?:int64|string),tensor\((float|double)\)\)\)")
_MADE_UP = re.compile(r"unk__\d+|.*_dim_\d+")
"""Dimension names that exporters invent for what they do not know: tf2onnx and the older PyTorch exporter."""
_LARGEST_OPTIONAL = 64
_LEVELS = {"disabled": 0, "basic": 1, "extended": 2, "layout": 3, "all": 99}


def load(spec: ModelSpec) -> Model:
    """Open the model. Raises ServingError when it cannot be served, naming the reason and what to do."""
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnx", "onnxruntime", error) from error
    path = locate(spec.artifact, "onnx", spec.name)
    if path.suffix.lower() == ".json":
        return onnx_signatures.load(path, spec, lambda graph, part: _open(onnxruntime, part, graph))
    return _open(onnxruntime, spec, path)


def _open(onnxruntime: Any, spec: ModelSpec, path: Path) -> "OnnxModel":
    """One graph."""
    options = Options(spec)
    providers = _providers(onnxruntime, options, spec.name)
    settings = _settings(onnxruntime, options, spec, quiet=not providers)
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # pybind types without a common base, and this is the border at which they become ours
        raise onnx_errors.at_load(error, spec.name, path, onnxruntime.__version__) from error
    active = session.get_providers()
    for name, _ in providers:
        if name not in active:
            raise ServingError(
                Kind.UNSUPPORTED,
                f"model '{spec.name}' asks for {name}, which is installed but does not start on this machine; see onnxruntime's log",
                what="model",
            )
    session.disable_fallback()  # a failing device must be reported, not replaced behind the operator's back
    return OnnxModel(session, spec, path)


class OnnxModel:
    """A session and what is prepared for its calls."""

    operations = frozenset({"predict"})
    platform = "onnxruntime_onnx"
    concurrent = True

    def __init__(self, session: Any, spec: ModelSpec, path: Path) -> None:
        self._name = spec.name
        self._session = session
        facts = _Facts(path)
        own = Signature(inputs=_inputs(session, spec, facts), outputs=_outputs(session, spec, facts))
        own = Signature(inputs=own.inputs, outputs=own.outputs, batch=_joins(session, own))
        self.signature = settle(spec, own)
        self.signatures: Mapping[str, Signature] = {"": self.signature}
        self._outputs = [(t.name, t.datatype or FP32) for t in self.signature.outputs]
        self._names = [name for name, _ in self._outputs]
        self._types = dict(self._outputs)
        types = {t.datatype for t in self.signature.inputs} | set(self._types.values())
        # The session's own object skips a check of input names that the gateway has done: 1.5 us of a small model's 8.
        self._run = getattr(session, "_sess", session).run
        self._text = BYTES in types
        self._bits = BF16 in types
        self._labels = {t.name: t.labels for t in self.signature.outputs if t.name in _dict_outputs(session)}
        # When dimensions are the caller's to choose, a node that cannot work with a shape is the input's fault; otherwise the model's.
        self._open = any(t.shape is None or -1 in t.shape[own.batch :] for t in own.inputs)

    def predict(self, call: Call) -> Tensors:
        inputs = call.inputs
        if isinstance(inputs, Rows):
            raise takes_tensors(self._name)
        session = self._session
        if session is None:
            raise ServingError(Kind.UNAVAILABLE, f"model '{self._name}' is closed", what="model")
        feeds: dict[str, Any] = {t.name: t.array for t in inputs.items}
        if self._text:
            for tensor in inputs.items:
                if tensor.datatype is BYTES:  # given `bytes`, onnxruntime would read their Python spelling without a word
                    feeds[tensor.name] = arrays.text(tensor, self._name)
        names = self._wanted(call.outputs) if call.outputs else self._names
        try:
            results = self._run_bits(session, feeds, inputs, names) if self._bits else self._run(names, feeds, None)
        except Exception as error:  # onnxruntime's own types, which have no common base
            missing = [t.name for t in self.signature.inputs if not t.optional and t.name not in feeds]
            if missing:
                raise needs_input(self._name, missing[0]) from None
            uneven = len({tensor.array.shape[:1] for tensor in inputs.items}) > 1  # TensorFlow Serving's columns may be
            raise onnx_errors.at_run(error, self._name, dimensions_open=self._open or uneven) from error
        types = self._types
        outputs = [Tensor(name, types[name], result) for name, result in zip(names, results, strict=True)]
        if self._text or self._labels:
            for output in outputs:
                if isinstance(output.array, list):
                    output.array = _columns(output.array, self._labels[output.name], output.datatype)
                elif output.datatype is BYTES:
                    output.array = arrays.encoded(output.array)
        return Tensors(outputs)

    def close(self) -> None:
        if self._session is not None:
            self._session = None
            del self._run
            memory.release()

    def _wanted(self, outputs: tuple[str, ...]) -> list[str]:
        for name in outputs:
            if name not in self._types:
                raise no_output(self._name, name)
        return [name for name in self._names if name in outputs]

    def _run_bits(self, session: Any, feeds: dict[str, Any], inputs: Tensors, names: list[str]) -> list[Any]:
        """Run with BF16 among the tensors: numpy has no such type, so the bits travel in onnxruntime's own values."""
        import onnxruntime

        values = {}
        for tensor in inputs.items:
            array = np.ascontiguousarray(feeds[tensor.name]) if tensor.array.ndim else feeds[tensor.name]
            feeds[tensor.name] = array  # the value only borrows the memory
            if tensor.datatype is BF16:
                values[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
            else:
                values[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        results = session.run_with_ort_values(names, values)
        return [_bits(value) if self._types[name] is BF16 else value.numpy() for name, value in zip(names, results, strict=True)]


class _Facts:
    """The file's own facts, read when the first question comes: most models need none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: onnx_file.OnnxFile | None = None

    @property
    def file(self) -> onnx_file.OnnxFile:
        if self._file is None:
            self._file = onnx_file.read(self._path) or onnx_file.OnnxFile()
        return self._file


def _settings(onnxruntime: Any, options: Options, spec: ModelSpec, *, quiet: bool) -> Any:
    settings = onnxruntime.SessionOptions()
    # Every refused input would be logged as an error of the server's; what matters is in the exception. Devices explain themselves there.
    settings.log_severity_level = 4 if quiet else 3
    threads = options.integer("threads", "intra_op_thread_count", low=0, high=1024)
    if threads is None:
        share = options.processors()
        threads = 0 if share is None and spec.instances == 1 else max(1, (share or processors()) // spec.instances)
    settings.intra_op_num_threads = threads
    inter = options.integer("inter_op_threads", "inter_op_thread_count", low=0, high=1024)
    if inter is not None and inter > 1:
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        settings.inter_op_num_threads = inter
    if not options.boolean("spinning"):
        # Idle pool threads would otherwise spin on the processors that the event loop and other models need.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    level = options.text("optimization_level").lower()
    if level:
        number = _LEVELS.get(level, int(level) if level.isdecimal() and len(level) < 3 else -1)
        levels = {int(known.value): known for known in onnxruntime.GraphOptimizationLevel.__members__.values()}
        if number not in levels:
            raise invalid(f"argument 'optimization_level' of model '{spec.name}' is '{level[:50]}', expected one of {', '.join(_LEVELS)}")
        settings.graph_optimization_level = levels[number]
    return settings


def _providers(onnxruntime: Any, options: Options, model: str) -> list[tuple[str, dict[str, str]]]:
    """The execution providers that are asked for, by `providers` or `device`, besides the CPU. Raises UNSUPPORTED for one that is missing."""
    available = list(onnxruntime.get_available_providers())
    wanted = options.items("providers")
    device = options.text("device").lower()
    if device and not wanted and device != "cpu":
        kind, _, index = device.partition(":")
        kind = "cuda" if kind == "gpu" else kind
        wanted = [(kind, {"device_id": index} if index.isdecimal() else {})]
    chosen = []
    for item in wanted:
        name, details = (item, {}) if isinstance(item, str) else _pair(item, model)
        match = next((a for a in available if name.lower() in (a.lower(), a.lower().removesuffix("executionprovider"))), None)
        if match is None:
            raise ServingError(
                Kind.UNSUPPORTED,
                f"model '{model}' asks for the execution provider '{name[:100]}', which this onnxruntime {onnxruntime.__version__} lacks; "
                f"it has {', '.join(available)}",
                what="model",
            )
        if match != "CPUExecutionProvider":
            chosen.append((match, {str(key): str(value) for key, value in details.items()}))
    return chosen


def _pair(item: Any, model: str) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], Mapping):
        return item[0], item[1]
    raise invalid(f"argument 'providers' of model '{model}' holds {str(item)[:100]!r}, expected a name, or a name and an object of options")


def _inputs(session: Any, spec: ModelSpec, facts: _Facts) -> tuple[TensorSpec, ...]:
    tensors = []
    for node in session.get_inputs():
        match = _TENSOR.fullmatch(node.type)
        if match is None or match[1] not in _ELEMENTS:
            raise ServingError(
                Kind.UNSUPPORTED,
                f"the input '{node.name}' of model '{spec.name}' has the type {node.type}, which cannot be sent",
                what="model",
            )
        tensors.append(TensorSpec(node.name, DATATYPES[_ELEMENTS[match[1]]], _shape(node, facts)))
    # An initializer that is listed as an input is a default that callers may replace. Old exporters list all weights like that; those are
    # nobody's business, so matrices among them mean that none is meant, unless the configuration names it.
    extra = []
    declared = {t.name for t in spec.signature.inputs} if spec.signature is not None else set()
    for node in session.get_overridable_initializers():
        match = _TENSOR.fullmatch(node.type)
        if match is not None and match[1] in _ELEMENTS:
            extra.append(TensorSpec(node.name, DATATYPES[_ELEMENTS[match[1]]], _shape(node, facts), optional=True))
    if any(t.shape is None or len(t.shape) > 1 or any(d > _LARGEST_OPTIONAL for d in t.shape) for t in extra):
        extra = [t for t in extra if t.name in declared]
    return (*tensors, *extra)


def _outputs(session: Any, spec: ModelSpec, facts: _Facts) -> tuple[TensorSpec, ...]:
    tensors = []
    for node in session.get_outputs():
        match = _TENSOR.fullmatch(node.type)
        if match is not None and match[1] in _ELEMENTS:
            tensors.append(TensorSpec(node.name, DATATYPES[_ELEMENTS[match[1]]], _shape(node, facts)))
            continue
        dicts = _DICTS.fullmatch(node.type)
        if dicts is not None:
            labels = tuple(sorted(facts.file.zipmaps.get(node.name, ()), key=_label_order))
            tensors.append(TensorSpec(node.name, FP32 if dicts[1] == "float" else FP64, (-1, len(labels) or -1), labels=labels))
            continue
        log.warning("output '%s' of model '%s' is left out: its type %s cannot be answered", node.name, spec.name, node.type)
    if not tensors:
        raise ServingError(Kind.UNSUPPORTED, f"model '{spec.name}' has no output that can be answered: none is a tensor", what="model")
    return tuple(tensors)


def _label_order(label: str) -> tuple[int, str]:
    return (int(label), "") if label.removeprefix("-").isdecimal() else (0, label)


def _dict_outputs(session: Any) -> set[str]:
    return {node.name for node in session.get_outputs() if _DICTS.fullmatch(node.type)}


def _shape(node: Any, facts: _Facts) -> tuple[int, ...] | None:
    if not node.shape and node.name in facts.file.shapeless:
        return None  # onnxruntime shows an unknown rank like a scalar
    return tuple(d if isinstance(d, int) and d >= 0 else -1 for d in node.shape)


def _joins(session: Any, own: Signature) -> bool:
    """Whether axis 0 is the batch: variable in every tensor, and nowhere under a name that says that it is something else."""
    if not own.inputs or any(t.shape is None or t.shape[:1] != (-1,) for t in own.inputs + own.outputs):
        return False
    dicts = _dict_outputs(session)
    served = {t.name for t in own.outputs}
    names = {node.shape[0] for node in session.get_inputs()}
    names |= {node.shape[0] for node in session.get_outputs() if node.name in served and node.name not in dicts}
    known = {name for name in names if isinstance(name, str) and _MADE_UP.fullmatch(name) is None}
    return len(known) <= 1


def _columns(rows: list[dict[Any, float]], labels: tuple[str, ...], datatype: Datatype) -> Array:
    """A list of {class: score} as [rows, classes], classes in order."""
    width = len(labels)
    if not rows:
        return np.zeros((0, width), datatype.numpy)
    keys = sorted(rows[0])
    return np.array([[row[key] for key in keys] for row in rows], datatype.numpy)


def _bits(value: Any) -> Array:
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    array: Array = np.empty(shape, BF16.numpy)
    if count:
        ctypes.memmove(array.ctypes.data, value.data_ptr(), count * BF16.size)
    return array
