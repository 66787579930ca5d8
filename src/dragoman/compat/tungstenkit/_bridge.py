"""Between the server and a Tungsten model, in the model's process: what it takes and gives, rows to inputs, outputs to rows.

The Python runtime calls it, as `tungstenkit._bridge`. Errors are ServingErrors: INVALID_INPUT for a row that the input class refuses,
MODEL_FAILED for what the model did wrong; their messages name fields and no values.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import PurePath
from types import ModuleType
from typing import Any, TypeAlias, TypeGuard

from dragoman.core.errors import Kind, Problem, ServingError
from dragoman.core.tensors import Blob

from . import _scratch
from ._base import BaseIO
from ._define import defined_in
from ._errors import Fault, ValidationError, place
from ._fields import own_type
from ._files import Content, File, content_of, of_content
from ._kinds import Items, Maybe, Own, Table
from ._kinds import Kind as FieldKind
from ._masked import MaskedImage
from ._uris import OCTETS, scheme_of
from .exceptions import DownloadError

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Description:
    """What the server needs to know of a model class."""

    input_schema: dict[str, Any]
    """JSON schema of one row. A file's default is left out unless it is a data URI: a path is not the client's to see, an address not the
    server's to fetch, and the model fills it in. A field that takes null although its default is another value is "nullable"."""
    output_schema: dict[str, Any]
    demo_output_schema: dict[str, Any] | None
    options: tuple[str, ...]
    """Fields that are not required: inputs that differ in one of them are never in one batch."""
    input_files: dict[str, str]
    """Where files are and of what kind: {"photo": "image", "sketch.mask": "image"}."""
    output_files: dict[str, str]
    """{"clips.$item": "video", "inner.sound": "audio"}."""
    demo_output_files: dict[str, str]
    batch_size: int
    config: dict[str, Any]
    """Everything that define_model was given, besides the classes."""
    has_post_build: bool


def describe(model_class: type) -> Description:
    """What a decorated class declares."""
    declared: Any = model_class
    config: dict[str, Any] = dict(declared.__tungsten_config__)
    inputs: type[BaseIO] = declared.__tungsten_input__
    outputs: type[BaseIO] = declared.__tungsten_output__
    demo_outputs: type[BaseIO] = declared.__tungsten_demo_output__
    return Description(
        input_schema=_for_clients(inputs),
        output_schema=outputs.schema(),
        demo_output_schema=demo_outputs.schema(),
        options=tuple(name for name, field in inputs.__fields__.items() if not field.required),
        input_files=_files_in(inputs),
        output_files=_files_in(outputs),
        demo_output_files=_files_in(demo_outputs),
        batch_size=max(int(config["batch_size"]), 1),  # 0 may be declared, and means nothing else
        config=config,
        has_post_build=declared.__has_post_build__,
    )


def find_model(module: ModuleType, class_name: str = "") -> type:
    """The decorated class of a module: the named one, or the only one. Raises ServingError INVALID_INPUT that says what to do."""
    if class_name:
        found = getattr(module, class_name, None)
        if not _is_model(found):
            missing = "has no class" if found is None else "does not decorate with define_model:"
            raise ServingError(Kind.INVALID_INPUT, f"module '{module.__name__}' {missing} '{class_name}'", what="model")
        return found
    candidates = {id(v): v for v in vars(module).values() if _is_model(v)} or {id(c): c for c in defined_in(module.__name__)}
    own = [cls for cls in candidates.values() if cls.__module__ == module.__name__] if len(candidates) > 1 else []
    models = own if len(own) == 1 else list(candidates.values())
    if not models:
        raise ServingError(
            Kind.INVALID_INPUT, f"No defined model in module '{module.__name__}': decorate a class with define_model", what="model"
        )
    if len(models) > 1:
        names = ", ".join(sorted(cls.__name__ for cls in models))
        words = f"Multiple models are defined in module '{module.__name__}': {names}. Choose one with --model-class, or serve FILE.py:CLASS"
        raise ServingError(Kind.INVALID_INPUT, words, what="model")
    return models[0]


# --- inputs ---


class _Batch(list[BaseIO]):
    """The inputs of one batch, with the folder of their files; a model may take items out of its list."""

    scratch: _scratch.Scratch


def to_inputs(model_class: type, rows: list[Row]) -> list[BaseIO]:
    """Input objects of the model's class, one for each row, in order. Their files live until `discard` is called with this very list.

    Raises ServingError INVALID_INPUT with one problem for each fault, its path beginning with the row's index.
    """
    declared: Any = model_class
    input_class: type[BaseIO] = declared.__tungsten_input__
    batch = _Batch()
    batch.scratch = _scratch.begin()
    problems: list[Problem] = []
    try:
        for index, row in enumerate(rows):
            try:
                batch.append(input_class.parse_obj(_with_files(input_class, row)))
            except ValidationError as error:
                problems += [_problem(index, found) for found in error.errors()]
        if problems:
            words = "; ".join(f"{place(p.path)}: {p.message}" for p in problems[:3])
            raise ServingError(Kind.INVALID_INPUT, f"invalid input: {words}", problems=tuple(problems))
    except BaseException:
        _scratch.end(batch.scratch)
        raise
    return batch


def discard(inputs: list[BaseIO]) -> None:
    """Remove the files of a batch, also those that the model made by asking for a path. The outputs' rows must have been made before."""
    if isinstance(inputs, _Batch):
        _scratch.end(inputs.scratch)


def _with_files(cls: type[BaseIO], row: Mapping[str, Any]) -> Row:
    """A row with its files as objects. None stands for a value that was left out wherever None itself is none."""
    found: Row = {}
    for name, field in cls.__fields__.items():
        if name not in row or (row[name] is None and not field.required and not field.allow_none):
            continue
        value, own = row[name], own_type(field.kind)
        if own is not None and issubclass(own, File):
            value = _file(own, value, name)
        elif own is not None and issubclass(own, MaskedImage) and isinstance(value, Mapping):
            value = _with_files(own, value)
        found[name] = value
    return found


def _file(cls: type[File], value: object, name: str) -> object:
    if isinstance(value, Blob):
        return of_content(cls, Content(value.data, value.media_type or OCTETS, value.name))
    if isinstance(value, bytes):
        return of_content(cls, Content(value, OCTETS))
    if isinstance(value, str) and scheme_of(value) != "data":
        # The server has fetched or refused every address before; what is left would be read from the model's own disk.
        raise ValidationError([{"loc": (name, "__root__"), "msg": "Invalid file input", "type": "value_error"}], cls)
    return value


def _problem(index: int, found: Fault) -> Problem:
    return Problem((index, *found["loc"]), found["type"], found["msg"], {key: _shown(limit) for key, limit in found.get("ctx", {}).items()})


def _shown(limit: Any) -> Any:
    """A limit as JSON can say it: enum members by value."""
    return [_shown(item) for item in limit] if isinstance(limit, list) else limit.value if isinstance(limit, Enum) else limit


# --- outputs ---


def to_rows(model_class: type, outputs: object, expected: int, demo: bool) -> list[Row]:
    """What `predict` (or, with `demo`, `predict_demo`) returned, as checked rows. Files are read now: the next batch may overwrite them.

    A demo's row is {"output": row, "demo_output": row or None}. Raises ServingError MODEL_FAILED: no list, another length than `expected`,
    an output that its class refuses, a file that cannot be read.
    """
    declared: Any = model_class
    called = f"{model_class.__name__}.{'predict_demo' if demo else 'predict'}"
    reader = _Reader(called)
    if not demo:
        return [
            reader.row(declared.__tungsten_output__, item, f"output {i}")
            for i, item in enumerate(_items(outputs, expected, called, "outputs"))
        ]
    both = list(islice(outputs, 3)) if isinstance(outputs, Iterable) and not isinstance(outputs, BaseIO | Mapping | str) else []
    if len(both) != 2:
        raise _failed(f"{called} must return two lists: outputs and demo outputs")
    plain = _items(both[0], expected, called, "outputs")
    shown = _items(both[1], expected, called, "demo outputs")
    return [
        {
            "output": reader.row(declared.__tungsten_output__, output, f"output {i}"),
            "demo_output": None if extra is None else reader.row(declared.__tungsten_demo_output__, extra, f"demo output {i}"),
        }
        for i, (output, extra) in enumerate(zip(plain, shown, strict=True))
    ]


def _items(outputs: object, expected: int, called: str, what: str) -> list[Any]:
    if not isinstance(outputs, Iterable) or isinstance(outputs, BaseIO | File | Mapping | str | bytes):
        raise _failed(f"{called} must return a list of {what}, one for each input; it returned {type(outputs).__name__}")
    items = list(islice(outputs, expected + 1))
    if len(items) != expected:
        count = f"more than {expected}" if len(items) > expected and not hasattr(outputs, "__len__") else str(_length(outputs, items))
        raise _failed(f"{called} returned {count} {what} for {expected} inputs")
    return items


def _length(outputs: object, items: list[Any]) -> int:
    return len(outputs) if hasattr(outputs, "__len__") else len(items)


class _Reader:
    """Makes rows of one call's outputs. A file that several outputs share is read once."""

    def __init__(self, called: str) -> None:
        self._called = called
        self._read: dict[PurePath, Blob] = {}

    def row(self, cls: type[BaseIO], item: object, where: str) -> Row:
        if not isinstance(item, cls | dict):
            kinds = f"{cls.__name__} or dict"
            raise _failed(f"{self._called}: {where} must be {kinds}, not {type(item).__name__}")
        try:
            checked = cls(**(item.__dict__ if isinstance(item, BaseIO) else {str(k): v for k, v in item.items()}))
        except ValidationError as error:
            words = "; ".join(f"{place(found['loc'])}: {found['msg']}" for found in error.errors()[:5])
            raise _failed(f"{self._called}: {where} is not a valid {cls.__name__}: {words}") from error
        return self._object(checked, cls, where)

    def _object(self, value: BaseIO, cls: type[BaseIO], where: str) -> Row:
        return {name: self._value(value.__dict__[name], f"{where}, field '{name}'") for name in cls.__fields__}

    def _value(self, value: Any, where: str) -> Any:
        if isinstance(value, BaseIO):
            return self._object(value, type(value), where)
        if isinstance(value, File):
            return self._blob(value, where)
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, list):
            return [self._value(item, f"{where}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {_key(key): self._value(item, f"{where}[{key!r}]") for key, item in value.items()}
        return value

    def _blob(self, file: File, where: str) -> Blob:
        local = file.path if scheme_of(file.__root__[:8]) == "file" else None
        if local is not None and local in self._read:
            return self._read[local]
        try:
            content = content_of(file)
        except FileNotFoundError:
            raise _failed(f"{self._called}: {where}: there is no file '{local.name if local else ''}'") from None
        except (OSError, ValueError, DownloadError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise _failed(f"{self._called}: {where}: cannot read the file: {reason}") from error
        blob = Blob(content.data, content.media_type, content.name)
        if local is not None:
            self._read[local] = blob
        return blob


def _key(key: object) -> str:
    return {True: "true", False: "false"}[key] if isinstance(key, bool) else str(key)


def _failed(words: str) -> ServingError:
    return ServingError(Kind.MODEL_FAILED, words)


# --- descriptions ---


def _is_model(value: object) -> TypeGuard[type]:
    return isinstance(value, type) and "__tungsten_config__" in vars(value)


def _for_clients(cls: type[BaseIO]) -> dict[str, Any]:
    """The input class's schema as the server needs it: the server fills in defaults and settles null before the model is asked."""
    schema = cls.schema()
    for name, shown in schema["properties"].items():
        field = cls.__fields__[name]
        if shown.get("format") == "uri" and scheme_of(str(shown.get("default"))) != "data":
            shown.pop("default", None)
        if field.allow_none and field.default is not None:
            shown["nullable"] = True  # null and nothing are two things here
    return schema


def _files_in(cls: type[BaseIO]) -> dict[str, str]:
    found: dict[str, str] = {}

    def visit(kind: FieldKind | None, where: str) -> None:
        if isinstance(kind, Maybe):
            visit(kind.inner, where)
        elif isinstance(kind, Items):
            visit(kind.item, f"{where}.$item")
        elif isinstance(kind, Table):
            visit(kind.value, f"{where}.$item")
        elif isinstance(kind, Own) and issubclass(kind.type, File):
            found[where] = kind.type.kind
        elif isinstance(kind, Own):
            for name, field in kind.type.__fields__.items():
                visit(field.kind, f"{where}.{name}" if where else name)

    visit(Own(cls), "")
    return found
