"""Dragoman's own small API: a function `predict`, or a class with `predict` and, if it likes, `setup` and `close`. Hints say what goes in and out.

One row at a time, or a batch for `@dragoman.batched`; a generator streams. Functions of arrays are in python_arrays.py. Called by python.py.
"""

import inspect
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, is_dataclass
from types import ModuleType
from typing import Any

import numpy as np

from dragoman.core.authoring import MARK
from dragoman.core.columns import WrongColumnError
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.tensors import Blob, Form, Rows, Signature, Value
from dragoman.core.values import normalise
from dragoman.runtimes.python_arrays import ArrayModel, takes_arrays
from dragoman.runtimes.python_hints import (
    NOTHING,
    SCRATCH,
    Hint,
    default_of,
    fields_of,
    file_value,
    hint_of,
    item_of,
    needed,
    streamed,
    unaliased,
)
from dragoman.runtimes.python_parts import batches, closed, guarded, pieces, rows_of, wrong_number

UNNAMED = "output"
Predict = Callable[..., Any]


def load_plain(spec: ModelSpec, module: ModuleType, file: str, wanted: str, size: int | None) -> Model:
    """The model that a module declares. Runs user code (constructor, setup); raises INVALID_INPUT for a predict that cannot be served."""
    owner = _owner(spec.name, module, file, wanted)
    predict: Any = owner.predict
    declared = getattr(owner, "signature", None)
    batch = getattr(predict, MARK, None)
    parameters = _parameters(predict, spec.name)
    hints = _hints(predict, spec.name)
    if batch is not None and size is not None:
        batch = size
    if isinstance(declared, Signature) or takes_arrays(parameters, hints):
        if isinstance(declared, Signature) and declared.form is not Form.TENSORS:
            raise invalid(f"the signature of model '{spec.name}' must be of tensors; rows are described by type hints", what="model")
        _set_up(owner, module)
        return ArrayModel(spec, predict, parameters, hints, declared, batch, _closer(owner, module))
    shape = _describe(spec.name, predict, parameters, hints, batched=batch is not None)
    _set_up(owner, module)
    return PlainModel(spec.name, predict, shape, batch, _closer(owner, module))


# --- finding it ---


def _owner(model: str, module: ModuleType, file: str, wanted: str) -> Any:
    """The object whose `predict` is the model: the module itself, or an instance of its only suitable class."""
    classes = {
        name: each
        for name, each in vars(module).items()
        if isinstance(each, type) and each.__module__ == module.__name__ and callable(getattr(each, "predict", None))
    }
    if wanted:
        chosen = classes.get(wanted)
        if chosen is None:
            have = f"has {', '.join(repr(name) for name in classes)}" if classes else "has none"
            raise invalid(f"'{file}' of model '{model}' has no class '{wanted}' with a predict; it {have}", what="model")
        return chosen()
    public = {name: each for name, each in classes.items() if not name.startswith("_")}
    if inspect.isroutine(getattr(module, "predict", None)):
        return module
    if not public:
        raise invalid(
            f"'{file}' of model '{model}' declares no model: it has neither a function predict nor a class with one", what="model"
        )
    if len(public) > 1:
        names = ", ".join(f"'{name}'" for name in public)
        how = f"say which: dragoman serve {file}:{next(iter(public))}, or dragoman build with -c"
        raise invalid(f"'{file}' of model '{model}' has several classes with a predict: {names}; {how}", what="model")
    return next(iter(public.values()))()


def _set_up(owner: Any, module: ModuleType) -> None:
    setup = getattr(owner, "setup", None)
    if owner is not module and setup is not None:
        setup()


def _closer(owner: Any, module: ModuleType) -> Callable[[], Any] | None:
    return getattr(owner, "close", None) if owner is not module else None


def _parameters(predict: Predict, model: str) -> Mapping[str, inspect.Parameter]:
    if inspect.iscoroutinefunction(predict) or inspect.isasyncgenfunction(predict):
        raise invalid(f"predict of model '{model}' is async; a model runs in a process of its own and may simply block", what="model")
    parameters = inspect.signature(predict).parameters
    for name, each in parameters.items():
        if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            raise invalid(f"predict of model '{model}' has the parameter '{each}'; every input needs a name of its own", what="model")
        if not name.isascii():
            raise invalid(f"predict of model '{model}' has the parameter '{name}'; names of inputs are ASCII", what="model")
    if not parameters:
        raise invalid(f"predict of model '{model}' has no parameters, so nothing could be sent to it", what="model")
    return parameters


def _hints(predict: Predict, model: str) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(predict, include_extras=True)
    except NameError as error:
        raise invalid(f"the type hints of predict of model '{model}' cannot be read: {error}", what="model") from error


# --- describing it ---


@dataclass(frozen=True, slots=True)
class Shape:
    """What predict takes and gives. `outputs` is None where the return hint names no fields: then `single` is the only one."""

    inputs: Mapping[str, Hint]
    options: tuple[str, ...]
    nulls: tuple[str, ...]
    """Options that have no default of their own: None is passed for them."""
    single: Hint | None
    outputs: Mapping[str, Hint] | None
    streams: bool
    signature: Signature


def _describe(
    model: str, predict: Predict, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any], *, batched: bool
) -> Shape:
    where = f"of predict of model '{model}'"
    inputs: dict[str, Hint] = {}
    for name, each in parameters.items():
        annotation = hints.get(name, NOTHING)
        place = f"the parameter '{name}' {where}"
        if batched and each.default is NOTHING:
            annotation = item_of(annotation, place)
        found = hint_of(annotation, place)
        shown = None if each.default is NOTHING else default_of(each.default)
        inputs[name] = found if shown is None else _with_default(found, shown)
    streams = inspect.isgeneratorfunction(predict)
    if streams and batched:
        raise invalid(f"predict of model '{model}' yields, so it answers one row at a time and cannot be batched", what="model")
    returns = hints.get("return", NOTHING)
    place = f"the answer {where}"
    if streams:
        returns = streamed(returns)
    elif batched:
        returns = item_of(returns, place)
    single, outputs, needs = _outputs(returns, place, whole=streams)
    nulls = () if batched else tuple(n for n, each in parameters.items() if each.default is NOTHING and "nullable" in inputs[n].schema)
    options = tuple(name for name, each in parameters.items() if each.default is not NOTHING or name in nulls)
    fields = outputs if outputs is not None else {UNNAMED: single} if single is not None else {}
    signature = Signature(
        Form.ROWS,
        tuple(hint.tensor(name, optional=name in options) for name, hint in inputs.items()),
        tuple(hint.tensor(name) for name, hint in fields.items()) if needs == frozenset(fields) else (),
        batch=True,
        options=options,
        input_schema=_object(inputs, frozenset(inputs) - frozenset(options)),
        output_schema=_object(fields, needs) if fields else {"type": "object"},
        input_files=_files(inputs),
        output_files=_files(fields),
    )
    return Shape(inputs, options, nulls, single, outputs, streams, signature)


def _with_default(hint: Hint, default: Any) -> Hint:
    return Hint(hint.schema | {"default": default}, hint.datatype, hint.shape, hint.files, hint.read, hint.array)


def _outputs(annotation: Any, where: str, *, whole: bool) -> tuple[Hint | None, dict[str, Hint] | None, frozenset[str]]:
    """The one unnamed output or the named ones, and which of them are always there."""
    plain = annotation
    while typing.get_origin(plain := unaliased(plain)) is typing.Annotated:
        plain = typing.get_args(plain)[0]
    if whole:  # pieces of text are joined, all others listed
        return hint_of(annotation if plain is str else list[annotation], where), None, frozenset({UNNAMED})
    if typing.is_typeddict(plain) or (is_dataclass(plain) and plain is not Blob):
        return None, fields_of(plain, where), needed(plain)
    if plain in (NOTHING, Any, dict, object) or typing.get_origin(plain) in (dict, Mapping):
        return None, None, frozenset()
    return hint_of(annotation, where), None, frozenset({UNNAMED})


def _object(fields: Mapping[str, Hint], required: frozenset[str]) -> dict[str, Any]:
    described = {"type": "object", "properties": {name: hint.schema for name, hint in fields.items()}}
    return described | ({"required": [name for name in fields if name in required]} if required else {})


def _files(fields: Mapping[str, Hint]) -> dict[str, str]:
    return {f"{name}.{place}" if place else name: kind for name, hint in fields.items() for place, kind in hint.files.items()}


# --- running it ---


class PlainModel:
    """A Model of rows."""

    platform = "python"
    concurrent = False

    def __init__(self, name: str, predict: Predict, shape: Shape, batch: int | None, closer: Callable[[], Any] | None) -> None:
        self._name = name
        self._predict: Predict | None = predict
        self._shape = shape
        self._batched = batch is not None
        self._close = closer
        self.batch_size = batch or 1
        """How many rows a batch may have: what its author says, unless an argument said otherwise."""
        self.signatures: Mapping[str, Signature] = {"": shape.signature}
        self.operations = frozenset({"predict"})
        self.streams = shape.streams
        """Whether `stream` gives more than `predict` does."""

    def predict(self, call: Call) -> Rows:
        made: list[Value] = []
        with self._scratch():
            for batch in batches(rows_of(call, self._name), self._shape.options if self._batched else (), self.batch_size):
                made += self._batch(batch) if self._batched else [self._one(row) for row in batch]
        return Rows(made)

    def stream(self, call: Call) -> Iterator[Rows]:
        """The pieces of the answer to one row, as they come; one piece for a predict that does not yield."""
        rows = rows_of(call, self._name)
        if not self._shape.streams or len(rows) != 1:
            yield self.predict(call)
            return
        with self._scratch():
            silent = True
            for piece in self._pieces(rows[0]):
                silent = False
                yield Rows([{UNNAMED: piece}])
            if silent and self._texts():
                yield Rows([{UNNAMED: ""}])

    def close(self) -> None:
        """Forget the model; its own `close` is called once."""
        predict, self._predict = self._predict, None
        if predict is not None and self._close is not None:
            self._close()
        self._close = None

    @contextmanager
    def _scratch(self) -> Iterator[None]:
        """A folder for the files of one call, where it may have any."""
        if not self._shape.signature.input_files:
            yield
            return
        with tempfile.TemporaryDirectory(prefix="dragoman-", ignore_cleanup_errors=True) as folder:
            SCRATCH.set(folder)
            yield

    def _one(self, row: dict[str, Value]) -> Value:
        if self._shape.streams:
            pieces = list(self._pieces(row))
            text = all(type(piece) is str for piece in pieces) and self._texts()
            return {UNNAMED: "".join(pieces) if text else pieces}
        return self._row(guarded(self._function(), **self._arguments(row)))

    def _arguments(self, row: dict[str, Value]) -> dict[str, Any]:
        given = {name: self._read(name, row[name]) for name in self._shape.inputs if name in row}
        return dict.fromkeys(self._shape.nulls) | given if self._shape.nulls else given

    def _texts(self) -> bool:
        assert self._shape.single is not None
        return self._shape.single.schema.get("type") == "string"

    def _pieces(self, row: dict[str, Value]) -> Iterator[Value]:
        assert self._shape.single is not None
        described = self._shape.single.schema
        described = described if self._texts() else described["items"]
        with closing(pieces(self._function()(**self._arguments(row)))) as parts:
            for piece in parts:
                yield normalise(file_value(piece, described), f"output '{UNNAMED}' of model '{self._name}'")

    def _batch(self, rows: list[dict[str, Value]]) -> list[Value]:
        arguments: dict[str, Any] = {}
        for name, hint in self._shape.inputs.items():
            if name in self._shape.options:
                if name in rows[0]:
                    arguments[name] = self._read(name, rows[0][name])
            else:
                values = [self._read(name, row[name]) for row in rows]
                arguments[name] = self._joined(name, values) if hint.array else values
        answer = guarded(self._function(), **arguments)
        if not isinstance(answer, list | tuple | np.ndarray):
            raise ServingError(Kind.MODEL_FAILED, f"model '{self._name}' answered a batch with {type(answer).__name__}, expected a list")
        if len(answer) != len(rows):
            raise wrong_number(self._name, len(answer), len(rows))
        return [self._row(each) for each in answer]

    def _joined(self, name: str, values: Sequence[Any]) -> Any:
        try:
            return np.stack(values)
        except ValueError:
            raise invalid(f"input '{name}' of model '{self._name}' has arrays of different shapes in one batch") from None

    def _read(self, name: str, value: Value) -> Any:
        try:
            return self._shape.inputs[name].read(value)
        except (WrongColumnError, ValueError, TypeError, AttributeError) as error:
            raise invalid(f"input '{name}' of model '{self._name}' does not fit: {error}") from None

    def _row(self, answer: Any) -> Value:
        """One answer as a row: by the declared fields, by the keys of a dict, or as the one output."""
        outputs, single = self._shape.outputs, self._shape.single
        if single is not None:
            return {UNNAMED: normalise(file_value(answer, single.schema), f"output '{UNNAMED}' of model '{self._name}'")}
        where = f"the answer of model '{self._name}'"
        described = self._shape.signature.output_schema or {}
        value = normalise(file_value(answer, described), where)
        if outputs is None:
            return value if isinstance(value, dict) else {UNNAMED: value}
        if not isinstance(value, dict):
            raise ServingError(Kind.MODEL_FAILED, f"{where} is {type(answer).__name__}, expected its declared fields")
        for name in described.get("required", ()):
            if name not in value:
                raise ServingError(Kind.MODEL_FAILED, f"{where} lacks the output '{name}'")
        return {name: value[name] for name in outputs if name in value}

    def _function(self) -> Predict:
        if self._predict is None:
            raise closed(self._name)
        return self._predict
