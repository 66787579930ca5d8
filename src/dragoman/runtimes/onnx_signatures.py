"""A folder of ONNX graphs that is one model with several signatures: its description file, and the model made of its graphs.

`dragoman convert` writes such folders, one graph per signature of a SavedModel. Called by the ONNX runtime. See docs/runtimes/onnx.md.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dragoman.core.artifacts import SIGNATURES_KEY
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.tensors import Rows, Signature, Tensor, Tensors, TensorSpec
from dragoman.runtimes.refusals import no_input, no_output, no_signature
from dragoman.runtimes.signatures import settle

FORMAT = 1
_LARGEST_FILE = 1 << 20
_MOST_SIGNATURES = 64


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a signature: the tensor of the graph that it is, and the name that metadata shows for it ("" for none)."""

    tensor: str
    native: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """One signature: its file, its method, and its inputs and outputs by their names; without any, those of the graph."""

    path: Path
    method: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]


def read(path: Path, model: str) -> tuple[str, dict[str, Graph]]:
    """The name of the default signature, and every signature by its name. Raises INVALID_INPUT, naming file and key, for anything else.

    Files that a signature names lie inside the folder of the description; links that lead out of it are refused.
    """
    what = f"the file '{path.name}' of model '{model}'"
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise invalid(f"{what} has more than {_LARGEST_FILE} bytes", what="model")
    try:
        described: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise invalid(f"{what} is damaged: it is not JSON", what="model") from None
    if not isinstance(described, dict) or described.get(SIGNATURES_KEY) != FORMAT:
        raise invalid(f"{what}: expected an object with {SIGNATURES_KEY!r}: {FORMAT}", what="model")
    entries = _object(described.get("signatures"), f"{what}: 'signatures'")
    if not 0 < len(entries) <= _MOST_SIGNATURES:
        raise invalid(f"{what}: 'signatures' has {len(entries)} entries, expected 1 to {_MOST_SIGNATURES}", what="model")
    graphs = {}
    for name, entry in entries.items():
        place = f"{what}: signature '{name[:100]}'"
        if not name or name.startswith("@"):  # other operations of a model go by such names
            raise invalid(f"{place} must be called something that does not begin with '@'", what="model")
        entry = _object(entry, place)
        graphs[name] = Graph(
            _inside(path.parent, _text(entry, "file", place), place),
            _text(entry, "method", place, default=""),
            _ports(entry, "inputs", place),
            _ports(entry, "outputs", place),
        )
    default = _text(described, "default", what, default=next(iter(graphs)))
    if default not in graphs:
        raise invalid(f"{what}: 'default' is '{default[:100]}', which is none of its signatures", what="model")
    return default, graphs


def load(path: Path, spec: ModelSpec, open_graph: Callable[[Path, ModelSpec], Model]) -> Model:
    """Open every graph. What a configuration declares is about the default signature. Raises what `read` and `open_graph` raise."""
    default, graphs = read(path, spec.name)
    parts: dict[str, _Part] = {}
    with ExitStack() as stack:
        for name, graph in graphs.items():
            model = open_graph(graph.path, replace(spec, signature=None))
            stack.callback(model.close)
            signature = _signature(graph, model.signatures[""], f"signature '{name}' of model '{spec.name}'")
            parts[name] = _Part(model, settle(spec, signature) if name == default else signature, graph)
        stack.pop_all()
    return SignaturesModel(spec.name, default, parts)


class _Part:
    """One graph behind one signature."""

    def __init__(self, model: Model, signature: Signature, graph: Graph) -> None:
        self.model = model
        self.signature = signature
        own = model.signatures[""]
        self.inputs = {t.name: _tensor(graph.inputs, t.name) for t in signature.inputs}
        self.outputs = {t.name: _tensor(graph.outputs, t.name) for t in signature.outputs}
        named_alike = all(name == tensor for name, tensor in (*self.inputs.items(), *self.outputs.items()))
        self.same = named_alike and list(self.outputs) == [t.name for t in own.outputs]
        """Whether calls can go to the graph as they come."""


class SignaturesModel:
    """Several graphs as one model: each call goes to the graph of its signature, under that graph's names."""

    operations = frozenset({"predict"})

    def __init__(self, name: str, default: str, parts: Mapping[str, _Part]) -> None:
        self._name = name
        self._parts = {"": parts[default], **parts}
        self.signatures: Mapping[str, Signature] = {key: part.signature for key, part in self._parts.items()}
        self.platform = parts[default].model.platform
        self.concurrent = all(part.model.concurrent for part in parts.values())

    def predict(self, call: Call) -> Tensors | Rows:
        part = self._parts.get(call.signature)
        if part is None:
            raise no_signature(self._name, call.signature)
        if part.same or isinstance(call.inputs, Rows):
            return part.model.predict(Call(call.inputs, outputs=call.outputs))
        for name in call.outputs:
            if name not in part.outputs:
                raise no_output(self._name, name)
        inputs = []
        for tensor in call.inputs.items:
            if tensor.name not in part.inputs:
                raise no_input(self._name, tensor.name)
            inputs.append(Tensor(part.inputs[tensor.name], tensor.datatype, tensor.array))
        wanted = [name for name in part.outputs if not call.outputs or name in call.outputs]
        tensors = tuple(dict.fromkeys(part.outputs[name] for name in wanted))
        answer = part.model.predict(Call(Tensors(inputs), outputs=tensors))
        assert isinstance(answer, Tensors)
        found = {tensor.name: tensor for tensor in answer.items}
        return Tensors([Tensor(name, found[part.outputs[name]].datatype, found[part.outputs[name]].array) for name in wanted])

    def close(self) -> None:
        for part in self._parts.values():
            part.model.close()


def _signature(graph: Graph, own: Signature, what: str) -> Signature:
    """The graph's own signature under the names of the description. Raises INVALID_INPUT for a tensor that one of them lacks."""
    inputs = _specs(graph.inputs, own.input_by_name, f"{what}: the input")
    outputs = _specs(graph.outputs, own.output_by_name, f"{what}: the output")
    named = {port.tensor for port in graph.inputs.values()}
    left = [t.name for t in own.inputs if not t.optional and t.name not in named] if named else []
    if left:
        raise invalid(f"{what} does not name the input '{left[0]}', which its graph needs", what="model")
    return replace(own, inputs=inputs, outputs=outputs, method=graph.method)


def _specs(ports: Mapping[str, Port], own: Mapping[str, TensorSpec], what: str) -> tuple[TensorSpec, ...]:
    if not ports:
        return tuple(own.values())
    specs = []
    for name, port in ports.items():
        if port.tensor not in own:
            raise invalid(f"{what} '{name}' is '{port.tensor}', which its graph lacks; it has {', '.join(map(repr, own))}", what="model")
        specs.append(replace(own[port.tensor], name=name, native=port.native))
    return tuple(specs)


def _tensor(ports: Mapping[str, Port], name: str) -> str:
    port = ports.get(name)
    return name if port is None else port.tensor


def _ports(entry: Mapping[str, Any], key: str, place: str) -> dict[str, Port]:
    ports = {}
    for name, value in _object(entry.get(key, {}), f"{place}: '{key}'").items():
        where = f"{place}: '{key}': '{name[:100]}'"
        port = _object(value, where)
        ports[name] = Port(_text(port, "tensor", where, default=name), _text(port, "native", where, default=""))
    if key == "inputs" and len({port.tensor for port in ports.values()}) < len(ports):
        raise invalid(f"{place}: two inputs are the same tensor of the graph", what="model")
    return ports


def _inside(folder: Path, relative: str, place: str) -> Path:
    path = Path(relative)
    try:
        inside = not path.is_absolute() and ".." not in path.parts and (folder / path).resolve().is_relative_to(folder.resolve())
        if inside and (folder / path).is_file():
            return folder / path
    except (OSError, RuntimeError, ValueError):  # links in a circle, names that no file can have
        inside = True
    if not inside:
        raise invalid(f"{place}: 'file' leads out of the model's folder", what="model")
    raise ServingError(Kind.NOT_FOUND, f"{place}: the file '{relative[:200]}' does not exist", what="model")


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"{what}: expected an object", what="model")
    return value


def _text(entry: Mapping[str, Any], key: str, what: str, default: str | None = None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str) or (default is None and not value):
        raise invalid(f"{what}: expected a text as '{key}'", what="model")
    return value
