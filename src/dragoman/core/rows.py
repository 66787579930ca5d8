"""Check rows against a signature's schema: coerce, fill in defaults, drop unknown keys, and collect what is wrong with all of them.

The rules, codes and texts are those of pydantic 1, because clients of Tungstenkit models match on them: "7" is an integer, 2.7 is 2, a number
is a text. Called by every door that takes rows, in the worker, before a request is queued. A checker is compiled once per signature.
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from dragoman.core.errors import Kind, Problem, ServingError
from dragoman.core.samples import schema
from dragoman.core.tensors import Blob, Form, JsonSchema, Signature, Value

Path: TypeAlias = tuple[str | int, ...]
Check: TypeAlias = Callable[[Any], Value]
"""Returns the coerced value or raises _RefusedError."""

MOST_PROBLEMS = 50
"""One answer lists at most this many; who sends a thousand bad rows learns from the first ones."""
_MOST_COMPILED = 256

_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]+={0,2}\s*")
_FETCHED = frozenset({"http", "https"})


class _RefusedError(Exception):
    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__()
        self.problems = problems


def checked(rows: object, signature: Signature, model: str) -> list[dict[str, Value]]:
    """The rows as the model gets them: new dicts with exactly the declared fields, each value coerced and within its limits.

    A field that may be missing and has no default in the schema stays out, and so does null for it: the model's own default holds. Raises
    INVALID_INPUT; its `problems` have paths (index, field, ...), () for what is no list of at least one row.
    """
    check = _compiled(signature)
    if type(rows) is not list:
        raise _error([Problem((), "type_error.list", "value is not a valid list")], model)
    if not rows:
        text = "ensure this value has at least 1 items"
        raise _error([Problem((), "value_error.list.min_items", text, {"limit_value": 1})], model)
    made: list[dict[str, Value]] = []
    problems: list[Problem] = []
    for index, row in enumerate(rows):
        try:
            made.append(check(row))
        except _RefusedError as refused:
            problems += _below(index, refused.problems)
            if len(problems) >= MOST_PROBLEMS:
                break
    if problems:
        raise _error(problems[:MOST_PROBLEMS], model)
    return made


def row_schema(signature: Signature) -> JsonSchema:
    """The schema of one input row of any signature, also of one that takes tensors: by name, without the batch axis if it has one."""
    return signature.input_schema or schema(signature.inputs, batch=signature.batch and signature.form is Form.TENSORS)


def output_schema(signature: Signature) -> JsonSchema:
    """The schema of one output row of any signature."""
    return signature.output_schema or schema(signature.outputs, batch=signature.batch and signature.form is Form.TENSORS)


_COMPILED: dict[int, tuple[Signature, Check]] = {}
"""By identity: a signature lives as long as its model. The signature itself is held, so that its id cannot become another's."""


def _compiled(signature: Signature) -> Check:
    known = _COMPILED.get(id(signature))
    if known is None:
        if len(_COMPILED) >= _MOST_COMPILED:
            _COMPILED.clear()
        known = _COMPILED[id(signature)] = (signature, _object(row_schema(signature)))
    return known[1]


def _error(problems: Sequence[Problem], model: str) -> ServingError:
    first = problems[0]
    place = ".".join(str(part) for part in first.path[1:] if part != "__root__")
    row = f"row {first.path[0]}" if first.path else "the list of rows"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    text = f"input of model '{model}', {row}{f', field {place!r}' if place else ''}: {first.message}{more}"
    return ServingError(Kind.INVALID_INPUT, text, problems=tuple(problems))


def _below(key: str | int, problems: Sequence[Problem]) -> list[Problem]:
    return [Problem((key, *p.path), p.code, p.message, p.context) for p in problems]


def _refuse(code: str, message: str, path: Path = (), **context: object) -> _RefusedError:
    return _RefusedError([Problem(path, code, message, context)])


# --- one checker per kind of schema ---


def _checker(described: JsonSchema) -> Check:
    kind = described.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), None)
    if kind == "string" and described.get("format") == "uri":
        return _file
    if kind == "object":
        return _object(described)
    if kind == "array":
        return _array(described)
    return _chosen(described, _limited(described, _SCALARS[kind])) if kind in _SCALARS else _anything


def _object(described: JsonSchema) -> Check:
    properties: Mapping[str, JsonSchema] | None = described.get("properties")
    if properties is None:
        others = described.get("additionalProperties")
        return _mapping(_checker(others) if isinstance(others, Mapping) else _anything)
    required = frozenset(described.get("required", ()))
    fields = [(n, _checker(s), n in required, s.get("default"), _takes_null(s)) for n, s in properties.items()]

    def check(value: Any) -> Value:
        if type(value) is not dict:
            raise _no_dict(value)
        made: dict[str, Value] = {}
        problems: list[Problem] = []
        for name, field, needed, default, null in fields:
            given = value.get(name)
            if given is not None:
                try:
                    made[name] = field(given)
                except _RefusedError as refused:
                    problems += _below(name, refused.problems)
            elif null and name in value:
                made[name] = None
            elif needed:
                problems.append(_null(name) if name in value else _missing(name))
            elif default is not None:
                if name in value:
                    problems.append(_null(name))
                else:
                    made[name] = copy.deepcopy(default) if isinstance(default, list | dict) else default
        if problems:
            raise _RefusedError(problems)
        return made

    return check


def _takes_null(described: JsonSchema) -> bool:
    kind = described.get("type")
    return bool(described.get("nullable")) or (isinstance(kind, list) and "null" in kind)


def _missing(name: str) -> Problem:
    return Problem((name,), "value_error.missing", "field required")


def _null(name: str) -> Problem:
    return Problem((name,), "type_error.none.not_allowed", "none is not an allowed value")


def _no_dict(value: object) -> _RefusedError:
    if value is None:
        return _refuse("type_error.none.not_allowed", "none is not an allowed value")
    return _refuse("type_error.dict", "value is not a valid dict")


def _mapping(inner: Check) -> Check:
    def check(value: Any) -> Value:
        if type(value) is not dict:
            raise _no_dict(value)
        made: dict[str, Value] = {}
        problems: list[Problem] = []
        for key, item in value.items():
            try:
                made[key] = inner(item)
            except _RefusedError as refused:
                problems += _below(key, refused.problems)
        if problems:
            raise _RefusedError(problems[:MOST_PROBLEMS])
        return made

    return check


_SAME: Mapping[Any, type] = {"integer": int, "number": float, "string": str, "boolean": bool}


def _array(described: JsonSchema) -> Check:
    items: JsonSchema = described.get("items", {})
    inner = _checker(items)
    least, most = described.get("minItems", 0), described.get("maxItems")
    # A long list of one plain type without limits is looked at once, in C.
    plain = _SAME.get(items.get("type")) if not items.keys() - {"type", "description"} else None

    def check(value: Any) -> Value:
        if isinstance(value, np.ndarray) and value.ndim:
            value = value.tolist()
        if type(value) is not list:
            raise _refuse("type_error.list", "value is not a valid list")
        if len(value) < least:
            raise _refuse("value_error.list.min_items", f"ensure this value has at least {least} items", limit_value=least)
        if most is not None and len(value) > most:
            raise _refuse("value_error.list.max_items", f"ensure this value has at most {most} items", limit_value=most)
        if plain is not None and (not value or set(map(type, value)) == {plain}):
            return value
        made: list[Value] = []
        problems: list[Problem] = []
        for index, item in enumerate(value):
            try:
                made.append(inner(item))
            except _RefusedError as refused:
                problems += _below(index, refused.problems)
                if len(problems) >= MOST_PROBLEMS:
                    break
        if problems:
            raise _RefusedError(problems)
        return made

    return check


def _limited(described: JsonSchema, inner: Check) -> Check:
    """Limits of numbers and texts, each only where it is declared."""
    low, high = described.get("minimum"), described.get("maximum")
    shortest, longest = described.get("minLength"), described.get("maxLength")
    if (low, high, shortest, longest) == (None, None, None, None):
        return inner

    def check(value: Any) -> Value:
        value = inner(value)
        if low is not None and not value >= low:  # so that NaN is refused
            raise _refuse("value_error.number.not_ge", f"ensure this value is greater than or equal to {low}", limit_value=low)
        if high is not None and not value <= high:
            raise _refuse("value_error.number.not_le", f"ensure this value is less than or equal to {high}", limit_value=high)
        if shortest is not None and len(value) < shortest:
            text = f"ensure this value has at least {shortest} characters"
            raise _refuse("value_error.any_str.min_length", text, limit_value=shortest)
        if longest is not None and len(value) > longest:
            text = f"ensure this value has at most {longest} characters"
            raise _refuse("value_error.any_str.max_length", text, limit_value=longest)
        return value

    return check


def _chosen(described: JsonSchema, inner: Check) -> Check:
    """Only what `choices` lists."""
    choices = described.get("choices", described.get("enum"))
    if choices is None:
        return inner
    permitted = list(choices)
    listed = ", ".join(repr(choice) for choice in permitted)

    def check(value: Any) -> Value:
        value = inner(value)
        if value not in permitted:
            raise _refuse("value_error.const", f"unexpected value; permitted: {listed}", given=value, permitted=permitted)
        return value

    return check


# --- plain values ---


def _anything(value: Any) -> Value:
    return value


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, int | float | str):
        try:
            return int(value)
        except (ValueError, OverflowError):  # no number, not finite, or more digits than Python reads
            pass
    raise _refuse("type_error.integer", "value is not a valid integer")


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, int | float | str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise _refuse("type_error.float", "value is not a valid float")


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError:  # more digits than Python writes
            pass
    elif isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    raise _refuse("type_error.str", "str type expected")


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    if isinstance(value, str):
        word = value.lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    elif isinstance(value, int | float) and value in (0, 1):
        return value == 1
    raise _refuse("type_error.bool", "value could not be parsed to a boolean")


_SCALARS: Mapping[Any, Check] = {"integer": _integer, "number": _float, "string": _text, "boolean": _boolean}


def _file(value: Any) -> Value:
    """A file as it was sent: content, or the text that says where it is. What the text brings is decoded or fetched later."""
    if isinstance(value, Blob):
        return value
    if isinstance(value, bytes):
        return Blob(value)
    if not isinstance(value, str):
        raise _bad_file("Invalid file input")
    found = _SCHEME.match(value)
    if found is None:
        if _BASE64.fullmatch(value) is None:
            raise _bad_file("Invalid file input")
        return value
    scheme = found[1].lower()
    if scheme in _FETCHED:
        return value
    if scheme == "data":
        if "," not in value:
            raise _bad_file("Invalid file input")
        return value
    if scheme == "file" and not value[5:].startswith("///") and value[5:].startswith("//"):
        raise _bad_file("Remote files are not supported")
    raise _bad_file("Unsupported URI scheme")


def _bad_file(message: str) -> _RefusedError:
    return _refuse("value_error", message, ("__root__",))
