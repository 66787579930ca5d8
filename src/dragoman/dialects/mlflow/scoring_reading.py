"""Bodies of MLflow's scoring protocol: JSON in its four shapes, and CSV. Called by scoring.py.

A body is read in two steps, because the columns of CSV have types only once the model is known: `document` before it is looked up, then
`Document.given`. Parquet is not read.
"""

import codecs
import csv
import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY
from dragoman.core.tensors import Signature, Value
from dragoman.dialects.given import Given, takes_text
from dragoman.dialects.json import JsonSyntaxError, is_list, loads
from dragoman.dialects.rows import plain
from dragoman.dialects.tables import Bare, Column, Named, Table, distinct

_JSON, _CSV = "application/json", "text/csv"
_SHAPES = ("dataframe_split", "dataframe_records", "instances", "inputs")
_BOM = codecs.BOM_UTF8
_CHARSETS = frozenset({
    "utf-8", "utf-8-sig", "ascii", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be",
    "iso8859-1", "iso8859-15", "cp1252",
})  # fmt: skip
"""Not all that Python has: some of its codecs are for no text, and some take a time that grows with the square of it."""
_MISSING = frozenset({"", "NaN", "nan", "NA", "N/A", "n/a", "null", "NULL", "None"})
"""Cells of a column of numbers that hold none."""
_TRUE, _FALSE = frozenset({"true", "True", "TRUE"}), frozenset({"false", "False", "FALSE"})


@dataclass(slots=True)
class Document:
    """A body as it was written. `table`: it has the shape of a DataFrame, so that its answer is one record per row."""

    given: Callable[[Signature], Given]
    table: bool
    params: Mapping[str, Value] = EMPTY


@dataclass(frozen=True, slots=True)
class Media:
    """What a Content-Type says: whether the body is CSV, and its character set."""

    csv: bool
    charset: str


def media(header: bytes | None) -> Media:
    """Raises UNSUPPORTED for other types than JSON and CSV. No type at all is JSON."""
    if not header or header == b"application/json":
        return Media(csv=False, charset="utf-8")
    message = Message()
    message["content-type"] = header.decode("latin-1")
    kind = message.get_content_type()
    charset = message.get_param("charset", "utf-8")
    if kind not in (_JSON, _CSV):
        raise _unsupported(f"the content type '{kind[:80]}' is not read here")
    if message.get_param("format") is not None:
        raise _unsupported("the content type has a 'format', which MLflow 2 took away")
    try:
        name = codecs.lookup(charset if isinstance(charset, str) else "").name
    except (LookupError, ValueError):
        name = ""
    if name not in _CHARSETS:
        raise _unsupported("the character set of the content type is not read here")
    return Media(kind == _CSV, name)


def document(body: bytes, said: Media) -> Document:
    """Raises INVALID_INPUT (what="body") for what cannot be read, and for none or several of the four shapes."""
    if said.charset != "utf-8":
        try:
            body = body.decode(said.charset).encode()
        except (UnicodeError, ValueError):
            raise _bad(f"the body is not text in {said.charset}") from None
    body = body.removeprefix(_BOM)
    return _csv(body) if said.csv else _json(body)


def _json(body: bytes) -> Document:
    try:
        tree = loads(body, nonfinite=True)
    except JsonSyntaxError as error:
        raise _bad(f"the body is not JSON: {error}") from None
    found = [shape for shape in _SHAPES if shape in tree] if type(tree) is dict else []
    if len(found) != 1:
        came = f"it has {' and '.join(found)}" if found else "it has none" if type(tree) is dict else "it is no object"
        raise _bad(f"the body must be a JSON object with exactly one of {', '.join(_SHAPES)}; {came}")
    params = tree.get("params")
    if type(params) is not dict and params is not None:
        raise _bad("'params' must be an object")
    shape = found[0]
    try:
        given = _SHAPED[shape](tree[shape])
    except ServingError as error:
        error.what = "body"
        raise
    return Document(lambda signature: given, shape.startswith("dataframe"), plain(params) if params else EMPTY)


def _split(value: Any) -> Given:
    if type(value) is not dict or "data" not in value:
        raise _bad("'dataframe_split' must be an object with 'columns' and 'data'")
    columns = value.get("columns")
    if columns is not None and not is_list(columns):
        raise _bad("the columns of 'dataframe_split' must be a list of names")
    return Table.of_rows(None if columns is None else plain(columns), value["data"], "the data of 'dataframe_split'")


def _records(value: Any) -> Given:
    return Table.of_records(value, "'dataframe_records'")


def _instances(value: Any) -> Given:
    if not is_list(value):
        raise _bad("'instances' must be a list")
    return Table.of_records(value, "'instances'") if _holds_objects(value) else Bare(value)


def _inputs(value: Any) -> Given:
    if type(value) is dict:
        return Named(value)
    return Table.of_records(value, "'inputs'") if _holds_objects(value) else Bare(value)


_SHAPED: Mapping[str, Callable[[Any], Given]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _instances,
    "inputs": _inputs,
}


def _holds_objects(value: Any) -> bool:
    return type(value) is list and bool(value) and type(value[0]) is dict


# --- CSV ---


def _csv(body: bytes) -> Document:
    """A header line, then one line per row. Which columns are text, a signature says; the others are read as they look."""
    try:
        lines = [line for line in csv.reader(io.StringIO(body.decode(), newline=""), strict=True) if line]
    except UnicodeDecodeError:
        raise _bad("the body is not text in utf-8") from None
    except csv.Error as error:
        raise _bad(f"the body is not CSV: {error}") from None
    if not lines:
        raise _bad("the body has no header line")
    header = lines.pop(0)
    try:
        names = distinct(header)
    except ServingError as error:
        raise _bad(error.message) from None
    odd = next((index for index, line in enumerate(lines) if len(line) != len(names)), None)
    if odd is not None:
        raise _bad(f"row {odd} of the body has {len(lines[odd])} cells, its header has {len(names)}")
    columns = [list(cells) for cells in zip(*lines, strict=True)] or [[] for _ in names]

    def given(signature: Signature) -> Given:
        text = takes_text(signature)
        return Table.of_columns({n: typed(cells, text=text(n)) for n, cells in zip(names, columns, strict=True)}, "the body")

    return Document(given, table=True)


def typed(cells: list[str], *, text: bool) -> Column:
    """The cells of one column: texts where they are declared, else integers, numbers or booleans if all that are there can be read so.

    An empty cell is a missing value; between numbers the usual words for one are too.
    """
    if not text:
        present = cells if _MISSING.isdisjoint(cells) else [cell for cell in cells if cell not in _MISSING]
        values = _read(present)
        if values is not None:
            following = iter(values)
            return values if present is cells else [None if cell in _MISSING else next(following) for cell in cells]
    return [cell or None for cell in cells]


def _read(cells: list[str]) -> Column | None:
    """Cells as integers, numbers or booleans; None if they are not all of one of these."""
    if "_" not in "".join(cells):  # Python reads 1_000 as a number, nobody else does
        for make in (int, float):
            with suppress(ValueError):
                return list(map(make, cells))
    return [cell in _TRUE for cell in cells] if set(cells) <= _TRUE | _FALSE else None


# --- errors ---


def _bad(message: str) -> ServingError:
    return invalid(message, "body")


def _unsupported(why: str) -> ServingError:
    return ServingError(Kind.UNSUPPORTED, f"{why}; send {_JSON} or {_CSV}", what="media")
