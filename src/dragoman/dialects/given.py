"""What a request gave, by name or by place, as the inputs of a model: columns are picked by name, a matrix is taken in its own order.

Extra columns are left out; integers are widened where floats are declared, nothing is narrowed or rounded; a missing value is NaN where floats
are declared, absent where a field may be absent, and refused elsewhere. Messages name columns and rows and do not repeat the data. Called by
the codecs of MLflow and Seldon once they have found the model.
"""

import binascii
import math
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeAlias

import numpy as np

from dragoman.core.bodies import features, named_point
from dragoman.core.checks import fits
from dragoman.core.columns import WrongColumnError, column
from dragoman.core.errors import ServingError, invalid
from dragoman.core.files import decode_files
from dragoman.core.rows import checked, row_schema
from dragoman.core.tensors import BYTES, Array, Datatype, Form, JsonSchema, Rows, Shape, Signature, Tensor, Tensors, TensorSpec, Value
from dragoman.dialects.json import EXPECTED, RAGGED, Fault, NumberList, NumbersError, array_of, guess, is_list
from dragoman.dialects.rows import plain
from dragoman.dialects.tables import Bare, Named, Table, quoted

Given: TypeAlias = Table | Named | Bare

BINARY = "binary"
"""What `TensorSpec.native` says of an MLflow column whose values are base64 in JSON."""
UNNAMED = "input"
"""What a value without a name is called when the model does not say what its inputs are."""


def inputs_of(given: Given, signature: Signature, model: str, *, by_place: bool = False) -> Tensors | Rows:
    """Inputs in the form that the signature wants. Raises INVALID_INPUT.

    `by_place`: columns without names are those of the signature, in its order, if there are as many; otherwise they must be named.
    """
    if isinstance(given, Table):
        if not given.length:
            raise invalid(f"the request for model '{model}' has no rows")
        if by_place and given.names is None and len(names := _fields(signature)) == given.width > 1:
            given = given.named(names)
    elif not (given.values if isinstance(given, Named) else not is_list(given.value) or len(given.value)):
        raise invalid(f"the request for model '{model}' holds no input")
    if signature.form is Form.ROWS:
        return Rows(_rows(given, signature, model))
    if isinstance(given, Table):
        return Tensors(_table_tensors(given, signature, model))
    return Tensors(_tensors(given, signature, model))


def takes_text(signature: Signature) -> Callable[[str], bool]:
    """Which columns a signature declares as texts: for codecs whose cells do not say of what type they are."""
    if signature.form is Form.TENSORS:
        if len(signature.inputs) == 1:
            only = signature.inputs[0].datatype is BYTES
            return lambda name: only
        texts = {spec.name for spec in signature.inputs if spec.datatype is BYTES}
    else:
        properties: JsonSchema = row_schema(signature).get("properties", {})
        texts = {name for name, field in properties.items() if "string" in _types(field)}
    return lambda name: name in texts


def _fields(signature: Signature) -> Sequence[str]:
    if signature.form is Form.TENSORS:
        return [spec.name for spec in signature.inputs]
    return list(row_schema(signature).get("properties", ()))


# --- tensors ---


def _table_tensors(table: Table, signature: Signature, model: str) -> list[Tensor]:
    names = table.names
    specs = signature.inputs or tuple(TensorSpec(name, None, None) for name in names or (UNNAMED,))
    only = specs[0] if len(specs) == 1 else None
    if only is not None and (names is None or only.name not in names):
        value = table.column(0) if table.holds_lists() else table.rows()
        return [_tensor(only, value, signature, _Cell(model, only.name, names))]
    if names is None:
        raise invalid(f"model '{model}' picks its columns by name, and the request names none; it expects {_expected(specs)}")
    places = {name: index for index, name in enumerate(names)}
    _require([spec.name for spec in specs if not spec.optional], places, _expected(specs), model)
    tensors = []
    for spec in specs:
        index = places.get(spec.name)
        if index is None:
            continue
        cell = _Cell(model, spec.name, None)
        ready = None if spec.datatype is None else table.numbers(index, spec.datatype)
        if ready is None:
            values = table.column(index)
            if not _left_out(spec, values):
                tensors.append(_tensor(spec, values, signature, cell))
        else:
            assert spec.datatype is not None
            tensors.append(Tensor(spec.name, spec.datatype, _fitted(ready, spec.shape, signature)))
    return tensors


def _tensors(given: Named | Bare, signature: Signature, model: str) -> list[Tensor]:
    specs = signature.inputs
    if isinstance(given, Bare):
        if len(specs) > 1:
            raise invalid(f"model '{model}' has {len(specs)} inputs, which must be named: {_expected(specs)}")
        only = specs[0] if specs else TensorSpec(UNNAMED, None, None)
        return [_tensor(only, given.value, signature, _Cell(model, only.name, None))]
    values = given.values
    if len(specs) == 1 and specs[0].name not in values and all(map(_is_column, values.values())):
        table = Table.of_columns({name: plain(value) for name, value in values.items()}, "the inputs")
        return _table_tensors(table, signature, model)
    specs = specs or tuple(TensorSpec(name, None, None) for name in values)
    _require([spec.name for spec in specs if not spec.optional], values, _expected(specs), model)
    given_specs = [spec for spec in specs if spec.name in values and not _left_out(spec, values[spec.name])]
    return [_tensor(spec, values[spec.name], signature, _Cell(model, spec.name, None)) for spec in given_specs]


def _left_out(spec: TensorSpec, values: Any) -> bool:
    """Whether an input that may be absent holds nothing but missing values, and its type has none for them."""
    if not spec.optional or (spec.datatype is not None and spec.datatype.kind in ("float", "bits")):
        return False
    return values is None or (type(values) is list and bool(values) and all(value is None for value in values))


def _is_column(value: object) -> bool:
    """Whether a value is a list of single cells."""
    if type(value) is NumberList:
        return value.shape is not None and len(value.shape) == 1
    return type(value) is list and {list, dict, NumberList}.isdisjoint(map(type, value))


class _Cell:
    """Says where in a request a fault is. `columns` are those of a matrix that is one input."""

    __slots__ = ("_columns", "_model", "_name")

    def __init__(self, model: str, name: str, columns: Sequence[str] | None) -> None:
        self._model = model
        self._name = name
        self._columns = columns

    def place(self, path: Sequence[int]) -> str:
        if self._columns is not None and len(path) > 1 and path[1] < len(self._columns):
            return f"column {quoted([self._columns[path[1]]])} of the input of model '{self._model}', row {path[0]}"
        return f"input {quoted([self._name])} of model '{self._model}'" + (f", row {path[0]}" if path else "")


def _tensor(spec: TensorSpec, value: Any, signature: Signature, cell: _Cell) -> Tensor:
    datatype = spec.datatype or guess(value)
    if spec.native == BINARY:
        value = _decoded(plain(value), cell)
    try:
        array = array_of(value, datatype, missing=True)
    except NumbersError as error:
        if error.fault is not Fault.DATATYPE or datatype.kind not in ("float", "bits"):
            raise _refusal(error, cell) from None
        array = _narrow(value, datatype, cell)
    return Tensor(spec.name, datatype, _fitted(array, spec.shape, signature))


def _narrow(value: Any, datatype: Datatype, cell: _Cell) -> Array:
    """FP16 and BF16, which other protocols take as binary data only."""
    try:
        made: Array = np.ascontiguousarray(column([_with_nan(plain(value))], datatype)[0])
    except WrongColumnError:
        raise invalid(f"{cell.place(())}: {datatype} takes numbers, in lists that form a box") from None
    return made


def _decoded(value: Any, cell: _Cell) -> Any:
    """Bytes in the place of every text, which must be base64."""
    if type(value) is list:
        return [_decoded(item, cell) for item in value]
    try:
        return binascii.a2b_base64(value, strict_mode=True) if type(value) is str else value
    except ValueError:
        raise invalid(f"{cell.place(())}: it is binary, and holds a text that is not base64") from None


def _with_nan(value: Any) -> Any:
    if value is None:
        return math.nan
    return [_with_nan(item) for item in value] if type(value) is list else value


def _refusal(error: NumbersError, cell: _Cell) -> ServingError:
    """Says what came by its JSON type only: data of clients does not belong into messages, which are logged."""
    place, takes = cell.place(error.path), EXPECTED.get(error.datatype.kind, "nothing that JSON can carry")
    if error.fault in RAGGED or error.fault is Fault.DEPTH:
        return invalid(f"{place}: the lists do not form a box")
    if error.fault is Fault.RANGE:
        return invalid(f"{place}: a number is out of range for {error.datatype}")
    came = "a missing value" if error.json_type == "Null" else f"a value of the type {error.json_type}"
    if error.json_type == "Number" and error.datatype.kind in ("int", "uint"):
        came = "a number that is no integer"
    return invalid(f"{place}: {came} came where {error.datatype} takes {takes}")


def _fitted(array: Array, shape: Shape | None, signature: Signature) -> Array:
    """The array with a last dimension of 1 more or less, or without a batch of one, if that is what is declared; else as it is."""
    if shape is None or fits(array.shape, shape):
        return array
    own = array.shape
    ways = [(*own, 1), own[:-1] if own[-1:] == (1,) else (), own[1:] if own[:1] == (1,) and not signature.batch else ()]
    for way in ways:
        if fits(way, shape) and (way or array.size == 1):
            return array.reshape(way)
    return array


# --- rows ---


def _rows(given: Given, signature: Signature, model: str) -> list[dict[str, Value]]:
    schema = row_schema(signature)
    properties: JsonSchema = schema.get("properties", {})
    required = list(schema.get("required", ()))
    if isinstance(given, Table):
        rows = _table_rows(given, signature, required, model)
    elif isinstance(given, Named):
        rows = _cut(given, properties, model)
    else:
        values = plain(given.value)
        rows = []
        for value in values if type(values) is list else [values]:
            point = named_point(value, signature)
            rows.append(point if point is not value else {_only(properties, required, model): value})
    for name, field in properties.items():
        _tidy(rows, name, field, name in required, model)
    return decode_files(checked(rows, signature, model), signature, model)


def _table_rows(table: Table, signature: Signature, required: Sequence[str], model: str) -> list[dict[str, Any]]:
    properties: JsonSchema = row_schema(signature).get("properties", {})
    if table.names is None and signature.whole and len(properties) == table.width > 1:
        return [named_point(row, signature) for row in plain(table.rows())]
    if table.names is not None and signature.whole and not features(signature) and not set(required) & set(table.names):
        return [{required[0]: list(row.values())} for row in table.records()]
    if table.names is None:
        only = _only(properties, required, model)
        rows = plain(table.rows())
        return [{only: row[0] if table.width == 1 and not _listed(properties, only) else row} for row in rows]
    _require(required, set(table.names), quoted(list(properties)), model)
    return table.records()


def _cut(given: Named, properties: JsonSchema, model: str) -> list[dict[str, Any]]:
    """Columns into rows; a value that is no list is the same in every row."""
    columns = {name: plain(value) for name, value in given.values.items() if not properties or name in properties}
    lists = {name: value for name, value in columns.items() if type(value) is list}
    length = Table.of_columns(lists, "the inputs").length if lists else 1
    return [{name: lists[name][index] if name in lists else value for name, value in columns.items()} for index in range(length)]


def _only(properties: JsonSchema, required: Sequence[str], model: str) -> str:
    """The field that a value without a name is for."""
    names = list(properties) if len(properties) == 1 else required
    if len(names) != 1:
        raise invalid(f"model '{model}' picks its inputs by name, and the request names none; it expects {quoted(list(properties))}")
    return names[0]


def _tidy(rows: list[dict[str, Any]], name: str, field: JsonSchema, needed: bool, model: str) -> None:
    """Missing values as this field can have them, in place; refuses a number that the field's integer would cut."""
    types = _types(field)
    if types and "null" not in types and not field.get("nullable"):
        for row in rows:
            if name not in row or row[name] is not None:
                continue
            if not needed:
                del row[name]
            elif "number" in types:
                row[name] = math.nan
    if "integer" in types and "number" not in types:
        for index, row in enumerate(rows):
            value = row.get(name)
            if type(value) is float and not value.is_integer():
                raise invalid(f"input {quoted([name])} of model '{model}', row {index}: a number that is no integer came")


def _types(field: JsonSchema) -> Sequence[str]:
    kind = field.get("type", ())
    return [kind] if isinstance(kind, str) else kind


def _listed(properties: JsonSchema, name: str) -> bool:
    return "array" in _types(properties.get(name, {}))


# --- both ---


def _require(needed: Sequence[str], have: Container[str], expected: str, model: str) -> None:
    missing = [name for name in needed if name not in have]
    if missing:
        raise invalid(f"model '{model}' lacks the input{'s' if len(missing) > 1 else ''} {quoted(missing)}; it expects {expected}")


def _expected(specs: Sequence[TensorSpec]) -> str:
    return quoted([spec.name for spec in specs])
