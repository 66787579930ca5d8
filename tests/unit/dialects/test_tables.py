"""Tables as codecs make them: rows, records and columns give the same cells, whatever form they came in."""

import json
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import FP32, FP64, INT64
from dragoman.dialects.json import NumberList, loads
from dragoman.dialects.tables import Table, distinct, quoted

LONG = [[i, i + 0.5, -i] for i in range(1500)]
WHOLE = [[i, -i] for i in range(3000)]


def packed(rows: Any) -> NumberList:
    """Rows as our reader gives them when they are many."""
    read = loads(json.dumps({"data": rows}).encode())["data"]
    assert type(read) is NumberList
    return read


def refused(table: Any) -> str:
    with pytest.raises(ServingError) as caught:
        table()
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value.message


def test_rows_records_and_columns_are_one_table() -> None:
    """Each view of each form has the same cells."""
    rows = Table.of_rows(["a", "b"], [[1, "x"], [2, None]], "it")
    records = Table.of_records([{"a": 1, "b": "x"}, {"a": 2}], "it")
    columns = Table.of_columns({"a": [1, 2], "b": ["x", None]}, "it")
    for table in (rows, records, columns):
        assert table.names == ("a", "b")
        assert (table.length, table.width) == (2, 2)
        assert table.rows() == [[1, "x"], [2, None]]
        assert table.columns() == [[1, 2], ["x", None]]
        assert table.column(1) == ["x", None]
        assert table.numbers(0, FP32) is None
    assert rows.records() == columns.records() == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    assert records.records() == [{"a": 1, "b": "x"}, {"a": 2}]


def test_records_are_copies() -> None:
    """What a codec changes in them is not changed in the request."""
    sent = [{"a": 1}]
    Table.of_records(sent, "it").records()[0].clear()
    assert sent == [{"a": 1}]


def test_a_long_table_of_numbers_gives_columns_without_a_look_at_each_cell() -> None:
    """Floats of any column; integers where the whole table has no decimals, else the slow way decides."""
    table = Table.of_rows(["a", "b", "c"], packed(LONG), "it")
    assert (table.length, table.width) == (1500, 3)
    column = table.numbers(1, FP32)
    assert column is not None
    assert column.dtype == np.float32
    assert column.flags.c_contiguous
    assert column.flags.writeable
    assert column.tolist() == [i + 0.5 for i in range(1500)]
    assert table.numbers(0, INT64) is None
    assert table.column(0) == list(range(1500))
    whole = Table.of_rows(None, packed(WHOLE), "it").numbers(1, INT64)
    assert whole is not None
    assert whole.tolist() == [-i for i in range(3000)]


def test_a_long_table_that_is_no_box_of_numbers() -> None:
    """A missing value far in it makes it slow, not wrong."""
    rows: list[list[Any]] = [list(row) for row in LONG]
    rows[700][1] = None
    table = Table.of_rows(["a", "b", "c"], loads(json.dumps({"data": rows}).encode())["data"], "it")
    assert table.numbers(0, FP64) is None
    assert table.column(1)[699:702] == [699.5, None, 701.5]


def test_cells_that_are_lists() -> None:
    """One column of lists holds whole rows of something."""
    assert Table.of_rows(["x"], [[[1, 2]], [[3, 4]]], "it").holds_lists()
    assert Table.of_records([{"x": [1, 2]}], "it").holds_lists()
    assert Table.of_rows(["x"], packed([[[i, i]] for i in range(2000)]), "it").holds_lists()
    assert not Table.of_rows(["x"], [[1], [2]], "it").holds_lists()
    assert not Table.of_rows(["x", "y"], [[[1], [2]]], "it").holds_lists()
    assert not Table.of_rows(["x"], [], "it").holds_lists()


def test_nothing_is_a_table_too() -> None:
    """Without rows the columns are there; without columns there are no cells."""
    empty = Table.of_rows(["a", "b"], [], "it")
    assert (empty.length, empty.width, empty.rows()) == (0, 2, [])
    assert Table.of_records([{}], "it").rows() == []
    assert Table.of_columns({}, "it").length == 0


@pytest.mark.parametrize(
    ("names", "rows", "words"),
    [
        (None, {"a": 1}, "must be a list of rows"),
        (None, "text", "must be a list of rows"),
        (None, [[1], 2], "row 1 is no list"),
        (None, [[1], [2, 3]], "different lengths: 1, 2"),
        (["a"], [[1, 2]], "2 cells in a row for 1 column names"),
        (["a", "a"], [[1, 2]], "the column 'a' is there twice"),
        (["a", None], [[1, 2]], "column names must be texts"),
        (["a", 1.5], [[1, 2]], "column names must be texts"),
        (["a", True], [[1, 2]], "column names must be texts"),
    ],
)
def test_what_is_no_table(names: Any, rows: Any, words: str) -> None:
    """The message says what is wrong with its shape, and where."""
    assert words in refused(lambda: Table.of_rows(names, rows, "it"))


def test_a_long_flat_list_is_no_table() -> None:
    """Also where the numbers were never looked at one by one."""
    assert "each of them a list" in refused(lambda: Table.of_rows(None, packed(list(range(5000))), "it"))


def test_what_are_no_records() -> None:
    """The first that is none is told."""
    assert "a list of objects" in refused(lambda: Table.of_records({"a": 1}, "it"))
    assert "item 1 is none" in refused(lambda: Table.of_records([{"a": 1}, 2], "it"))
    assert "different lengths: 1, 2" in refused(lambda: Table.of_columns({"a": [1], "b": [1, 2]}, "it"))


def test_names() -> None:
    """Numbers are written out, as a DataFrame without names has them; messages list only the first ones."""
    assert distinct([0, "b"]) == ("0", "b")
    assert "'1' is there twice" in refused(lambda: distinct([1, "1"]))
    assert "twice" in refused(lambda: distinct([*map(str, range(100_000)), "99999"]))
    assert quoted(["a", "b"]) == "'a', 'b'"
    listed = quoted([str(n) for n in range(50)])
    assert listed.endswith("'19' and 30 more")
    assert len(quoted(["x" * 500])) == 82
