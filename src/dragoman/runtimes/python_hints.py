"""Type hints of a predict function as fields: how each looks in JSON schema and as a tensor, and how its values reach user code.

Reads hints only, when a model loads. Called by python_plain.py and python_arrays.py.
"""

import dataclasses
import inspect
import mimetypes
import tempfile
import types
import typing
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np

from dragoman.core.columns import column, guess
from dragoman.core.errors import ServingError, invalid
from dragoman.core.samples import schema as tensor_schema
from dragoman.core.tensors import BOOL, BYTES, FP64, INT64, Blob, Datatype, Shape, TensorSpec, Value, datatype_of
from dragoman.core.values import jsonable, normalise

FILE_KINDS = ("image", "audio", "video", "binary")
NOTHING: Any = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True, slots=True)
class Hint:
    """One type. `read` makes what user code gets of a row's value; `shape` is that of one row's value, None when it is not known."""

    schema: dict[str, Any]
    datatype: Datatype | None = None
    shape: Shape | None = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Place below this value ("" is itself) -> kind."""
    read: Callable[[Value], Any] = lambda value: value
    array: bool = False

    def tensor(self, name: str, *, batch: bool = True, optional: bool = False) -> TensorSpec:
        """As a tensor with one element per row."""
        shape = self.shape if self.shape is None or not batch else (-1, *self.shape)
        return TensorSpec(name, self.datatype, shape, optional)


_SCALARS: Mapping[Any, tuple[str, Datatype]] = {
    bool: ("boolean", BOOL),
    int: ("integer", INT64),
    float: ("number", FP64),
    str: ("string", BYTES),
}
_FILE = {"type": "string", "format": "uri"}
_ALIAS: Any = getattr(typing, "TypeAliasType", ())
"""Python 3.12 and later have it."""


def hint_of(annotation: Any, where: str) -> Hint:
    """The field that an annotation means. Raises INVALID_INPUT, saying `where`, for types that no client could send."""
    extras: tuple[Any, ...] = ()
    while get_origin(annotation := unaliased(annotation)) is Annotated:
        annotation, *more = get_args(annotation)
        extras = (*more, *extras)
    found = _found(annotation, extras, where)
    described = {key: value for extra in extras if isinstance(extra, dict) for key, value in extra.items()}
    return dataclasses.replace(found, schema=found.schema | described) if described else found


def unaliased(annotation: Any) -> Any:
    """What stands behind a name that was given by `type X = ...`; from NumPy 2.5 on NDArray is one."""
    while isinstance(alias := get_origin(annotation) or annotation, _ALIAS):
        arguments = get_args(annotation)
        annotation = alias.__value__[arguments] if arguments else alias.__value__
    return annotation


def _found(annotation: Any, extras: tuple[Any, ...], where: str) -> Hint:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (NOTHING, Any, object):
        return Hint({}, None, None)
    if annotation in _SCALARS:
        kind, datatype = _SCALARS[annotation]
        return Hint({"type": kind}, datatype)
    if annotation in (bytes, Blob, Path):
        return _file(annotation, extras)
    if annotation is np.ndarray or origin is np.ndarray:
        return _array(arguments, extras, where)
    if origin is Literal:
        return _choices(list(arguments), where, lambda value: value)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _choices([member.value for member in annotation], where, annotation)
    if origin in (Union, types.UnionType):
        return _optional(arguments, where)
    if annotation in (list, tuple) or origin in (list, tuple):
        return _list(annotation, origin or annotation, arguments, where)
    if annotation is dict or origin in (dict, Mapping):
        return _dict(arguments, where)
    if dataclasses.is_dataclass(annotation) or typing.is_typeddict(annotation):
        return _object(annotation, where)
    raise invalid(
        f"{where} has the type {_named(annotation)}; possible are int, float, str, bool, bytes, Blob, Path, list, dict, Literal, Enum, "
        "Optional, dataclass, TypedDict and numpy arrays",
        what="model",
    )


def _file(annotation: Any, extras: tuple[Any, ...]) -> Hint:
    kind = next((extra for extra in extras if extra in FILE_KINDS), "binary")
    read = {bytes: _content, Path: _on_disk}.get(annotation, _as_it_is)
    return Hint(dict(_FILE), BYTES, (), {"": kind}, read)


SCRATCH: ContextVar[str] = ContextVar("scratch")
"""The folder for files of the call that is being read now. Whoever reads the values of a call sets it, and removes the folder after it."""


def _as_it_is(blob: Blob) -> Blob:
    return blob


def _content(blob: Blob) -> bytes:
    return blob.data


def _on_disk(blob: Blob) -> Path:
    """The file in a folder of its own, under a name whose suffix is that of its type. The name that a client gave is not used."""
    suffix = mimetypes.guess_extension(blob.media_type) or ""
    path = Path(tempfile.mkdtemp(dir=SCRATCH.get()), f"file{suffix}")
    path.write_bytes(blob.data)
    return path


def _choices(values: list[Any], where: str, read: Callable[[Value], Any]) -> Hint:
    kinds = {type(value) for value in values}
    if kinds not in ({str}, {int}):
        raise invalid(f"{where} lists choices that are neither all texts nor all whole numbers", what="model")
    kind, datatype = _SCALARS[kinds.pop()]
    return Hint({"type": kind, "choices": values}, datatype, read=read)


def _optional(arguments: tuple[Any, ...], where: str) -> Hint:
    rest = [argument for argument in arguments if argument is not type(None)]
    if len(rest) != 1:
        raise invalid(f"{where} may be one of several types; possible is one type, or one type and None", what="model")
    inner = hint_of(rest[0], where)
    read = inner.read
    return dataclasses.replace(inner, schema=inner.schema | {"nullable": True}, read=lambda v: None if v is None else read(v))


def _list(annotation: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Hint:
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        raise invalid(f"{where} has the type {_named(annotation)}; possible are list[...] and tuple[..., ...]", what="model")
    inner = hint_of(arguments[0] if arguments else Any, where)
    plain = inner.datatype is not None and inner.shape is not None and not inner.array and inner.schema.get("type") != "object"
    plain = plain and "nullable" not in inner.schema
    read = inner.read

    def read_list(value: Value) -> Any:
        items = value.tolist() if isinstance(value, np.ndarray) else value
        return origin([read(item) for item in items])

    return Hint(
        {"type": "array", "items": inner.schema},
        inner.datatype if plain else BYTES,
        (-1, *(inner.shape or ())) if plain else (),
        {_below("$item", place): kind for place, kind in inner.files.items()},
        read_list,
    )


def _dict(arguments: tuple[Any, ...], where: str) -> Hint:
    inner = hint_of(arguments[1] if arguments else Any, where)
    read = inner.read
    schema = {"type": "object"} | ({"additionalProperties": inner.schema} if inner.schema else {})
    return Hint(schema, BYTES, (), {}, lambda value: {key: read(item) for key, item in value.items()})


def _object(annotation: Any, where: str) -> Hint:
    fields = fields_of(annotation, where)
    required = [name for name in fields if name in needed(annotation)]
    schema = {"type": "object", "properties": {name: field.schema for name, field in fields.items()}, "required": required}
    files = {_below(name, place): kind for name, field in fields.items() for place, kind in field.files.items()}
    make = dict if typing.is_typeddict(annotation) else annotation

    def read(value: Value) -> Any:
        return make(**{name: fields[name].read(item) for name, item in value.items() if name in fields})

    return Hint(schema, BYTES, (), files, read)


def fields_of(annotation: Any, where: str) -> dict[str, Hint]:
    """The fields of a dataclass or TypedDict."""
    found = typing.get_type_hints(annotation, include_extras=True)
    if dataclasses.is_dataclass(annotation):
        found = {field.name: found[field.name] for field in dataclasses.fields(annotation)}
    return {name: hint_of(_bare(each), f"{where}, field '{name}',") for name, each in found.items()}


def needed(annotation: Any) -> frozenset[str]:
    """Names of the fields that every value has."""
    if typing.is_typeddict(annotation):
        return frozenset(annotation.__required_keys__)
    missing = dataclasses.MISSING
    return frozenset(f.name for f in dataclasses.fields(annotation) if f.default is missing and f.default_factory is missing)


def _bare(annotation: Any) -> Any:
    """What is required is told by `needed`."""
    return get_args(annotation)[0] if get_origin(annotation) in (typing.Required, typing.NotRequired) else annotation


def _array(arguments: tuple[Any, ...], extras: tuple[Any, ...], where: str) -> Hint:
    element = get_args(arguments[1])[0] if len(arguments) == 2 and get_args(arguments[1]) else None
    datatype = datatype_of(np.dtype(element)) if isinstance(element, type) and issubclass(element, np.generic) else None
    if datatype is None and element not in (None, Any, np.generic) and not isinstance(element, typing.TypeVar):
        raise invalid(f"{where} is an array of {_named(element)}, which no client can send", what="model")
    shape = next((extra for extra in extras if isinstance(extra, tuple)), None)
    if shape is not None and not all(isinstance(length, int) and length >= -1 for length in shape):
        raise invalid(f"{where} has the shape {shape}; a shape is a tuple of whole numbers, -1 for any", what="model")
    properties = tensor_schema((TensorSpec("x", datatype, shape),), batch=False)["properties"]["x"]
    name = datatype.numpy if datatype is not None else None

    def read(value: Value) -> Any:
        if isinstance(value, np.ndarray) and (name is None or value.dtype == name):
            return value
        return column([value], datatype or guess([value]))[0]

    return Hint(properties if shape is not None else {"type": "array"}, datatype, shape, {}, read, array=True)


# --- around the fields ---


def item_of(annotation: Any, where: str) -> Any:
    """What one input or output of a batch is, of a hint for all of them: T of list[T]; arrays and what has no hint stay as they are."""
    plain = annotation
    while get_origin(plain := unaliased(plain)) is Annotated:
        plain = get_args(plain)[0]
    if plain in (NOTHING, Any, list, np.ndarray) or get_origin(plain) is np.ndarray:
        return NOTHING if plain is list else annotation
    if get_origin(plain) is list:
        return get_args(plain)[0]
    raise invalid(f"{where} has the type {_named(annotation)}; in a batch it is list[...] or an array, one item per input", what="model")


def streamed(annotation: Any) -> Any:
    """What a generator yields, of its return hint."""
    origin = get_origin(annotation)
    return get_args(annotation)[0] if origin in (Iterator, Iterable, Generator) else NOTHING


def default_of(value: object) -> Any:
    """A parameter's default as the schema shows it; None for what JSON cannot show."""
    try:
        return jsonable(normalise(value, "default"))
    except ServingError:
        return None


def file_value(value: Any, described: Mapping[str, Any]) -> Any:
    """What user code returned, with files read: a Path names one, and bytes are one where the hint says so."""
    if isinstance(value, Path):
        return Blob(value.read_bytes(), mimetypes.guess_type(value.name)[0] or "application/octet-stream", value.name)
    if isinstance(value, bytes | bytearray) and described.get("format") == "uri":
        return Blob(bytes(value))
    if isinstance(value, list | tuple):
        inner = described.get("items", {})
        return [file_value(item, inner) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Blob):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        properties, others = described.get("properties", {}), described.get("additionalProperties", {})
        return {key: file_value(item, properties.get(key, others)) for key, item in value.items()}
    return value


def _below(key: str, place: str) -> str:
    return f"{key}.{place}" if place else key


def _named(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)[:100]
