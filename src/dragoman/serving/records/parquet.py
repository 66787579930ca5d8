"""Records as Parquet files (extra `parquet`): one row per record; requests and answers as JSON text. Opened by sinks.py, by name.

A Parquet file cannot grow, so rows are gathered and written as a whole file: at so many rows, or when they have waited for a while.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.fetch_policy import FetchPolicy
from dragoman.serving.records import Record
from dragoman.serving.records.places import Place
from dragoman.serving.records.settings import Wanted

MOST_ROWS = 10_000
"""Of one file, where no batch is asked for."""
_MOST_BYTES = 16 << 20
_TEXTS = ("class", "worker", "model", "version", "host", "function_uri", "op", "error")
_JSONS = ("labels", "request", "resp", "metrics")


class ParquetFiles:
    """FILE.parquet becomes FILE-WORKER-MILLISECONDS-NUMBER.parquet; each appears whole."""

    def __init__(self, place: Place, wanted: Wanted, policy: FetchPolicy, worker: int, environ: Mapping[str, str]) -> None:
        place.check_installed()
        self._path = place.path
        self._stem = f"{place.path.stem}-{worker}-{time.time_ns() // 1_000_000}"
        self._most = wanted.batch if wanted.batch > 1 else MOST_ROWS
        self._rows: list[dict[str, Any]] = []
        self._number = 0

    async def send(self, records: Sequence[Record]) -> Sequence[Record]:
        before = len(self._rows)
        self._rows += await asyncio.to_thread(lambda: [_row(record) for record in records])
        try:
            while len(self._rows) >= self._most:
                await self._write(self._most)
                before = max(0, before - self._most)
            if sum(map(_size, self._rows)) > _MOST_BYTES:
                await self.flush()
        except ServingError:
            del self._rows[before:]  # the caller has them, and sends them again
            raise
        return ()

    async def flush(self) -> None:
        if self._rows:
            await self._write(len(self._rows))

    async def close(self) -> None:
        """`flush` came before."""

    async def _write(self, count: int) -> None:
        path = self._path.with_name(f"{self._stem}-{self._number}{self._path.suffix}")
        await asyncio.to_thread(write, self._rows[:count], path)
        self._number += 1
        del self._rows[:count]


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One file, under its name only when it is whole. Raises UNAVAILABLE where it cannot be written."""
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    schema = pyarrow.schema(
        [
            *((name, text) for name in _TEXTS),
            *((name, text) for name in _JSONS),
            ("when", pyarrow.timestamp("us", tz="UTC")),
            ("microsec", pyarrow.int64()),
        ]
    )
    written = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), written, compression="snappy")
        written.rename(path)
    except OSError as error:
        raise ServingError(Kind.UNAVAILABLE, f"{path} cannot be written: {error.strerror or error}") from error


def _size(row: Mapping[str, Any]) -> int:
    return len(row["request"] or "") + len(row["resp"] or "")


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {name: record.get(name) for name in _TEXTS}
    row |= {name: orjson.dumps(record[name]).decode() if name in record else None for name in _JSONS}
    return {**row, "when": datetime.fromisoformat(record["when"]), "microsec": record["microsec"]}
