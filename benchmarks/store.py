"""Durable predictions per second, with 1, 8 and 64 concurrent callers, beside a bare `sqlite3` loop with groups of the same sizes.

The bare loop writes the same rows into the same tables with one prepared statement a table and one commit a group, in one thread, with no event
loop, no futures and no SQLAlchemy: what is left of its speed is what those cost.
"""

import asyncio
import sqlite3
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError
from benchmarks.results import Section, Table, Target
from dragoman.core.predictions import Prediction, Progress
from dragoman.store import Change, Store
from dragoman.store.sql import open_store, store_url

CALLERS = (1, 8, 64)
INPUTS = b"x" * 200
_LEAST = 2000
_COLUMNS = "id, model, version, operation, progress, created, owner, attempt, lease_until, error, error_kind, webhook, delivered, caller"
_SWITCH_S = 0.0005
"""As the server sets it."""

Step = Callable[[Store], Awaitable[None]]


def run(models: Models, options: Options) -> Section:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        return asyncio.run(_section(Path(models.folder, "store"), options))
    finally:
        sys.setswitchinterval(before)


async def _section(folder: Path, options: Options) -> Section:
    started = time.perf_counter()
    store = await open_store(store_url(folder))
    made_ms = (time.perf_counter() - started) * 1e3
    await store.close()
    started = time.perf_counter()
    store = await open_store(store_url(folder))
    opened_ms = (time.perf_counter() - started) * 1e3
    rows = []
    most = 0.0
    try:
        for callers in CALLERS:
            turns = [await _turn(store, folder / "dragoman.db", callers, options.seconds / 2) for _ in range(options.pairs)]
            accepted, bare, lives, polls = (median(numbers) for numbers in zip(*turns, strict=True))
            ratios = sorted(turn[0] / turn[1] for turn in turns)
            print(f"  {callers} callers: {accepted:.0f}/s, bare {bare:.0f}/s", flush=True)
            spread = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            rows.append(
                [str(callers), f"{accepted:,.0f}", f"{bare:,.0f}", f"**{median(ratios):.2f}** ({spread})", f"{lives:,.0f}", f"{polls:,.0f}"]
            )
            most = max(most, accepted)
    finally:
        await store.close()
    head = ("callers", "accepted/s", "bare sqlite3/s", "ratio (turns)", "accepted, started and ended/s", "polls/s")
    opening = f"Making the database took {made_ms:.0f} ms, imports included; opening it again in the same process {opened_ms:.1f} ms."
    return Section(
        "store",
        "store: durable predictions in SQLite, 200 bytes of inputs, one process",
        [Table(head, rows), opening],
        [Target(f"at least {_LEAST:,} accepted durable predictions per second", f"{most:,.0f}", most >= _LEAST)],
    )


async def _turn(store: Store, path: Path, callers: int, seconds: float) -> tuple[float, float, float, float]:
    """Accepted, bare, whole lives and polls, per second."""
    accepted = await _rate(store, callers, seconds, _accept)
    bare = await asyncio.to_thread(_bare, path, callers, seconds)
    lives = await _rate(store, callers, seconds, _live)
    known = _prediction()
    await store.add_prediction(known)

    async def poll(store: Store) -> None:
        if await store.prediction(known.id, inputs=False) is None:
            raise BenchmarkError("a prediction that was accepted is not there")

    return accepted, bare, lives, await _rate(store, callers, seconds, poll)


async def _rate(store: Store, callers: int, seconds: float, step: Step) -> float:
    count = 0
    started = time.perf_counter()

    async def call() -> None:
        nonlocal count
        while time.perf_counter() - started < seconds:
            await step(store)
            count += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
    return count / (time.perf_counter() - started)


async def _accept(store: Store) -> None:
    await store.add_prediction(_prediction())


async def _live(store: Store) -> None:
    one = _prediction()
    await store.add_prediction(one)
    begun = await store.change_prediction(Change(one.id, Progress.RUNNING, owner="w", attempt=1, started=1.0))
    if not begun or not await store.change_prediction(
        Change(one.id, Progress.SUCCEEDED, owner="w", attempt=1, outputs=INPUTS, finished=2.0)
    ):
        raise BenchmarkError("a change of an accepted prediction was refused")


def _prediction() -> Prediction:
    return Prediction(uuid.uuid4().hex, "m", "1", "predict", Progress.CLAIMED, INPUTS, time.time(), "w", 1, time.time() + 60)


def _bare(path: Path, group: int, seconds: float) -> float:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        count = 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            ids = [uuid.uuid4().hex for _ in range(group)]
            now = time.time()
            rows = [(one, "m", "1", "predict", "claimed", now, "w", 1, now + 60, "", "", "", 0, "") for one in ids]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(f"INSERT INTO predictions ({_COLUMNS}) VALUES ({', '.join('?' * 14)})", rows)
            parts = [(one, "inputs", INPUTS, len(INPUTS)) for one in ids]
            connection.executemany("INSERT INTO prediction_payloads (prediction, part, data, size) VALUES (?, ?, ?, ?)", parts)
            connection.execute("COMMIT")
            count += group
        return count / (time.perf_counter() - started)
