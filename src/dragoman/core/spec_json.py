"""A ModelSpec, and signatures, as plain JSON and back. For stores, for the LOAD frame of a model process, and for what it answers.

JSON in the strict sense: no NaN, no Infinity, no tuples, so that any database and any parser keeps it. What JSON lacks is
`{"$dragoman": [kind, ...]}`; a dict with that very key is wrapped, so nothing that a person wrote can be mistaken for it.
"""

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from dragoman.core.model import BatchPolicy, Environment, ModelSpec, Step
from dragoman.core.tensors import ALL_PARAMETERS, DATATYPES, Array, Form, Signature, TensorSpec, pack_bytes, unpack_bytes

_KEY = "$dragoman"


def spec_to_json(spec: ModelSpec) -> dict[str, Any]:
    """Every field that is not at its default. Raises ValueError for values that no configuration could hold."""
    return _written(spec, _SPEC)


def spec_from_json(document: Mapping[str, Any]) -> ModelSpec:
    """The inverse. Unknown fields are refused: they would be settings without effect. Raises ValueError."""
    spec: ModelSpec = _made(ModelSpec, document, _SPEC)
    return spec


def signatures_to_json(signatures: Mapping[str, Signature]) -> dict[str, Any]:
    return {name: _written(signature, _SIGNATURE) for name, signature in signatures.items()}


def signatures_from_json(document: Mapping[str, Any]) -> dict[str, Signature]:
    """The inverse. Raises ValueError."""
    return {name: _made(Signature, each, _SIGNATURE) for name, each in document.items()}


# --- values ---


def plain(value: Any) -> Any:
    """A value of a configuration as strict JSON; tuples become lists. Raises ValueError for other things."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_KEY: ["float", repr(value)]}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            return {_KEY: ["pairs", [[plain(key), plain(each)] for key, each in value.items()]]}
        mapped = {key: plain(each) for key, each in value.items()}
        return {_KEY: ["dict", mapped]} if _KEY in mapped else mapped
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return {_KEY: ["bytes", _text(value)]}
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "O":
            return {_KEY: ["objects", list(value.shape), _text(pack_bytes(value))]}
        return {_KEY: ["array", value.dtype.str, list(value.shape), _text(value.tobytes())]}
    if isinstance(value, np.generic):
        return plain(value.item())
    raise ValueError(f"a value of type {type(value).__name__} cannot be part of a specification")


def restored(value: Any) -> Any:
    """The inverse of `plain`. Raises ValueError."""
    if isinstance(value, list):
        return [restored(each) for each in value]
    if not isinstance(value, dict):
        return value
    if _KEY not in value:
        return {key: restored(each) for key, each in value.items()}
    match value[_KEY]:
        case ["float", str(text)]:
            return float(text)
        case ["pairs", list(pairs)]:
            return {restored(key): restored(each) for key, each in pairs}
        case ["dict", dict(inner)]:
            return {key: restored(each) for key, each in inner.items()}
        case ["bytes", str(text)]:
            return _bytes(text)
        case ["objects", list(shape), str(text)]:
            return unpack_bytes(_bytes(text), math.prod(shape)).reshape(shape)
        case ["array", str(code), list(shape), str(text)]:
            array: Array = np.frombuffer(_bytes(text), np.dtype(code)).reshape(shape).copy()
            return array
    raise ValueError("a specification holds a value of a kind that this version does not know")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


# --- records ---

_Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def _written(record: Any, pairs: Mapping[str, _Pair]) -> dict[str, Any]:
    document = {}
    for each in fields(record):
        value = getattr(record, each.name)
        if not each.init or _is_default(value, each):
            continue
        document[each.name] = pairs.get(each.name, _VALUE)[0](value)
    return document


def _made(kind: type[Any], document: Any, pairs: Mapping[str, _Pair]) -> Any:
    if not isinstance(document, Mapping):
        raise ValueError(f"a {kind.__name__} is no object")  # noqa: TRY004 # one error for all that is wrong with a document
    known = {each.name for each in fields(kind) if each.init}
    unknown = document.keys() - known
    if unknown:
        raise ValueError(f"a {kind.__name__} has no field '{min(unknown)}'")
    try:
        return kind(**{name: pairs.get(name, _VALUE)[1](value) for name, value in document.items()})
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"a {kind.__name__} cannot be read: {error}") from error


def _is_default(value: Any, each: Any) -> bool:
    if each.default_factory is not MISSING:
        return bool(value == each.default_factory())
    return each.default is not MISSING and (value is each.default or bool(value == each.default))


def _of(kind: type[Any], pairs: Mapping[str, _Pair]) -> _Pair:
    return (lambda record: _written(record, pairs)), (lambda document: _made(kind, document, pairs))


def _optional(pair: _Pair) -> _Pair:
    out, back = pair
    return (lambda value: None if value is None else out(value)), (lambda value: None if value is None else back(value))


def _many(pair: _Pair) -> _Pair:
    out, back = pair
    return (lambda values: [out(each) for each in values]), (lambda values: tuple(back(each) for each in values))


def _mapped(pair: _Pair) -> _Pair:
    """A mapping by text."""
    out, back = pair
    return (
        lambda values: {key: out(each) for key, each in values.items()},
        lambda values: {key: back(each) for key, each in values.items()},
    )


def _reads_out(names: frozenset[str]) -> Any:
    return "*" if names is ALL_PARAMETERS else sorted(names)


def _reads_in(names: Any) -> frozenset[str]:
    return ALL_PARAMETERS if names == "*" else frozenset(names)


_VALUE: _Pair = (plain, restored)
_TUPLE: _Pair = (plain, lambda values: tuple(restored(values)))
_SHAPE = _optional(_TUPLE)
_TENSOR: Mapping[str, _Pair] = {
    "datatype": _optional((lambda datatype: datatype.name, lambda name: DATATYPES[name])),
    "shape": _SHAPE,
    "labels": _TUPLE,
}
_SIGNATURE: Mapping[str, _Pair] = {
    "form": (lambda form: form.value, Form),
    "inputs": _many(_of(TensorSpec, _TENSOR)),
    "outputs": _many(_of(TensorSpec, _TENSOR)),
    "options": _TUPLE,
    "reads": (_reads_out, _reads_in),
}
_BATCH: Mapping[str, _Pair] = {"preferred": _TUPLE, "allowed": _TUPLE, "level_max_queue": _VALUE, "level_timeout_s": _VALUE}
_SPEC: Mapping[str, _Pair] = {
    "batch": _of(BatchPolicy, _BATCH),
    "arguments": _VALUE,
    "signature": _optional(_of(Signature, _SIGNATURE)),
    "input_reshapes": _mapped(_TUPLE),
    "output_reshapes": _mapped(_TUPLE),
    "steps": _many(_of(Step, {"inputs": _VALUE, "outputs": _VALUE})),
    "warmup": _many(_VALUE),
    "environment": _optional(_of(Environment, {"packages": _TUPLE})),
    "config": _VALUE,
    "warnings": _TUPLE,
}
