"""Statements on documents: small JSON objects with a key, for what one part keeps and nothing else reads (MLflow's runs, jobs).

Each function runs in the transaction of the connection that it is given; those that write are called in transactions of which there is one
at a time (`Database.alone`).
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, update

from dragoman.store import Edit
from dragoman.store.tables import documents


def find_document(connection: Connection, kind: str, key: str) -> dict[str, Any] | None:
    body = connection.scalar(select(documents.c.body).where(and_(documents.c.kind == kind, documents.c.key == key)))
    return None if body is None else _read(body)


def all_documents(connection: Connection, kind: str, groups: Sequence[str] | None) -> list[dict[str, Any]]:
    wanted = documents.c.kind == kind if groups is None else and_(documents.c.kind == kind, documents.c.group.in_(groups))
    return [_read(body) for body in connection.scalars(select(documents.c.body).where(wanted).order_by(documents.c.number))]


def edit_document(connection: Connection, kind: str, key: str, group: str, edit: Edit) -> dict[str, Any] | Exception:
    """The document that stands then, or what `edit` raised: nothing is written then, and who shares the transaction does not notice."""
    one = and_(documents.c.kind == kind, documents.c.key == key)
    body = connection.scalar(select(documents.c.body).where(one))
    try:
        text = json.dumps(dict(edit(None if body is None else _read(body))))
    except Exception as error:
        return error
    if body is None:
        connection.execute(insert(documents).values(kind=kind, key=key, group=group, body=text))
    elif text != body:
        connection.execute(update(documents).where(one).values(body=text))
    return _read(text)


def remove_document(connection: Connection, kind: str, key: str) -> bool:
    return connection.execute(delete(documents).where(and_(documents.c.kind == kind, documents.c.key == key))).rowcount > 0


def _read(body: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)
    return found
