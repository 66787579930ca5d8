"""LiteRT (TensorFlow Lite) models by ai-edge-litert: load(spec) -> Model. See docs/runtimes/litert.md.

An interpreter serves one call at a time, so every instance of a model has its own. How files and inputs are refused is in litert_errors.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dragoman.core.artifacts import locate
from dragoman.core.checks import fits
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.plugins import missing
from dragoman.core.samples import concrete
from dragoman.core.tensors import BF16, BYTES, FP32, Array, Datatype, Rows, Signature, Tensor, Tensors, TensorSpec, datatype_of
from dragoman.runtimes import litert_errors, memory
from dragoman.runtimes.options import Options, processors
from dragoman.runtimes.refusals import needs_input, no_input, no_output, no_signature, takes_tensors
from dragoman.runtimes.signatures import settle

DEFAULT = "serving_default"

Run = Callable[..., Mapping[str, Array]]
"""Arrays by input name, as keywords -> arrays by output name."""


def load(spec: ModelSpec) -> Model:
    """Open the model. Raises ServingError when it cannot be served, naming the reason and what to do."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise missing("litert", "ai-edge-litert", error) from error
    path = locate(spec.artifact, "litert", spec.name)
    options = Options(spec)
    threads = options.integer("threads", low=0, high=1024)
    if not threads:
        threads = max(1, (options.processors() or processors()) // spec.instances)
    floats, resized = bool(options.boolean("dequantize")), bool(options.boolean("resize_batch"))
    try:
        # From memory and not by path: a mapped file that is replaced in place would take the process down with it.
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
        interpreter.allocate_tensors()
        entries = {key: _Entry(*parts, spec.name, floats, resized) for key, parts in _graphs(interpreter).items()}
    except ServingError:
        raise
    except Exception as error:  # pybind types and MemoryError; this is the border at which they become ours
        raise litert_errors.at_load(error, spec.name, path.name) from error
    default = DEFAULT if DEFAULT in entries else next(iter(entries))
    entries[default].signature = settle(spec, entries[default].signature)
    for entry in entries.values():
        entry.verify(rows=resized, alone=len(entries) == 1)
    return LiteRTModel(spec.name, default, entries)


class LiteRTModel:
    """One interpreter and its signatures."""

    operations = frozenset({"predict"})
    platform = "litert"
    concurrent = False

    def __init__(self, name: str, default: str, entries: "Mapping[str, _Entry]") -> None:
        self._name = name
        self._entries = {"": entries[default], **entries}
        self.signatures: Mapping[str, Signature] = {key: entry.signature for key, entry in self._entries.items()}

    def predict(self, call: Call) -> Tensors:
        if not self._entries:
            raise ServingError(Kind.UNAVAILABLE, f"model '{self._name}' is closed", what="model")
        entry = self._entries.get(call.signature)
        if entry is None:
            raise no_signature(self._name, call.signature)
        if isinstance(call.inputs, Rows):
            raise takes_tensors(self._name)
        return entry.predict(call.inputs, call.outputs)

    def close(self) -> None:
        if self._entries:
            self._entries = {}
            memory.release()


@dataclass(frozen=True, slots=True)
class _Port:
    """One input or output: what it is to clients, and what the interpreter calls its numbers."""

    spec: TensorSpec
    dtype: np.dtype[Any]
    scale: float
    """0 for numbers that are what they seem."""
    zero: int

    def inward(self, tensor: Tensor, model: str) -> Array:
        """The array that the interpreter takes. Raises INVALID_INPUT: with another shape or type than declared it could do anything."""
        spec, array = self.spec, tensor.array
        if tensor.datatype is not spec.datatype:
            raise invalid(f"input '{spec.name}' of model '{model}' has datatype {tensor.datatype}, expected {spec.datatype}")
        if spec.shape is not None and not fits(array.shape, spec.shape):
            raise invalid(f"input '{spec.name}' of model '{model}' has shape {list(array.shape)}, expected {list(spec.shape)}")
        if tensor.datatype is BF16:
            bits: Array = array.view(self.dtype)
            return bits
        if self.scale:
            limits = np.iinfo(self.dtype)
            with np.errstate(over="ignore", invalid="ignore"):
                whole = np.nan_to_num(np.rint(array / self.scale)) + self.zero
            return np.asarray(np.clip(whole, limits.min, limits.max), self.dtype)
        return array

    def outward(self, array: Array) -> Tensor:
        datatype = self.spec.datatype or FP32
        if datatype is BF16:
            array = array.view(BF16.numpy)
        elif self.scale:
            array = ((array.astype(np.float32) - self.zero) * self.scale).astype(np.float32)
        return Tensor(self.spec.name, datatype, array)


class _Entry:
    """One signature of the file: what it declares, and what runs it."""

    def __init__(self, run: Run, inputs: Mapping[str, Any], outputs: Mapping[str, Any], model: str, floats: bool, resized: bool) -> None:
        self._model = model
        self._run = run
        self._inputs = {name: _port(name, details, model, floats, resized) for name, details in inputs.items()}
        self._outputs = {name: _port(name, details, model, floats, resized) for name, details in outputs.items()}
        tensors = [port.spec for port in (*self._inputs.values(), *self._outputs.values())]
        self.signature = Signature(
            inputs=tuple(port.spec for port in self._inputs.values()),
            outputs=tuple(port.spec for port in self._outputs.values()),
            batch=bool(inputs) and all(t.shape is not None and t.shape[:1] == (-1,) for t in tensors),
        )
        self._open = any(t.shape is None or -1 in t.shape[self.signature.batch :] for t in self.signature.inputs)

    def predict(self, inputs: Tensors, wanted: tuple[str, ...]) -> Tensors:
        for name in wanted:
            if name not in self.signature.output_by_name:
                raise no_output(self._model, name)
        feeds = {}
        for tensor in inputs.items:
            port = self._inputs.get(tensor.name)
            if port is None:
                raise no_input(self._model, tensor.name)
            feeds[tensor.name] = port.inward(tensor, self._model)
        for name in self._inputs:
            if name not in feeds:
                raise needs_input(self._model, name)
        try:
            results = self._run(**feeds)
        except (RuntimeError, ValueError) as error:
            uneven = len({array.shape[:1] for array in feeds.values()}) > 1
            raise litert_errors.at_run(error, self._model, dimensions_open=self._open or uneven) from error
        names = [spec.name for spec in self.signature.outputs if not wanted or spec.name in wanted]
        return Tensors([self._outputs[name].outward(results[name]) for name in names])

    def verify(self, *, rows: bool, alone: bool) -> None:
        """Raise for operations that LiteRT lacks, which shows when a graph is first laid out, and, with `rows`, unless two rows can go together.

        A file's only signature has been laid out with the file.
        """
        if rows and self.signature.batch:
            self._try_rows()
        elif not alone:
            try:
                self.predict(self._sample(1), ())
            except ServingError as error:
                if error.kind is Kind.UNSUPPORTED:
                    raise
            except RuntimeError:
                pass  # zeros need not be valid input

    def _try_rows(self) -> None:
        both = self._sample(2)
        try:
            answer = self.predict(both, ())
            parts = [self.predict(Tensors([_row(t, row) for t in both.items]), ()) for row in range(2)]
            for output, *halves in zip(answer.items, *(part.items for part in parts), strict=True):
                expected = np.concatenate([half.array for half in halves])
                same = expected.shape == output.array.shape and _close(output.array, expected)
                if not same:
                    raise invalid(f"its output '{output.name}' differs")
        except (ServingError, RuntimeError) as error:
            reason = error.message if isinstance(error, ServingError) else litert_errors.plain(str(error))
            raise invalid(
                f"model '{self._model}' cannot be resized to batches ('resize_batch'): two rows do not give what each gives alone: {reason}",
                what="model",
            ) from error

    def _sample(self, rows: int) -> Tensors:
        random = np.random.default_rng(0)
        items = []
        for port in self._inputs.values():
            shape = concrete(port.spec) or ()
            if self.signature.batch:
                shape = (rows, *shape[1:])
            datatype = port.spec.datatype or FP32
            if datatype is BYTES:
                array: Array = np.full(shape, b"", dtype=object)
            elif rows > 1 and datatype.kind == "float":
                array = random.standard_normal(shape).astype(datatype.numpy)
            else:
                array = np.zeros(shape, datatype.numpy) if rows == 1 else random.integers(0, 2, shape).astype(datatype.numpy)
            items.append(Tensor(port.spec.name, datatype, array))
        return Tensors(items)


def _row(tensor: Tensor, row: int) -> Tensor:
    """One row of a tensor."""
    return replace(tensor, array=tensor.array[row : row + 1].copy())


def _close(one: Array, other: Array) -> bool:
    if one.dtype.kind in "fc":
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))
    return bool(np.array_equal(one, other))


def _graphs(interpreter: Any) -> dict[str, tuple[Run, Mapping[str, Any], Mapping[str, Any]]]:
    """What runs each signature, and the details of its inputs and outputs; a file without any is one signature, under the names of tensors."""
    found: dict[str, tuple[Run, Mapping[str, Any], Mapping[str, Any]]] = {}
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        found[key] = (runner, runner.get_input_details(), runner.get_output_details())
    return found or {DEFAULT: _whole(interpreter)}


def _whole(interpreter: Any) -> tuple[Run, Mapping[str, Any], Mapping[str, Any]]:
    inputs, outputs = _by_name(interpreter.get_input_details(), "input"), _by_name(interpreter.get_output_details(), "output")

    def run(**feeds: Array) -> Mapping[str, Array]:
        for name, array in feeds.items():
            interpreter.resize_tensor_input(inputs[name]["index"], array.shape)
        interpreter.allocate_tensors()
        for name, array in feeds.items():
            interpreter.set_tensor(inputs[name]["index"], array)
        interpreter.invoke()
        return {name: interpreter.get_tensor(details["index"]) for name, details in outputs.items()}

    return run, inputs, outputs


def _by_name(details: list[Any], kind: str) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for index, each in enumerate(details):
        name = each["name"] if each["name"] and each["name"] not in named else f"{kind}_{index}"
        named[name] = each
    return named


def _port(name: str, details: Mapping[str, Any], model: str, floats: bool, resized: bool) -> _Port:
    dtype: np.dtype[Any] = np.dtype(details["dtype"])
    datatype: Datatype | None = BF16 if dtype.name == "bfloat16" else datatype_of(dtype)
    if datatype is None:
        raise ServingError(
            Kind.UNSUPPORTED, f"the tensor '{name}' of model '{model}' has the type {dtype}, which cannot be sent", what="model"
        )
    shape = tuple(int(size) for size in details["shape_signature"])
    if resized and shape[:1] == (1,):
        shape = (-1, *shape[1:])
    scales = details["quantization_parameters"]["scales"]
    scale = float(scales[0]) if floats and datatype.kind in ("int", "uint") and len(scales) == 1 else 0.0
    zero = int(details["quantization_parameters"]["zero_points"][0]) if scale else 0
    return _Port(TensorSpec(name, FP32 if scale else datatype, shape, native=details["name"]), dtype, scale, zero)
