"""Statements on predictions. Each function runs in the transaction of the connection that it is given and answers once per argument.

Payloads are handed over and returned as `Payload`: bytes, or the name of a file beside the database. Reading and writing those files is
the store's business (sql.py's SqlStore), before and after the transaction.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import BindParameter, Connection, Row, Select, Update, and_, bindparam, delete, func, insert, or_, select, update

from dragoman.core.predictions import Prediction, Progress
from dragoman.store import Change
from dragoman.store.tables import ENDED, FILED, OWNED, UNDELIVERED, WAITING, payloads, predictions

_COLUMNS = tuple(c for c in predictions.c)
_CHANGEABLE = ("error", "error_kind", "started", "finished", "delivered")
_AT_ONCE = 500
"""Ids in one statement: databases bound the number of parameters."""

# What runs for every call is built once: building a statement takes longer than running it.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_FIND = select(*_COLUMNS).where(predictions.c.id.in_(_IDS))
_LOCK = (
    select(predictions.c.id, predictions.c.progress, predictions.c.owner, predictions.c.attempt)
    .where(predictions.c.id.in_(_IDS))
    .order_by(predictions.c.id)  # so that two that change the same rows do not wait for each other
    .with_for_update()
)
_PARTS = select(payloads).where(payloads.c.prediction.in_(_IDS))
_RESULT_PARTS = _PARTS.where(payloads.c.part != "inputs")
_OLD_PARTS = select(payloads.c.prediction, payloads.c.part, payloads.c.file).where(payloads.c.prediction.in_(_IDS))
_DELETE_PART = delete(payloads).where(payloads.c.prediction == bindparam("of_id"), payloads.c.part == bindparam("of_part"))
_ADD = insert(predictions)
_ADD_PARTS = insert(payloads)


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
    """What became of one change, and which files nothing refers to any more: its own of before, or (in the last) any of the group's."""

    applied: bool
    unused: tuple[str, ...] = ()


# --- adding and changing ---


def add(connection: Connection, new: Sequence[tuple[Prediction, Sequence[Payload]]]) -> list[bool]:
    """True for each. Raises IntegrityError when an id is taken."""
    connection.execute(_ADD, [_row(prediction) for prediction, _ in new])
    parts = [_payload_row(prediction.id, payload) for prediction, several in new for payload in several]
    if parts:
        connection.execute(_ADD_PARTS, parts)
    return [True] * len(new)


def change(connection: Connection, changes: Sequence[tuple[Change, Sequence[Payload]]]) -> list[Written]:
    """Compare in Python what is locked in the database, then set by few statements for all: one by one takes several times as long."""
    locked = _locked(connection, sorted({wanted.id for wanted, _ in changes}))
    values: dict[str, dict[str, object]] = {}
    parts: dict[tuple[str, str], Payload] = {}
    results: list[Written] = []
    for wanted, payload in changes:
        found = locked.get(wanted.id)
        if found is None or not found.as_expected(wanted):
            results.append(Written(False))
            continue
        new = _new_values(wanted)
        found.progress = wanted.progress or found.progress
        found.owner = str(new.get("owner", found.owner))
        values.setdefault(wanted.id, {}).update(new)
        unused = tuple(old.file for one in payload if (old := parts.get((wanted.id, one.part))) and old.file)
        parts |= {(wanted.id, one.part): one for one in payload}
        results.append(Written(True, unused))
    _set(connection, values)
    replaced = _replace_parts(connection, parts)
    return [*results[:-1], Written(results[-1].applied, (*results[-1].unused, *replaced))]


@dataclass(slots=True)
class _Locked:
    progress: Progress
    owner: str
    attempt: int

    def as_expected(self, wanted: Change) -> bool:
        return self.progress in wanted.allowed and wanted.owner in (None, self.owner) and wanted.attempt in (None, self.attempt)


def _locked(connection: Connection, ids: Sequence[str]) -> dict[str, _Locked]:
    rows = _each(connection, _LOCK, ids)
    return {row.id: _Locked(Progress(row.progress), row.owner, row.attempt) for row in rows}


def _new_values(wanted: Change) -> dict[str, object]:
    values: dict[str, object] = {name: getattr(wanted, name) for name in _CHANGEABLE if getattr(wanted, name) is not None}
    if wanted.progress is not None:
        values["progress"] = wanted.progress.value
    if wanted.progress is Progress.PENDING:
        values |= {"owner": "", "lease_until": 0.0, "started": None}
    return values


def _set(connection: Connection, values: Mapping[str, Mapping[str, object]]) -> None:
    shapes: dict[tuple[str, ...], list[dict[str, object]]] = {}
    for prediction_id, new in values.items():
        if new:
            shapes.setdefault(tuple(sorted(new)), []).append({**new, "of_id": prediction_id})
    for names, rows in shapes.items():
        connection.execute(_update(names), rows)


@lru_cache(maxsize=256)
def _update(names: tuple[str, ...]) -> Update:
    return update(predictions).where(predictions.c.id == bindparam("of_id")).values({name: bindparam(name) for name in names})


def _replace_parts(connection: Connection, parts: Mapping[tuple[str, str], Payload]) -> list[str]:
    """The files that these parts had before."""
    if not parts:
        return []
    before = _each(connection, _OLD_PARTS, sorted({prediction_id for prediction_id, _ in parts}))
    old = [row for row in before if (row.prediction, row.part) in parts]
    if old:
        connection.execute(_DELETE_PART, [{"of_id": row.prediction, "of_part": row.part} for row in old])
    connection.execute(_ADD_PARTS, [_payload_row(prediction_id, payload) for (prediction_id, _), payload in parts.items()])
    return [row.file for row in old if row.file]


# --- finding ---


def find(connection: Connection, ids: Sequence[str]) -> list[Found | None]:
    """With all payloads."""
    return _find(connection, ids, _PARTS)


def find_results(connection: Connection, ids: Sequence[str]) -> list[Found | None]:
    """With outputs and logs: clients poll, and inputs may be large."""
    return _find(connection, ids, _RESULT_PARTS)


def _find(connection: Connection, ids: Sequence[str], wanted: Select[Any]) -> list[Found | None]:
    found = {one.prediction.id: one for one in _with_parts(connection, _each(connection, _FIND, ids), wanted)}
    return [found.get(prediction_id) for prediction_id in ids]


def _with_parts(connection: Connection, rows: Sequence[Row[Any]], wanted: Select[Any]) -> list[Found]:
    parts: dict[str, dict[str, Payload]] = {row.id: {} for row in rows}
    for row in _each(connection, wanted, list(parts)):
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
    return [one for one in _find(connection, ids, _PARTS) if one is not None]


def pending_models(connection: Connection) -> list[str]:
    return list(connection.scalars(select(predictions.c.model).where(WAITING).distinct().order_by(predictions.c.model)))


def unfinished(connection: Connection) -> dict[str, tuple[int, int]]:
    """In two queries, so that each is answered from its small index."""
    counts: dict[str, tuple[int, int]] = {}
    for condition in (WAITING, OWNED):
        progress = predictions.c.progress
        for row in connection.execute(
            select(predictions.c.model, progress, func.count()).where(condition).group_by(predictions.c.model, progress)
        ):
            waiting, running = counts.get(row[0], (0, 0))
            runs = row[1] == Progress.RUNNING.value
            counts[row[0]] = (waiting, running + row[2]) if runs else (waiting + row[2], running)
    return counts


def orphans(connection: Connection, now: float, dead: Collection[str]) -> list[Prediction]:
    lost = or_(predictions.c.lease_until < now, predictions.c.owner.in_(dead))
    query = select(*_COLUMNS).where(OWNED, lost).order_by(predictions.c.created, predictions.c.id)
    return [_prediction(row) for row in connection.execute(query)]


def owners(connection: Connection) -> list[str]:
    return list(connection.scalars(select(predictions.c.owner).where(OWNED).distinct().order_by(predictions.c.owner)))


def renew(connection: Connection, owner: str, ids: Sequence[str], lease_until: float) -> None:
    for some in _portions(sorted(ids)):
        mine = and_(OWNED, predictions.c.owner == owner, predictions.c.id.in_(some))
        connection.execute(update(predictions).where(mine).values(lease_until=lease_until))


def kept(connection: Connection, owner: str, ids: Sequence[str]) -> set[str]:
    """Those of these ids that are still this owner's, running or ended by it."""
    still = and_(predictions.c.owner == owner, predictions.c.progress != Progress.CANCELLED.value)
    return {
        found for some in _portions(ids) for found in connection.scalars(select(predictions.c.id).where(still, predictions.c.id.in_(some)))
    }


# --- what has ended ---


def undelivered(connection: Connection, limit: int) -> list[Found]:
    query = select(*_COLUMNS).where(UNDELIVERED).order_by(predictions.c.finished, predictions.c.id).limit(limit)
    return _with_parts(connection, connection.execute(query).all(), _RESULT_PARTS)


def remove(connection: Connection, finished_before: float, limit: int) -> tuple[list[str], list[str]]:
    """The ids of what was removed, and its files."""
    over = select(predictions.c.id).where(ENDED, predictions.c.finished < finished_before)
    ids = list(connection.scalars(over.order_by(predictions.c.finished, predictions.c.id).limit(limit).with_for_update(skip_locked=True)))
    files: list[str] = []
    for some in _portions(ids):
        files += connection.scalars(select(payloads.c.file).where(FILED, payloads.c.prediction.in_(some)))
        connection.execute(delete(payloads).where(payloads.c.prediction.in_(some)))
        connection.execute(delete(predictions).where(predictions.c.id.in_(some)))
    return ids, files


def unknown_files(connection: Connection, names: Collection[str]) -> set[str]:
    return set(names) - set(connection.scalars(select(payloads.c.file).where(FILED, payloads.c.file.in_(names))))


# --- rows ---


def _each(connection: Connection, query: Select[Any], ids: Sequence[str]) -> list[Row[Any]]:
    """The rows of a query that takes ids."""
    return [row for some in _portions(ids) for row in connection.execute(query, {"ids": some})]


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
