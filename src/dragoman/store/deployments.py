"""Statements on wishes, and on the workers that apply them. Each function runs in the transaction of the connection that it is given.

Those that write are called in transactions of which there is one at a time (`Database.alone`).
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, select, update

from dragoman.store import Report, Rewrite, Wish
from dragoman.store.models import set_stages
from dragoman.store.tables import registry, reports, wishes, workers

# --- wishes ---


@dataclass(frozen=True, slots=True)
class Wished:
    """What came of a call of `wish`."""

    stands: Wish | Exception
    """What its rewrite raised, otherwise the wish that stands afterwards."""
    new: bool = False


def is_new(wished: Wished) -> bool:
    return wished.new


def wish(connection: Connection, model: str, run: str, rewrite: Rewrite, stages: Mapping[tuple[str, str], str]) -> Wished:
    one = and_(wishes.c.model == model, wishes.c.run == run)
    row = connection.execute(select(wishes).where(one)).one_or_none()
    stands = None if row is None else _wish(row)
    try:
        document = rewrite(stands)
        # Compared as text: 1, 1.0 and True are one to Python, and not to whoever reads them.
        text = None if document is None else _canonical(document)
    except Exception as error:  # its caller's business; nothing is written, and those who share the transaction do not notice
        return Wished(error)
    unchanged = Wished(Wish(model, 0, {}, run) if row is None else _wish(row))
    if text is None:
        return unchanged
    restaged = set_stages(connection, stages, time.time())
    if row is not None and row.document == text and not restaged:
        return unchanged
    connection.execute(update(registry).values(generation=registry.c.generation + 1))
    generation = connection.execute(select(registry.c.generation)).scalar_one()
    values = {"generation": generation, "document": text}
    if row is None:
        connection.execute(insert(wishes).values(model=model, run=run, **values))
    else:
        connection.execute(update(wishes).where(one).values(values))
    return Wished(Wish(model, generation, json.loads(text), run), new=True)


def all_wishes(connection: Connection, since: int) -> list[Wish]:
    query = select(wishes).where(wishes.c.generation > since).order_by(wishes.c.generation)
    return [_wish(row) for row in connection.execute(query)]


def forget_run(connection: Connection, run: str) -> None:
    connection.execute(delete(wishes).where(wishes.c.run == run))


def _wish(row: Row[Any]) -> Wish:
    return Wish(row.model, row.generation, json.loads(row.document), row.run)


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(dict(document), sort_keys=True)


# --- workers and their reports ---


def join(connection: Connection, worker: str, lease_until: float) -> bool:
    if connection.execute(update(workers).where(workers.c.worker == worker).values(lease_until=lease_until)).rowcount:
        return True
    connection.execute(insert(workers).values(worker=worker, lease_until=lease_until))
    return False


def leave(connection: Connection, gone: Sequence[str]) -> bool:
    """Whether any of them was there. Reports go by their foreign key."""
    return connection.execute(delete(workers).where(workers.c.worker.in_(gone))).rowcount > 0


def living(connection: Connection, now: float) -> list[str]:
    return sorted(connection.scalars(select(workers.c.worker).where(workers.c.lease_until >= now)))


def report(connection: Connection, new: Sequence[Report]) -> bool:
    """Whether anything was written."""
    counted = _counted(connection, {one.worker for one in new})
    written = False
    for one in new:
        if one.worker not in counted:
            continue
        values = {"generation": one.generation, "failures": json.dumps(dict(one.failures))}
        mine = and_(reports.c.worker == one.worker, reports.c.model == one.model)
        if not connection.execute(update(reports).where(mine).values(values)).rowcount:
            connection.execute(insert(reports).values(worker=one.worker, model=one.model, **values))
        written = True
    return written


def reports_on(connection: Connection, model: str) -> list[Report]:
    rows = connection.execute(select(reports).where(reports.c.model == model))
    found = [Report(row.worker, row.model, row.generation, json.loads(row.failures)) for row in rows]
    return sorted(found, key=lambda one: one.worker)


def _counted(connection: Connection, names: Collection[str]) -> set[str]:
    """Those of them that have joined."""
    return set(connection.scalars(select(workers.c.worker).where(workers.c.worker.in_(sorted(names)))))
