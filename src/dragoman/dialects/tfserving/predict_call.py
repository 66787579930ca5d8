"""The Predict call's own messages, which carry tensors and are therefore read and written as bytes. Called by grpc.py."""

from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.core.errors import ServingError, invalid
from dragoman.core.tensors import Signature, Tensor
from dragoman.dialects.tfserving import calls, messages, tensor_proto
from dragoman.proto import wire
from dragoman.proto.messages import new
from dragoman.proto.wire import LENGTH, Buffer, tag
from dragoman.serving.gateway import Entry

_SPEC, _INPUT, _FILTER = (tag(field, LENGTH) for field in (1, 2, 3))
_KEY, _VALUE = tag(1, LENGTH), tag(2, LENGTH)


def read(message: bytes) -> tuple[Any, dict[str, Buffer], list[str]]:
    """The ModelSpec, the serialized tensors by name, and the names of the wanted outputs (none for all)."""
    specs: list[Buffer] = []
    inputs: dict[str, Buffer] = {}
    wanted: list[str] = []
    for field, value in wire.fields(message):
        if field == _INPUT:
            name, tensor = "", b""
            for inner, content in wire.fields(value):
                if inner == _KEY:
                    name = wire.text(content, "the name of an input")
                elif inner == _VALUE:
                    tensor = content
            inputs[name] = tensor
        elif field == _SPEC:
            specs.append(value)
        elif field == _FILTER:
            wanted.append(wire.text(value, "the name of an output"))
    return calls.read("ModelSpec", b"".join(specs)), inputs, wanted


def write(entry: Entry, key: str, outputs: Sequence[Tensor]) -> bytes:
    """The answer of a version, by the signature of this key."""
    parts: list[Buffer] = []
    for tensor in outputs:
        named: list[Buffer] = []
        wire.put(named, 1, tensor.name.encode("utf-8", "replace"))  # keys of rows are names, too
        wire.nest(named, 2, tensor_proto.encode(tensor))
        wire.nest(parts, 1, named)
    spec: Any = new(f"{calls.PACKAGE}.ModelSpec")
    calls.tell(spec, entry, key)
    wire.put(parts, 2, spec.SerializeToString())
    return b"".join(parts)


# --- what is asked for, and what there is ---


def check_inputs(inputs: Mapping[str, Buffer], signature: Signature) -> None:
    """The inputs are those of the signature, but for optional ones. Models that declare none take what comes."""
    declared = signature.input_by_name
    if not declared:
        return
    extra = sorted(set(inputs) - declared.keys())
    missing = sorted(spec.name for spec in signature.inputs if spec.name not in inputs and not spec.optional)
    if extra or missing:
        raise invalid(
            f"input size does not match signature: {len(inputs)}!={len(declared)} len({_names(inputs)}) != len({_names(declared)}). "
            f"Sent extra: {_names(extra)}. Missing but required: {_names(missing)}."
        )


def check_outputs(wanted: Sequence[str], signature: Signature) -> None:
    seen: set[str] = set()
    for name in wanted:
        if signature.outputs and name not in signature.output_by_name:
            raise _no_output(name, signature.output_by_name)
        if name in seen:
            raise invalid(f"duplicate output tensor alias: {messages.cut(name)}", "output")
        seen.add(name)


def chosen(outputs: Sequence[Tensor], wanted: Sequence[str]) -> list[Tensor]:
    """The wanted outputs; of a model that declares none it is known only now which it has."""
    have = {tensor.name: tensor for tensor in outputs}
    for name in wanted:
        if name not in have:
            raise _no_output(name, have)
    return [have[name] for name in wanted]


def _no_output(name: str, have: Mapping[str, object]) -> ServingError:
    return invalid(
        f"output tensor alias not found in signature: {messages.cut(name)} Outputs expected to be in the set {_names(have)}.", "output"
    )


def _names(names: Mapping[str, object] | Sequence[str]) -> str:
    return "{" + messages.cut(",".join(sorted(names))) + "}"
