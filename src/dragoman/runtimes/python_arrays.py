"""Plain Python models that take arrays: every parameter is one, or a Signature of tensors is declared. Requests are joined along axis 0 if batched.

A generator streams. Called by python_plain.py.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any

import numpy as np

from dragoman.core.checks import check
from dragoman.core.columns import WrongColumnError, column, guess
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, InferRequest, ModelSpec
from dragoman.core.tensors import BYTES, FP64, Array, Datatype, Signature, Tensor, Tensors, TensorSpec, datatype_of
from dragoman.runtimes.python_hints import NOTHING, fields_of, hint_of, streamed, unaliased
from dragoman.runtimes.python_parts import closed, guarded, pieces
from dragoman.runtimes.refusals import takes_tensors
from dragoman.runtimes.signatures import settle

UNNAMED = "output"


def takes_arrays(parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]) -> bool:
    """Whether every parameter is hinted as an array."""
    return all(_is_array(hints.get(name, NOTHING)) for name in parameters)


def _is_array(annotation: Any) -> bool:
    while typing.get_origin(annotation := unaliased(annotation)) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [each for each in typing.get_args(annotation) if each is not type(None)]
        return len(rest) == 1 and _is_array(rest[0])
    return annotation is np.ndarray or typing.get_origin(annotation) is np.ndarray


class ArrayModel:
    """A Model of tensors."""

    platform = "python"
    concurrent = False

    def __init__(
        self,
        spec: ModelSpec,
        predict: Callable[..., Any],
        parameters: Mapping[str, inspect.Parameter],
        hints: Mapping[str, Any],
        declared: Signature | None,
        batch: int | None,
        closer: Callable[[], Any] | None,
    ) -> None:
        streams = inspect.isgeneratorfunction(predict)
        own = declared if declared is not None else _signature(spec.name, parameters, hints, batched=batch is not None, streams=streams)
        if streams and (own.batch or batch is not None):
            raise invalid(f"predict of model '{spec.name}' yields, so it answers one request at a time and cannot be batched", what="model")
        unknown = [s.name for s in own.inputs if s.name not in parameters]
        if unknown:
            raise invalid(f"the signature of model '{spec.name}' has the input '{unknown[0]}', which predict does not take", what="model")
        self._name = spec.name
        self._predict: Callable[..., Any] | None = predict
        self._close = closer
        signature = settle(spec, own)
        self._signature = signature
        self.batch_size = batch or (0 if signature.batch else 1)
        """0: whatever the server's batch size is."""
        self.signatures: Mapping[str, Signature] = {"": signature}
        self.operations = frozenset({"predict"})
        self.streams = streams
        """Whether `stream` gives more than `predict` does."""

    def predict(self, call: Call) -> Tensors:
        """The answer; of a generator all its parts, along an axis before the others."""
        if not self.streams:
            return self._answered(self._asked(call), call)
        with closing(self.stream(call)) as parts:
            return self._whole(list(parts))

    def stream(self, call: Call) -> Generator[Tensors, None, None]:
        """What the generator yields, as it comes."""
        with closing(pieces(self._asked(call))) as parts:
            for piece in parts:
                # Copies: it may write its next part over this one, which waits to be sent.
                yield Tensors([Tensor(each.name, each.datatype, each.array.copy()) for each in self._answered(piece, call).items])

    def _asked(self, call: Call) -> Any:
        """What predict returns."""
        if self._predict is None:
            raise closed(self._name)
        if not isinstance(call.inputs, Tensors):
            raise takes_tensors(self._name)
        check(InferRequest(call.inputs, outputs=call.outputs), self._signature, self._name)
        return guarded(self._predict, **{t.name: t.array for t in call.inputs.items})

    def _answered(self, answer: Any, call: Call) -> Tensors:
        tensors = self._tensors(answer)
        return Tensors(tensors if not call.outputs else self._wanted(tensors, call.outputs))

    def _whole(self, parts: list[Tensors]) -> Tensors:
        if not parts:
            return Tensors([_nothing(spec) for spec in self._signature.outputs])
        joined = []
        for tensor in parts[0].items:
            same = [part.get(tensor.name) for part in parts]
            arrays = [each.array for each in same if each is not None and each.datatype is tensor.datatype]
            if len(arrays) < len(parts) or any(array.shape != tensor.array.shape for array in arrays):
                raise ServingError(
                    Kind.MODEL_FAILED,
                    f"model '{self._name}' yielded parts whose output '{tensor.name}' differs in shape or datatype: ask for a stream of them",
                )
            joined.append(Tensor(tensor.name, tensor.datatype, np.stack(arrays)))
        return Tensors(joined)

    def close(self) -> None:
        """Forget the model; its own `close` is called once."""
        predict, self._predict = self._predict, None
        if predict is not None and self._close is not None:
            self._close()
        self._close = None

    def _tensors(self, answer: Any) -> list[Tensor]:
        """What predict returned by name: dicts and dataclasses name their arrays, a tuple goes by the declared order."""
        specs = self._signature.outputs
        named: Mapping[str, Any]
        if isinstance(answer, Mapping):
            named = answer
        elif dataclasses.is_dataclass(answer) and not isinstance(answer, type):
            named = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
        elif isinstance(answer, tuple) and len(answer) == len(specs):
            named = {spec.name: each for spec, each in zip(specs, answer, strict=True)}
        else:
            named = {specs[0].name if len(specs) == 1 else UNNAMED: answer}
        missing = next((spec.name for spec in specs if spec.name not in named), None)
        if missing is not None:
            raise ServingError(Kind.MODEL_FAILED, f"model '{self._name}' did not answer the output '{missing}'")
        if specs:
            return [self._tensor(spec.name, named[spec.name], spec.datatype) for spec in specs]
        return [self._tensor(str(name), each, None) for name, each in named.items()]

    def _tensor(self, name: str, value: Any, datatype: Datatype | None) -> Tensor:
        array: Array = np.asarray(value)
        found = datatype or datatype_of(array.dtype)
        if array.dtype.kind in "OSU" or found is BYTES:
            try:
                values = array.ravel().tolist()
                return Tensor(name, found := datatype or guess(values), column(values, found).reshape(array.shape))
            except WrongColumnError as error:
                raise ServingError(Kind.MODEL_FAILED, f"output '{name}' of model '{self._name}': {error}") from None
        if found is None or not np.can_cast(array.dtype, found.numpy, "same_kind"):
            raise ServingError(
                Kind.MODEL_FAILED,
                f"output '{name}' of model '{self._name}' is an array of {array.dtype}, expected {found or 'a datatype of the protocol'}",
            )
        made: Array = np.require(array, found.numpy, ["C", "A", "W"])
        return Tensor(name, found, made.reshape(array.shape))

    def _wanted(self, tensors: list[Tensor], names: tuple[str, ...]) -> list[Tensor]:
        have = {tensor.name for tensor in tensors}
        lacking = next((name for name in names if name not in have), None)
        if lacking is not None:
            listed = ", ".join(f"'{tensor.name}'" for tensor in tensors)
            raise ServingError(
                Kind.INVALID_INPUT, f"model '{self._name}' has no output '{lacking}'; its outputs are {listed}", what="output"
            )
        return [tensor for tensor in tensors if tensor.name in names]


def _nothing(spec: TensorSpec) -> Tensor:
    datatype = spec.datatype or FP64
    return Tensor(spec.name, datatype, np.empty([max(length, 0) for length in spec.shape or (0,)], datatype.numpy))


def _signature(
    model: str, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any], *, batched: bool, streams: bool
) -> Signature:
    where = f"of predict of model '{model}'"
    inputs = tuple(
        hint_of(hints[name], f"the parameter '{name}' {where}").tensor(name, batch=batched, optional=each.default is not NOTHING)
        for name, each in parameters.items()
    )
    returns = hints.get("return", NOTHING)
    # All parts lie along an axis before the others, and where a batch would have its first axis.
    outputs = _outputs(streamed(returns) if streams else returns, f"the answer {where}", batched=batched or streams)
    return Signature(inputs=inputs, outputs=outputs, batch=batched)


def _outputs(annotation: Any, where: str, *, batched: bool) -> tuple[TensorSpec, ...]:
    if _is_array(annotation):
        return (hint_of(annotation, where).tensor(UNNAMED, batch=batched),)
    if dataclasses.is_dataclass(annotation) or typing.is_typeddict(annotation):
        return tuple(hint.tensor(name, batch=batched) for name, hint in fields_of(annotation, where).items())
    return ()
