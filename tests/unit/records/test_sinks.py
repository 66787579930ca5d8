"""Places that take records: files of lines, tables, an HTTP receiver. What is written, what is kept, what can be sent again."""

import asyncio
import json
import os
import resource
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import EMPTY
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.records import Record, Sink
from dragoman.serving.records.parquet import ParquetFiles
from dragoman.serving.records.places import parse
from dragoman.serving.records.settings import Wanted
from dragoman.serving.records.sinks import JsonLines, Sinks
from tests.servables import run
from tests.unit.test_webhooks import receiver, status

STRICT = FetchPolicy.parse([])


def record(number: int, **more: Any) -> dict[str, Any]:
    """A record as forms.py makes them."""
    fields = {"class": "toy", "worker": "0", "model": "m", "version": "1", "host": "h", "function_uri": "f", "op": "predict"}
    when = "2026-01-31 12:00:00.000001+00:00"
    return {**fields, "request": {"id": str(number), "inputs": [[1, 2]]}, "resp": {"outputs": [3]}, "when": when, "microsec": 5, **more}


def opened(url: str, *, worker: int = 0, trusted: bool = True, batch: int = 1) -> Sink:
    place = parse(url)
    return Sinks(STRICT, worker)(place, Wanted(place, batch=batch, trusted=trusted))


def send(sink: Sink, *batches: Sequence[Record]) -> None:
    """Each batch, with a flush in the end."""

    async def test() -> None:
        for batch in batches:
            assert list(await sink.send(batch)) == []
        await sink.flush()
        await sink.close()

    run(test)


def halves(folder: Path) -> list[str]:
    """Files that are neither lines nor a whole table."""
    return [path.name for path in folder.iterdir() if path.suffix != ".jsonl"]


def lines(path: Path) -> list[str]:
    return [json.loads(line)["request"]["id"] for line in path.read_text().splitlines()]


# --- files of lines ---


def test_a_file_per_worker(tmp_path: Path) -> None:
    """One record a line; a later start goes on where the last one ended."""
    url = str(tmp_path / "deep" / "r.jsonl")
    send(opened(url), [record(1), record(2)], [record(3)])
    send(opened(url, worker=1), [record(4)])
    send(opened(url), [record(5)])
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["r-0.jsonl", "r-1.jsonl"]
    assert lines(tmp_path / "deep" / "r-0.jsonl") == ["1", "2", "3", "5"]
    assert json.loads((tmp_path / "deep" / "r-1.jsonl").read_text()) == record(4)


def test_files_are_for_the_server_alone(tmp_path: Path) -> None:
    """What people asked is in there."""
    send(opened(str(tmp_path / "new" / "r.jsonl")), [record(1)])
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "r-0.jsonl").stat().st_mode) == 0o600


def test_a_file_that_has_become_large(tmp_path: Path) -> None:
    """Is put aside; older ones move up, and the oldest goes."""
    sink = JsonLines(tmp_path / "r.jsonl", 2 * (len(orjson.dumps(record(1))) + 1), keep=2)
    for number in range(1, 8):
        send(sink, [record(number)])
    kept = {name: lines(tmp_path / name) for name in os.listdir(tmp_path)}
    assert kept == {"r.jsonl": ["7"], "r.jsonl.1": ["5", "6"], "r.jsonl.2": ["3", "4"]}


def test_nothing_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    """A full file is begun anew."""
    sink = JsonLines(tmp_path / "r.jsonl", 10, keep=0)
    send(sink, [record(1)], [record(2)])
    assert os.listdir(tmp_path) == ["r.jsonl"]
    assert lines(tmp_path / "r.jsonl") == ["2"]


@pytest.mark.parametrize("make", ["link", "pipe", "folder", "no folder"])
def test_a_place_that_is_no_file(tmp_path: Path, make: str) -> None:
    """Links are not followed, pipes are not waited for, and what cannot be written may be tried again."""
    path, outside = tmp_path / "r-0.jsonl", tmp_path / "outside"
    outside.write_text("mine")
    if make == "link":
        path.symlink_to(outside)
    elif make == "pipe":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    sink = opened(str(outside / "r.jsonl" if make == "no folder" else tmp_path / "r.jsonl"))

    async def test() -> None:
        with pytest.raises(ServingError) as caught:
            await sink.send([record(1)])
        assert caught.value.kind in (Kind.UNAVAILABLE, Kind.FORBIDDEN)

    run(test)
    assert outside.read_text() == "mine"


def test_a_file_that_is_removed_is_made_again(tmp_path: Path) -> None:
    """As tools that move logs away do it."""
    sink = opened(str(tmp_path / "r.jsonl"))
    send(sink, [record(1)])
    (tmp_path / "r-0.jsonl").rename(tmp_path / "moved")
    send(sink, [record(2)])
    assert lines(tmp_path / "r-0.jsonl") == ["2"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_disk_that_is_full(tmp_path: Path, suffix: str) -> None:
    """Nothing is written by halves; when there is room again the same records are there once."""
    sink = opened(str(tmp_path / f"r.{suffix}"), batch=20)
    records = [record(number) for number in range(20)]

    async def test() -> None:
        assert list(await sink.send(records[:2])) == []
        before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, most))
        try:
            with pytest.raises(ServingError) as caught:
                await sink.send(records[2:])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
        assert caught.value.kind is Kind.UNAVAILABLE
        assert halves(tmp_path) == []
        await sink.send(records[2:])
        await sink.flush()

    run(test)
    written = lines(tmp_path / "r-0.jsonl") if suffix == "jsonl" else [json.loads(row["request"])["id"] for row in rows(tmp_path)]
    assert written == [str(number) for number in range(20)]


# --- tables ---


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.parquet")):
        found += pyarrow.parquet.read_table(path).to_pylist()
    return found


def test_a_table(tmp_path: Path) -> None:
    """A row per record, requests and answers as JSON; the time is one."""
    failed = {name: value for name, value in record(2, error="it burns", labels={"a": "b"}).items() if name != "resp"}
    send(opened(str(tmp_path / "r.parquet")), [record(1, metrics={"x": 1})], [failed])
    one, other = rows(tmp_path)
    assert one | {"when": str(one["when"])} == {
        **{name: value for name, value in record(1).items() if isinstance(value, str)},
        "request": '{"id":"1","inputs":[[1,2]]}', "resp": '{"outputs":[3]}', "metrics": '{"x":1}', "labels": None, "error": None, "microsec": 5,
    }  # fmt: skip
    assert (other["error"], other["resp"], other["labels"]) == ("it burns", None, '{"a":"b"}')


def test_tables_have_so_many_rows(tmp_path: Path) -> None:
    """As many as a batch has; what is left over follows at the end. No file is seen before it is whole."""
    sink = opened(str(tmp_path / "r.parquet"), batch=2)
    send(sink, [record(number) for number in range(3)], [record(3), record(4)])
    assert [pyarrow.parquet.read_metadata(path).num_rows for path in sorted(tmp_path.iterdir())] == [2, 2, 1]
    assert all(path.name.startswith("r-0-") for path in tmp_path.iterdir())
    assert [json.loads(row["request"])["id"] for row in rows(tmp_path)] == ["0", "1", "2", "3", "4"]


def test_a_table_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    """Records that are sent again are not in it twice."""
    (tmp_path / "deep").write_text("in the way")
    place = parse(str(tmp_path / "deep" / "r.parquet"))
    sink = ParquetFiles(place, Wanted(place, batch=2), STRICT, 0, EMPTY)

    async def test() -> None:
        await sink.send([record(1)])
        with pytest.raises(ServingError) as caught:
            await sink.send([record(2)])
        assert caught.value.kind is Kind.UNAVAILABLE
        (tmp_path / "deep").unlink()
        await sink.send([record(2)])

    run(test)
    assert len(rows(tmp_path / "deep")) == 2


# --- HTTP ---


def test_a_receiver_gets_each_record() -> None:
    """As JSON, by POST; the host that the operator named needs no allow-list."""

    async def test() -> None:
        async with receiver(lambda number: status(204)) as found:
            sink = opened(found.url())
            assert not await sink.send([record(1), record(2)])
            assert sorted(json.loads(body)["request"]["id"] for _, body in found.requests) == ["1", "2"]
            head = found.requests[0][0].lower()
            assert head.startswith("post /hook http/1.1")
            assert "content-type: application/json" in head

    run(test)


def test_what_was_taken_is_not_sent_again() -> None:
    """When one of several fails, an attempt afterwards sends that one only; another set of records begins anew."""

    async def test() -> None:
        answers = [status(200), status(503), status(200), status(200), status(200)]
        async with receiver(lambda number: answers[number - 1]) as found:
            sink = opened(found.url())
            records = [record(1), record(2)]
            with pytest.raises(ServingError) as caught:
                await sink.send(records)
            assert caught.value.kind is Kind.UNAVAILABLE
            assert not await sink.send(records)
            assert len(found.requests) == 3
            assert not await sink.send([record(1), record(2)])
            assert len(found.requests) == 5

    run(test)


def test_a_receiver_that_refuses() -> None:
    """4xx is final, for that record; a batch counts as one."""

    async def test() -> None:
        async with receiver(lambda number: status(400 if number == 1 else 200)) as found:
            one = record(1)
            assert await opened(found.url()).send([one]) == [one]
            assert not await opened(found.url()).send([one])

    run(test)


@pytest.mark.parametrize("code", [408, 425, 429, 500, 503])
def test_a_receiver_that_is_busy(code: int) -> None:
    """May be asked again."""

    async def test() -> None:
        async with receiver(lambda number: status(code)) as found:
            with pytest.raises(ServingError, match=f"answers {code}") as caught:
                await opened(found.url()).send([record(1)])
            assert caught.value.kind is Kind.UNAVAILABLE

    run(test)


@pytest.mark.parametrize("kind", ["http", "kafka"])
def test_a_host_that_a_client_named(kind: str) -> None:
    """Is called only where the allow-list lets it pass."""

    async def test() -> None:
        url = "http://127.0.0.1:9/x" if kind == "http" else "kafka://127.0.0.1:9/t"
        sink = opened(url, trusted=False)
        with pytest.raises(ServingError, match="loopback") as caught:
            await sink.send([record(1)])
        assert caught.value.kind is Kind.FORBIDDEN
        await sink.close()

    run(test)


def test_a_broker_that_is_away() -> None:
    """May be asked again; its client is gone when that is known."""

    async def test() -> None:
        place = parse("kafka://127.0.0.1:9/t")
        sink = Sinks(replace(STRICT, timeout_s=1))(place, Wanted(place))
        with pytest.raises(ServingError) as caught:
            await sink.send([record(1)])
        assert caught.value.kind is Kind.UNAVAILABLE
        await sink.flush()
        await sink.close()
        await asyncio.sleep(0)

    run(test)
