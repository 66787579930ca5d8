"""What exported programs and TorchScript come down to: tensors in by position, tensors out by name. Called by the PyTorch runtime."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import ModelSpec
from dragoman.core.tensors import DATATYPES, Datatype, Shape, Signature, TensorSpec

_DTYPES: Mapping[str, str] = {
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
    "float32": "FP32",
    "float64": "FP64",
    "complex64": "COMPLEX64",
    "complex128": "COMPLEX128",
}
_POSITION = re.compile(r".*__(\d{1,4})")
"""Triton's names for PyTorch's nameless tensors: INPUT__0."""


@dataclass(slots=True)
class Program:
    """A program that is ready to be called."""

    own: Signature
    order: tuple[str, ...]
    """Input names in the order of the program's flat arguments."""
    platform: str
    call: Any
    """(flat tensors, None where an optional one is absent) -> whatever the program answers."""
    outputs: tuple[str | None, ...] | None
    """Name of each answered tensor, None for what is not served; None when only the answer itself shows how many there are."""
    limits: tuple[tuple[str, int, str, int | None, int | None], ...] = ()
    """(input, axis, symbol, least, most): dimensions with one symbol must be equal."""


def export(torch: Any, program: Any, spec: ModelSpec) -> Program:
    """Signature and call of an exported program. Its own guards are left out: they cost more than a small model's run, and the signature
    and `limits` say the same."""
    specs = [s for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    constants: list[Any] = []
    inputs: list[TensorSpec] = []
    limits: list[tuple[str, int, str, int | None, int | None]] = []
    for entry in specs:
        argument = entry.arg
        if type(argument).__name__ == "ConstantArgument":
            constants.append((argument.value,))
            continue
        value = values.get(argument.name)
        if not isinstance(value, torch.Tensor):
            raise ServingError(Kind.UNSUPPORTED, f"the input '{argument.name}' of model '{spec.name}' is no tensor", what="model")
        constants.append(None)
        inputs.append(TensorSpec(argument.name, _datatype(value.dtype, argument.name, spec.name), _shape(value)))
        for axis, size in enumerate(value.shape):
            symbol = str(size)
            bounds = next((b for s, b in program.range_constraints.items() if str(s) == symbol), None)
            if not isinstance(size, int) and symbol.isidentifier():
                least = _bound(bounds, "lower")
                # the exporter assumes at least 2 where it knows nothing, and its programs take 0 and 1 all the same
                limits.append((argument.name, axis, symbol, least if least is not None and least > 2 else None, _bound(bounds, "upper")))
    outputs, names = _export_outputs(torch, program, values, spec.name)
    firsts = {str(values[t.name].shape[0]) if t.shape else "" for t in inputs}
    firsts |= {str(values[node].shape[0]) if t.shape else "" for node, t in zip(_nodes(program), outputs, strict=True) if t is not None}
    served = tuple(t for t in outputs if t is not None)
    # one and the same symbol everywhere: that is the batch
    batch = len(firsts) == 1 and next(iter(firsts)).isidentifier()
    options = {"check_guards": False} if "check_guards" in program.module.__code__.co_varnames else {}
    forward = program.module(**options).forward
    in_spec = program.call_spec.in_spec
    unflatten = torch.utils._pytree.tree_unflatten  # noqa: SLF001 # the exporter's own way to put nested arguments together

    def run(flat: Sequence[Any]) -> Any:
        tensors = iter(flat)
        args, kwargs = unflatten([next(tensors) if constant is None else constant[0] for constant in constants], in_spec)
        return forward(*args, **kwargs)

    own = Signature(inputs=tuple(inputs), outputs=served, batch=batch)
    return Program(own, tuple(t.name for t in inputs), "pytorch_export", run, names, tuple(limits))


def _nodes(program: Any) -> list[str]:
    """The graph's names of what it answers."""
    return [str(s.arg.name if hasattr(s.arg, "name") else "") for s in program.graph_signature.output_specs if s.kind.name == "USER_OUTPUT"]


def _export_outputs(
    torch: Any, program: Any, values: Mapping[str, Any], model: str
) -> tuple[list[TensorSpec | None], tuple[str | None, ...]]:
    paths = _paths(program.call_spec.out_spec)
    specs: list[TensorSpec | None] = []
    for path, node in zip(paths, _nodes(program), strict=True):
        value = values.get(node)
        specs.append(TensorSpec(path, _datatype(value.dtype, path, model), _shape(value)) if isinstance(value, torch.Tensor) else None)
    if not any(specs):
        raise ServingError(Kind.UNSUPPORTED, f"model '{model}' answers no tensor", what="model")
    return specs, tuple(t.name if t is not None else None for t in specs)


def _paths(spec: Any, prefix: str = "") -> list[str]:
    """A name for each leaf of the answer: keys and positions joined; "output" when it is all there is, positions alone after "output"."""
    children = spec.children() if callable(getattr(spec, "children", None)) else spec.children_specs
    if spec.is_leaf():
        return [prefix or "output"]
    keys = spec.context if spec.type is dict and isinstance(spec.context, list) else range(len(children))
    start = prefix or ("" if spec.type is dict else "output")
    names = [name for key, child in zip(keys, children, strict=True) for name in _paths(child, f"{start}_{key}" if start else str(key))]
    return names if len(set(names)) == len(names) else [f"output_{index}" for index in range(len(names))]


def _bound(bounds: Any, side: str) -> int | None:
    try:
        return int(getattr(bounds, side))
    except (AttributeError, TypeError, ValueError, OverflowError):  # unbounded
        return None


def script(module: Any, spec: ModelSpec) -> Program:
    """TorchScript knows how many tensors come and go, and nothing else: names are its arguments' or the configuration's."""
    arguments = module.forward.schema.arguments[1:]
    taken: list[Any] = []
    for argument in arguments:
        kind = str(argument.type)
        if kind in ("Tensor", "Optional[Tensor]"):
            taken.append(argument)
        elif not argument.has_default_value():
            raise ServingError(
                Kind.UNSUPPORTED, f"the input '{argument.name}' of model '{spec.name}' is of type {kind}, expected a Tensor", what="model"
            )
        else:
            break  # it and what follows keep their defaults
    declared = spec.signature
    names = _assigned([t.name for t in declared.inputs] if declared else [], [a.name for a in taken], spec.name)
    inputs = tuple(
        TensorSpec(name, None, None, optional=a.has_default_value() or str(a.type) != "Tensor", native=a.name)
        for name, a in zip(names, taken, strict=True)
    )
    count = _answers(module.forward.schema.returns)
    wishes = [t.name for t in declared.outputs] if declared else []
    outputs: tuple[str, ...] | None = None
    if count is not None:
        outputs = tuple(_assigned(wishes, ["output"] if count == 1 else [f"output_{index}" for index in range(count)], spec.name))
    own = Signature(inputs=inputs, outputs=tuple(TensorSpec(name, None, None) for name in (outputs if outputs is not None else wishes)))
    optional = [a.has_default_value() for a in taken]

    def run(flat: Sequence[Any]) -> Any:
        present = list(flat)
        while present and present[-1] is None and optional[len(present) - 1]:
            present.pop()
        return module(*present)

    return Program(own, names, "pytorch_torchscript", run, outputs)


def _answers(returns: Sequence[Any]) -> int | None:
    """How many tensors a TorchScript program answers; None when only its answer shows it."""
    kind = str(returns[0].type)
    if kind == "Tensor":
        return 1
    elements = returns[0].type.elements() if kind.startswith(("(", "Tuple")) else []
    return len(elements) if elements and all(str(e) == "Tensor" for e in elements) else None


def _assigned(wishes: list[str], own: list[str], model: str) -> tuple[str, ...]:
    """Own names replaced by declared ones: the same names, else by the number at their end (INPUT__0), else by position."""
    if not wishes or set(wishes) <= set(own):
        return tuple(own)
    numbered = [_POSITION.fullmatch(name) for name in wishes]
    if all(match is not None and int(match[1]) < len(own) for match in numbered):
        names = list(own)
        for name, match in zip(wishes, numbered, strict=True):
            names[int(match[1]) if match is not None else 0] = name
        return tuple(names)
    if len(wishes) == len(own):
        return tuple(wishes)
    raise invalid(
        f"the configuration of model '{model}' names {', '.join(wishes)}, but the program has {', '.join(own)}: use its names, or names that end "
        "in __ and a position",
        what="model",
    )


def _datatype(dtype: Any, name: str, model: str) -> Datatype:
    known = _DTYPES.get(str(dtype).removeprefix("torch."))
    if known is None:
        raise ServingError(
            Kind.UNSUPPORTED, f"the tensor '{name}' of model '{model}' has the type {dtype}, which has no datatype", what="model"
        )
    return DATATYPES[known]


def _shape(value: Any) -> Shape:
    return tuple(size if isinstance(size, int) else -1 for size in value.shape)
