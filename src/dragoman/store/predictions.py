"""Statements on predictions. Each function runs in the transaction of the connection that it is given and answers once per argument.

Payloads are handed over and returned as `Payload`: bytes, or the name of a file beside the database. Reading and writing those files is
the store's business (sql.py's SqlStore), before and after the transaction.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Update, and_, bindparam, delete, insert, or_, select, update

from dragoman.core.predictions import Prediction, Progress
from dragoman.store import Change
from dragoman.store.tables import ENDED, FILED, OWNED, UNDELIVERED, WAITING, payloads, predictions

_COLUMNS = tuple(c for c in predictions.c)
_CHANGEABLE = ("error", "error_kind", "started", "finished", "delivered")
_AT_ONCE = 500
"""Ids in one statement: databases bound the number of parameters."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One part of a prediction: its content, or the file that holds it."""

    part: str
    """inputs, outputs or logs."""
    data: bytes | None
    file: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """A prediction as its row says, without payloads, and these beside it."""

    prediction: Prediction
    parts: Mapping[str, Payload] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one change, and which files nothing refers to any more."""

    applied: bool
    unused: tuple[str, ...] = ()


# --- adding and changing ---


def add(connection: Connection, new: Sequence[tuple[Prediction, Sequence[Payload]]]) -> list[bool]:
    """True for each. Raises IntegrityError when an id is taken."""
    connection.execute(insert(predictions), [_row(prediction) for prediction, _ in new])
    parts = [_payload_row(prediction.id, payload) for prediction, several in new for payload in several]
    if parts:
        connection.execute(insert(payloads), parts)
    return [True] * len(new)


def change(connection: Connection, changes: Sequence[tuple[Change, Sequence[Payload]]]) -> list[Written]:
    return [_change(connection, one, parts) for one, parts in changes]


def _change(connection: Connection, wanted: Change, parts: Sequence[Payload]) -> Written:
    values = {name: getattr(wanted, name) for name in _CHANGEABLE if getattr(wanted, name) is not None}
    allowed = tuple(sorted(p.value for p in wanted.allowed))
    statement = _update(tuple(values), wanted.progress, allowed, wanted.owner is not None, wanted.attempt is not None)
    where = {"of_id": wanted.id, "of_owner": wanted.owner, "of_attempt": wanted.attempt}
    where = {name: value for name, value in where.items() if value is not None}
    if not allowed or connection.execute(statement, {**values, **where}).rowcount != 1:
        return Written(False)
    unused: list[str] = []
    for payload in parts:
        old = delete(payloads).where(payloads.c.prediction == wanted.id, payloads.c.part == payload.part).returning(payloads.c.file)
        unused += [name for name in connection.scalars(old) if name]
        connection.execute(insert(payloads), _payload_row(wanted.id, payload))
    return Written(True, tuple(unused))


@lru_cache(maxsize=512)
def _update(names: tuple[str, ...], progress: Progress | None, allowed: tuple[str, ...], owned: bool, counted: bool) -> Update:
    """There are few shapes of changes, and building a statement takes longer than running it."""
    statement = update(predictions).where(predictions.c.id == bindparam("of_id"), predictions.c.progress.in_(allowed))
    if owned:
        statement = statement.where(predictions.c.owner == bindparam("of_owner"))
    if counted:
        statement = statement.where(predictions.c.attempt == bindparam("of_attempt"))
    values: dict[str, Any] = {name: bindparam(name) for name in names}
    if progress is not None:
        values["progress"] = progress.value
    if progress is Progress.PENDING:
        values |= {"owner": "", "lease_until": 0.0, "started": None}
    return statement.values(values or {"id": predictions.c.id})


# --- finding ---


def find(connection: Connection, ids: Sequence[str]) -> list[Found | None]:
    """With all payloads."""
    return _find(connection, ids, without=())


def find_results(connection: Connection, ids: Sequence[str]) -> list[Found | None]:
    """With outputs and logs: clients poll, and inputs may be large."""
    return _find(connection, ids, without=("inputs",))


def _find(connection: Connection, ids: Sequence[str], *, without: Sequence[str]) -> list[Found | None]:
    rows = [row for some in _portions(ids) for row in connection.execute(select(*_COLUMNS).where(predictions.c.id.in_(some)))]
    found = {one.prediction.id: one for one in _with_parts(connection, rows, without)}
    return [found.get(prediction_id) for prediction_id in ids]


def _with_parts(connection: Connection, rows: Iterable[Row[Any]], without: Sequence[str] = ()) -> list[Found]:
    parts: dict[str, dict[str, Payload]] = {row.id: {} for row in rows}
    wanted = select(payloads).where(payloads.c.part.not_in(without)) if without else select(payloads)
    for some in _portions(list(parts)):
        for row in connection.execute(wanted.where(payloads.c.prediction.in_(some))):
            parts[row.prediction][row.part] = Payload(row.part, row.data, row.file, row.size)
    return [Found(_prediction(row), parts[row.id]) for row in rows]


# --- running ---


@dataclass(frozen=True, slots=True)
class Claim:
    owner: str
    models: tuple[str, ...]
    lease_until: float
    limit: int


def claim(connection: Connection, wanted: Claim) -> list[Found]:
    """Where rows can be locked (PostgreSQL), rows that another claims at this moment are passed over."""
    waiting = (
        select(predictions.c.id).where(WAITING, predictions.c.model.in_(wanted.models)).order_by(predictions.c.created, predictions.c.id)
    )
    ids = list(connection.scalars(waiting.limit(wanted.limit).with_for_update(skip_locked=True)))
    values = {"progress": Progress.CLAIMED.value, "owner": wanted.owner, "lease_until": wanted.lease_until}
    for some in _portions(ids):
        connection.execute(update(predictions).where(predictions.c.id.in_(some)).values(**values, attempt=predictions.c.attempt + 1))
    return [one for one in _find(connection, ids, without=()) if one is not None]


def pending_models(connection: Connection) -> list[str]:
    return list(connection.scalars(select(predictions.c.model).where(WAITING).distinct().order_by(predictions.c.model)))


def orphans(connection: Connection, now: float, dead: Collection[str]) -> list[Prediction]:
    lost = or_(predictions.c.lease_until < now, predictions.c.owner.in_(dead))
    query = select(*_COLUMNS).where(OWNED, lost).order_by(predictions.c.created, predictions.c.id)
    return [_prediction(row) for row in connection.execute(query)]


def owners(connection: Connection) -> list[str]:
    return list(connection.scalars(select(predictions.c.owner).where(OWNED).distinct().order_by(predictions.c.owner)))


def renew(connection: Connection, owner: str, lease_until: float) -> None:
    connection.execute(update(predictions).where(OWNED, predictions.c.owner == owner).values(lease_until=lease_until))


def kept(connection: Connection, owner: str, ids: Sequence[str]) -> set[str]:
    """Those of these ids that are still this owner's, running or ended by it."""
    still = and_(predictions.c.owner == owner, predictions.c.progress != Progress.CANCELLED.value)
    return {
        found for some in _portions(ids) for found in connection.scalars(select(predictions.c.id).where(still, predictions.c.id.in_(some)))
    }


# --- what has ended ---


def undelivered(connection: Connection, limit: int) -> list[Found]:
    query = select(*_COLUMNS).where(UNDELIVERED).order_by(predictions.c.finished, predictions.c.id).limit(limit)
    return _with_parts(connection, list(connection.execute(query)), ("inputs",))


def remove(connection: Connection, finished_before: float, limit: int) -> tuple[list[str], list[str]]:
    """The ids of what was removed, and its files."""
    over = select(predictions.c.id).where(ENDED, predictions.c.finished < finished_before)
    ids = list(connection.scalars(over.order_by(predictions.c.finished, predictions.c.id).limit(limit)))
    files: list[str] = []
    for some in _portions(ids):
        files += connection.scalars(select(payloads.c.file).where(FILED, payloads.c.prediction.in_(some)))
        connection.execute(delete(payloads).where(payloads.c.prediction.in_(some)))
        connection.execute(delete(predictions).where(predictions.c.id.in_(some)))
    return ids, files


def unknown_files(connection: Connection, names: Collection[str]) -> set[str]:
    return set(names) - set(connection.scalars(select(payloads.c.file).where(FILED, payloads.c.file.in_(names))))


# --- rows ---


def _portions(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]


def _row(prediction: Prediction) -> dict[str, object]:
    row: dict[str, object] = {column.name: getattr(prediction, column.name) for column in _COLUMNS}
    row["progress"] = prediction.progress.value
    return row


def _payload_row(prediction_id: str, payload: Payload) -> dict[str, object]:
    return {"prediction": prediction_id, "part": payload.part, "data": payload.data, "file": payload.file, "size": payload.size}


def _prediction(row: Row[Any]) -> Prediction:
    return Prediction(**{**row._asdict(), "progress": Progress(row.progress), "inputs": b""})
