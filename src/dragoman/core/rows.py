"""Check rows against a signature's schema: coerce, fill in defaults, drop unknown keys, and collect what is wrong with all of them.

The rules, codes and texts are those of pydantic 1, because clients of Tungstenkit models match on them: "7" is an integer, 2.7 is 2, a number
is a text. Called by every door that takes rows, in the worker, before a request is queued. A checker is compiled once per signature.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dragoman.core.coerce import SCALARS, Check, RefusedError, anything, file, refuse
from dragoman.core.errors import Kind, Problem, ServingError
from dragoman.core.samples import schema
from dragoman.core.tensors import Form, JsonSchema, Signature, Value

MOST_PROBLEMS = 50
"""One answer lists at most this many; who sends a thousand bad rows learns from the first ones."""
_MOST_COMPILED = 256


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
        except RefusedError as refused:
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
    by_row = signature.whole or (signature.batch and signature.form is Form.TENSORS)
    return signature.output_schema or schema(signature.outputs, batch=by_row)


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


# --- one checker per kind of schema ---


def _checker(described: JsonSchema) -> Check:
    kind = described.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), None)
    if kind == "string" and described.get("format") == "uri":
        return file
    if kind == "object":
        return _object(described)
    if kind == "array":
        return _array(described)
    return _chosen(described, _limited(described, SCALARS[kind])) if kind in SCALARS else anything


def _object(described: JsonSchema) -> Check:
    properties: Mapping[str, JsonSchema] | None = described.get("properties")
    if properties is None:
        others = described.get("additionalProperties")
        return _mapping(_part(others) if isinstance(others, Mapping) else anything)
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
                except RefusedError as refused:
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
            raise RefusedError(problems)
        return made

    return check


def _takes_null(described: JsonSchema) -> bool:
    kind = described.get("type")
    return kind is None or bool(described.get("nullable")) or (isinstance(kind, list) and "null" in kind)


def _part(described: JsonSchema) -> Check:
    """The checker of something inside a list or mapping, where null is a value of its own."""
    inner, null = _checker(described), _takes_null(described)

    def check(value: Any) -> Value:
        if value is None and not null:
            raise refuse("type_error.none.not_allowed", "none is not an allowed value")
        return None if value is None else inner(value)

    return check


def _missing(name: str) -> Problem:
    return Problem((name,), "value_error.missing", "field required")


def _null(name: str) -> Problem:
    return Problem((name,), "type_error.none.not_allowed", "none is not an allowed value")


def _no_dict(value: object) -> RefusedError:
    if value is None:
        return refuse("type_error.none.not_allowed", "none is not an allowed value")
    return refuse("type_error.dict", "value is not a valid dict")


def _mapping(inner: Check) -> Check:
    def check(value: Any) -> Value:
        if type(value) is not dict:
            raise _no_dict(value)
        made: dict[str, Value] = {}
        problems: list[Problem] = []
        for key, item in value.items():
            try:
                made[key] = inner(item)
            except RefusedError as refused:
                problems += _below(key, refused.problems)
        if problems:
            raise RefusedError(problems[:MOST_PROBLEMS])
        return made

    return check


_SAME: Mapping[Any, type] = {"integer": int, "number": float, "string": str, "boolean": bool}


def _array(described: JsonSchema) -> Check:
    items: JsonSchema = described.get("items", {})
    inner = _part(items)
    least, most = described.get("minItems", 0), described.get("maxItems")
    # A long list of one plain type without limits is looked at once, in C.
    plain = _SAME.get(items.get("type")) if not items.keys() - {"type", "description"} else None
    holds, dimensions = _box(described)

    def check(value: Any) -> Value:
        if isinstance(value, np.ndarray) and value.ndim:
            if value.dtype.kind in holds and _within(value.shape, dimensions):
                return value
            value = value.tolist()
        if type(value) is not list:
            raise refuse("type_error.list", "value is not a valid list")
        if len(value) < least:
            raise refuse("value_error.list.min_items", f"ensure this value has at least {least} items", limit_value=least)
        if most is not None and len(value) > most:
            raise refuse("value_error.list.max_items", f"ensure this value has at most {most} items", limit_value=most)
        if plain is not None and (not value or set(map(type, value)) == {plain}):
            return value
        made: list[Value] = []
        problems: list[Problem] = []
        for index, item in enumerate(value):
            try:
                made.append(inner(item))
            except RefusedError as refused:
                problems += _below(index, refused.problems)
                if len(problems) >= MOST_PROBLEMS:
                    break
        if problems:
            raise RefusedError(problems)
        return made

    return check


def _box(described: JsonSchema) -> tuple[str, list[tuple[int, int | None]] | None]:
    """Kinds of NumPy datatypes of which an array may stay as it is, and bounds of its dimensions (None: any number of any size)."""
    dimensions = []
    while described.get("type") == "array":
        dimensions.append((described.get("minItems", 0), described.get("maxItems")))
        described = described.get("items", {})
    if not described:
        return "biuf", None if len(dimensions) == 1 else dimensions
    limited = described.keys() - {"type", "description"}
    return "" if limited else {"integer": "iu", "number": "iuf", "boolean": "b"}.get(described.get("type", ""), ""), dimensions


def _within(shape: tuple[int, ...], dimensions: list[tuple[int, int | None]] | None) -> bool:
    if dimensions is None:
        return True
    bounds = zip(shape, dimensions, strict=False)
    return len(shape) == len(dimensions) and all(least <= n and (most is None or n <= most) for n, (least, most) in bounds)


def _limited(described: JsonSchema, inner: Check) -> Check:
    """Limits of numbers and texts, each only where it is declared."""
    low, high = described.get("minimum"), described.get("maximum")
    shortest, longest = described.get("minLength"), described.get("maxLength")
    if (low, high, shortest, longest) == (None, None, None, None):
        return inner

    def check(value: Any) -> Value:
        value = inner(value)
        if low is not None and not value >= low:  # so that NaN is refused
            raise refuse("value_error.number.not_ge", f"ensure this value is greater than or equal to {low}", limit_value=low)
        if high is not None and not value <= high:
            raise refuse("value_error.number.not_le", f"ensure this value is less than or equal to {high}", limit_value=high)
        if shortest is not None and len(value) < shortest:
            text = f"ensure this value has at least {shortest} characters"
            raise refuse("value_error.any_str.min_length", text, limit_value=shortest)
        if longest is not None and len(value) > longest:
            text = f"ensure this value has at most {longest} characters"
            raise refuse("value_error.any_str.max_length", text, limit_value=longest)
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
            raise refuse("value_error.const", f"unexpected value; permitted: {listed}", given=value, permitted=permitted)
        return value

    return check
