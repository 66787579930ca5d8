"""PyTorch models: exported programs (.pt2) and TorchScript (.pt): load(spec) -> Model. See docs/runtimes/torch.md.

Which files are opened at all is decided in torch_archive.py.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from dragoman.core.artifacts import locate
from dragoman.core.checks import fits
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.plugins import missing
from dragoman.core.tensors import BF16, Array, Datatype, Rows, Signature, Tensor, Tensors, datatype_of
from dragoman.runtimes import memory, notices, torch_programs
from dragoman.runtimes.options import Options
from dragoman.runtimes.refusals import needs_input, no_input, no_output, takes_tensors
from dragoman.runtimes.signatures import settle
from dragoman.runtimes.torch_archive import Format, examine
from dragoman.runtimes.torch_programs import Program

log = logging.getLogger("dragoman.runtimes.torch")


def load(spec: ModelSpec) -> Model:
    """Open the program. Raises ServingError when it cannot be served, with the reason."""
    path = locate(spec.artifact, "torch", spec.name)
    try:
        import torch
    except ImportError as error:
        raise missing("torch", "torch", error) from error
    options = Options(spec)
    device = _device(torch, options.text("device").lower(), spec.name)
    _set_threads(torch, options, spec.name)
    kind = examine(path, spec.name, trusted=options.boolean("trust_pickle") or False)
    try:
        if kind is Format.SCRIPT:
            with notices.logged(spec.name, ignore=DeprecationWarning):  # TorchScript's end is announced to its authors, not to operators
                module = torch.jit.load(str(path), map_location=device)
            return TorchModel(torch, torch_programs.script(module.eval(), spec), spec, device)
        with notices.logged(spec.name, ignore=DeprecationWarning):
            program = torch.export.load(path)
            if device.type != "cpu":
                program = torch.export.passes.move_to_device_pass(program, device)
        return TorchModel(torch, torch_programs.export(torch, program, spec), spec, device)
    except ServingError:
        raise
    except Exception as error:  # the readers of both formats raise anything for a file that they do not understand
        raise invalid(
            f"PyTorch {torch.__version__} cannot open '{path.name}' of model '{spec.name}': {_line(error)}", what="model"
        ) from error


class TorchModel:
    """One program and what is prepared for its calls."""

    operations = frozenset({"predict"})
    concurrent = False  # a program may write into its own buffers

    def __init__(self, torch: Any, program: Program, spec: ModelSpec, device: Any) -> None:
        self._torch = torch
        self._name = spec.name
        self._device = device
        self._program: Program | None = program
        self.platform = program.platform
        self.signature = settle(spec, program.own)
        self.signatures: Mapping[str, Signature] = {"": self.signature}
        # Where the caller chooses dimensions or datatypes, what an operator cannot work with is the caller's fault; otherwise the model's.
        self._open = any(t.datatype is None or t.shape is None or -1 in t.shape[1:] for t in self.signature.inputs)

    def predict(self, call: Call) -> Tensors:
        program, torch = self._program, self._torch
        if program is None:
            raise ServingError(Kind.UNAVAILABLE, f"model '{self._name}' is closed", what="model")
        flat = self._arguments(program, call.inputs)
        try:
            with torch.inference_mode():
                answer = program.call(flat)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if self._open:
                raise invalid(f"model '{self._name}' refused the input: {_line(error)}") from error
            raise
        named = self._named(program, answer)
        served = self.signature.output_by_name
        for name in call.outputs:
            if name not in named:
                raise no_output(self._name, name)
        wanted = call.outputs or (served or named)
        return Tensors([Tensor(name, *_from_torch(torch, tensor)) for name, tensor in named.items() if name in wanted])

    def close(self) -> None:
        if self._program is not None:
            self._program = None
            memory.release(cycles=True)  # graphs refer to themselves
            if self._device.type == "cuda":
                self._torch.cuda.empty_cache()

    def _arguments(self, program: Program, inputs: Tensors | Rows) -> list[Any]:
        if isinstance(inputs, Rows):
            raise takes_tensors(self._name)
        given = {t.name: t for t in inputs.items}
        declared = self.signature.input_by_name
        for name in given:
            if name not in declared:
                raise no_input(self._name, name)
        flat: list[Any] = []
        for name in program.order:
            tensor, spec = given.get(name), declared.get(name)
            if tensor is None:
                if spec is not None and not spec.optional:
                    raise needs_input(self._name, name)
                flat.append(None)
                continue
            shape = tensor.array.shape
            assert spec is not None
            if spec.datatype is not None and tensor.datatype is not spec.datatype:
                raise invalid(f"input '{name}' of model '{self._name}' has datatype {tensor.datatype}, expected {spec.datatype}")
            if spec.shape is not None and not fits(shape, spec.shape):
                raise invalid(f"input '{name}' of model '{self._name}' has shape {list(shape)}, expected {list(spec.shape)}")
            flat.append(_to_torch(self._torch, tensor, self._device, self._name))
        if program.limits:
            self._check_limits(program, given)
        return flat

    def _check_limits(self, program: Program, given: Mapping[str, Tensor]) -> None:
        sizes: dict[str, int] = {}
        for name, axis, symbol, least, most in program.limits:
            if name not in given:
                continue
            size = given[name].array.shape[axis]
            if (least is not None and size < least) or (most is not None and size > most):
                bounds = f"at least {least}" if most is None else f"at most {most}" if least is None else f"{least} to {most}"
                raise invalid(f"dimension {axis} of input '{name}' of model '{self._name}' is {size}, expected {bounds}")
            if sizes.setdefault(symbol, size) != size:
                raise invalid(
                    f"dimension {axis} of input '{name}' of model '{self._name}' is {size}, expected {sizes[symbol]} as in another input"
                )

    @staticmethod
    def _named(program: Program, answer: Any) -> dict[str, Any]:
        if program.outputs is not None:
            leaves = _leaves(answer)
            return {name: leaf for name, leaf in zip(program.outputs, leaves, strict=True) if name is not None}
        if isinstance(answer, dict):
            return {str(name): tensor for name, tensor in answer.items()}
        return {f"output_{index}": tensor for index, tensor in enumerate(_leaves(answer))}


def _device(torch: Any, name: str, model: str) -> Any:
    kind, _, index = (name or "cpu").partition(":")
    kind = "cuda" if kind == "gpu" else kind
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(kind) or (index and not index.isdecimal()) or (kind == "cuda" and int(index or 0) >= torch.cuda.device_count()):
        there = ", ".join(device for device, present in available.items() if present)
        raise ServingError(
            Kind.UNSUPPORTED, f"model '{model}' asks for the device '{name[:50]}', but PyTorch finds only {there}", what="model"
        )
    return torch.device(f"{kind}:{index}" if index else kind)


def _set_threads(torch: Any, options: Options, model: str) -> None:
    """PyTorch has one number of threads for all models of the process, so the last wish counts."""
    wish = options.integer("threads", "intra_op_thread_count", low=1, high=1024)
    threads = wish or options.processors()
    before = torch.get_num_threads()
    if threads is None or threads == before:
        return
    torch.set_num_threads(threads)
    if wish is not None:
        log.warning("model '%s' sets PyTorch from %d to %d threads, for every PyTorch model of this process", model, before, threads)


def _to_torch(torch: Any, tensor: Tensor, device: Any, model: str) -> Any:
    if tensor.datatype.kind == "bytes":
        raise invalid(f"input '{tensor.name}' of model '{model}' has datatype BYTES, which PyTorch has no tensors of")
    array = np.require(tensor.array, requirements=["C", "W", "A"])
    moved = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if tensor.datatype is BF16 else torch.from_numpy(array)
    return moved if device.type == "cpu" else moved.to(device)


def _from_torch(torch: Any, value: Any) -> tuple[Datatype, Array]:
    if not isinstance(value, torch.Tensor):
        value = torch.as_tensor(value)
    value = value.detach().cpu().contiguous()
    if value.dtype is torch.bfloat16:
        return BF16, value.view(torch.int16).numpy().view(np.uint16)
    array: Array = value.resolve_conj().numpy()
    datatype = datatype_of(array.dtype)
    if datatype is None:
        raise TypeError(f"the model answered a tensor of {value.dtype}, which has no datatype")
    return datatype, array


def _leaves(answer: Any) -> list[Any]:
    if isinstance(answer, dict):
        return [leaf for item in answer.values() for leaf in _leaves(item)]
    if isinstance(answer, list | tuple):
        return [leaf for item in answer for leaf in _leaves(item)]
    return [answer]


def _line(error: BaseException) -> str:
    """The last line: TorchScript puts its own traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines and "TorchScript" in str(error) else (lines[0] if lines else "")
    return f"{type(error).__name__}: {text[:300]}" if not text.startswith(type(error).__name__) else text[:300]
