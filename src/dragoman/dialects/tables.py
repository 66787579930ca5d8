"""Tables, named columns and bare values of a request: the ways in which MLflow's and Seldon's clients write what a model is asked for.

Made by their codecs from parsed JSON or CSV, which may hold NumberLists, and turned into inputs by given.py. Pure; a fault in the shape of a
table is INVALID_INPUT here, one in its values is found when a signature is known.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

from dragoman.core.errors import invalid
from dragoman.core.tensors import Array, Datatype
from dragoman.dialects.json import NumberList, is_list
from dragoman.dialects.rows import plain

Column: TypeAlias = list[Any]

_LISTED = 20


@dataclass(frozen=True, slots=True)
class Named:
    """Whole values by name: one per input, or one column per field."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bare:
    """A value without a name: that of the only input, with one element per row if it is a list."""

    value: Any


class Table:
    """Rows of cells; `names` are those of the columns, None where none came. Cells may be lists."""

    __slots__ = ("_columns", "_records", "_rows", "length", "names", "width")

    def __init__(
        self,
        names: tuple[str, ...] | None,
        length: int,
        width: int,
        rows: "list[Any] | NumberList | None" = None,
        columns: Sequence[Column] | None = None,
        records: list[dict[str, Any]] | None = None,
    ) -> None:
        self.names = names
        self.length = length
        self.width = width
        self._rows = rows
        self._columns = columns
        self._records = records

    @classmethod
    def of_rows(cls, names: Sequence[str] | None, rows: Any, where: str) -> "Table":
        """A list of equally long rows. `where` begins the sentence when it is something else."""
        if not is_list(rows):
            raise invalid(f"{where} must be a list of rows")
        shape = rows.shape if type(rows) is NumberList else None
        if shape is not None:
            if len(shape) < 2:
                raise invalid(f"{where} must be a list of rows, each of them a list")
            widths = {shape[1]}
        else:
            rows = plain(rows) if type(rows) is NumberList else rows
            if not all(map(is_list, rows)):
                at = next(index for index, row in enumerate(rows) if not is_list(row))
                raise invalid(f"{where} must be a list of rows, but row {at} is no list")
            widths = set(map(len, rows))
        if len(widths) > 1:
            raise invalid(f"the rows of {where} have different lengths: {', '.join(map(str, sorted(widths)[:4]))}")
        width = widths.pop() if widths else len(names or ())
        if names is not None and len(names) != width:
            raise invalid(f"{where} has {width} cells in a row for {len(names)} column names")
        return cls(None if names is None else distinct(names), len(rows), width, rows=rows)

    @classmethod
    def of_records(cls, records: Any, where: str) -> "Table":
        """A list of objects by column name; what one of them lacks is a missing value."""
        if type(records) is not list:
            raise invalid(f"{where} must be a list of objects")
        if set(map(type, records)) - {dict}:
            at = next(index for index, row in enumerate(records) if type(row) is not dict)
            raise invalid(f"{where} must be a list of objects, but item {at} is none")
        names = tuple(dict.fromkeys(chain.from_iterable(records)))
        return cls(names, len(records), len(names), records=records)

    @classmethod
    def of_columns(cls, columns: Mapping[str, Column], where: str) -> "Table":
        """Equally long columns by name."""
        lengths = set(map(len, columns.values()))
        if len(lengths) > 1:
            raise invalid(f"the columns of {where} have different lengths: {', '.join(map(str, sorted(lengths)[:4]))}")
        return cls(tuple(columns), lengths.pop() if lengths else 0, len(columns), columns=list(columns.values()))

    def named(self, names: Sequence[str]) -> "Table":
        """The same with these names for its columns."""
        return Table(tuple(names), self.length, self.width, self._rows, self._columns, self._records)

    def rows(self) -> Any:
        """The cells row by row, in the order of the columns: a list of lists, or a NumberList of two dimensions or more."""
        if self._rows is None:
            columns = self.columns()
            self._rows = [list(row) for row in zip(*columns, strict=True)] if columns else []
        return self._rows

    def columns(self) -> Sequence[Column]:
        """The cells column by column."""
        if self._columns is None:
            if self._records is not None:
                assert self.names is not None
                if len(set(map(tuple, self._records))) == 1:  # each with the same names in the same order: no look-up per cell
                    self._columns = [list(cells) for cells in zip(*map(dict.values, self._records), strict=True)]
                else:
                    self._columns = [[row.get(name) for row in self._records] for name in self.names]
            else:
                self._columns = [list(cells) for cells in zip(*self._rows or (), strict=True)]
        return self._columns

    def holds_lists(self) -> bool:
        """Whether there is one column, and the cells of it are lists: each is a whole row of some input."""
        if self.width != 1 or not self.length:
            return False
        if type(self._rows) is NumberList:
            return self._rows.shape is not None and len(self._rows.shape) > 2
        return is_list(self.column(0)[0])

    def column(self, index: int) -> Column:
        """The cells of one column."""
        return self.columns()[index]

    def numbers(self, index: int, datatype: Datatype) -> Array | None:
        """One column of a long table of plain numbers that fit, without a look at each cell; None for any other."""
        return self._rows.column(index, datatype) if type(self._rows) is NumberList else None

    def records(self) -> list[dict[str, Any]]:
        """One new object by column name per row."""
        assert self.names is not None
        names = self.names
        if self._records is not None:
            return [dict(row) for row in self._records]
        return [dict(zip(names, row, strict=True)) for row in plain(self.rows())]


def distinct(names: Sequence[Any]) -> tuple[str, ...]:
    """Column names as texts; numbers, as a DataFrame without names has them, are written out. Raises INVALID_INPUT for others and for doubles."""
    if set(map(type, names)) - {str, int}:
        raise invalid("column names must be texts")
    made = tuple(map(str, names))
    if len(set(made)) < len(made):
        raise invalid(f"the column {quoted([next(name for name, count in Counter(made).items() if count > 1)])} is there twice")
    return made


def quoted(names: Sequence[str]) -> str:
    """Names for a message, the first ones."""
    shown = ", ".join(f"'{name[:80]}'" for name in names[:_LISTED])
    return f"{shown} and {len(names) - _LISTED} more" if len(names) > _LISTED else shown
