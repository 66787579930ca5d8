"""Statements on models, versions and aliases. Each function runs in the transaction of the connection that it is given."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from dragoman.core.errors import Kind, ServingError
from dragoman.store import StoredVersion
from dragoman.store.tables import model_aliases, model_versions, models

_FIELDS = tuple(c for c in model_versions.c if c.name != "number")


@dataclass(frozen=True, slots=True)
class Addition:
    """What add_version was asked."""

    version: StoredVersion
    aliases: tuple[str, ...]
    replace: bool


def add_version(connection: Connection, addition: Addition) -> None:
    version = addition.version
    name, number = version.model, version.version
    if not connection.scalar(select(func.count()).select_from(models).where(models.c.name == name)):
        connection.execute(insert(models).values(name=name, created=version.created))
    if _exists(connection, name, number):
        if not addition.replace:
            raise ServingError(Kind.CONFLICT, f"version '{number}' of model '{name}' exists already", what="version")
        connection.execute(update(model_versions).where(_is(name, number)).values(_values(version)))
    else:
        connection.execute(insert(model_versions).values(_values(version)))
    _point(connection, name, addition.aliases, number)


def find_version(connection: Connection, model: str, version: str) -> StoredVersion | None:
    row = connection.execute(select(*_FIELDS).where(_is(model, version))).one_or_none()
    return None if row is None else _version(row)


def all_versions(connection: Connection, model: str) -> list[StoredVersion]:
    query = select(*_FIELDS).order_by(model_versions.c.created.desc(), model_versions.c.number.desc())
    return [_version(row) for row in connection.execute(query.where(model_versions.c.model == model) if model else query)]


def remove_version(connection: Connection, model: str, version: str) -> bool:
    """Aliases go with their version, by their foreign key."""
    if not connection.execute(delete(model_versions).where(_is(model, version))).rowcount:
        return False
    others = select(model_versions.c.number).where(model_versions.c.model == model)
    connection.execute(delete(models).where(models.c.name == model, ~others.exists()))
    return True


def all_aliases(connection: Connection, model: str) -> dict[tuple[str, str], str]:
    query = select(model_aliases).order_by(model_aliases.c.model, model_aliases.c.alias)
    rows = connection.execute(query.where(model_aliases.c.model == model) if model else query)
    return {(row.model, row.alias): row.version for row in rows}


def set_alias(connection: Connection, model: str, alias: str, version: str) -> None:
    if not _exists(connection, model, version):
        raise ServingError(Kind.NOT_FOUND, f"model '{model}' has no version '{version}'", what="version")
    _point(connection, model, (alias,), version)


def remove_alias(connection: Connection, model: str, alias: str) -> bool:
    return connection.execute(delete(model_aliases).where(model_aliases.c.model == model, model_aliases.c.alias == alias)).rowcount > 0


def _is(model: str, version: str) -> Any:
    return and_(model_versions.c.model == model, model_versions.c.version == version)


def _exists(connection: Connection, model: str, version: str) -> bool:
    return connection.scalar(select(model_versions.c.number).where(_is(model, version))) is not None


def _point(connection: Connection, model: str, aliases: Iterable[str], version: str) -> None:
    for alias in dict.fromkeys(aliases):
        remove_alias(connection, model, alias)
        connection.execute(insert(model_aliases).values(model=model, alias=alias, version=version))


def _values(version: StoredVersion) -> Mapping[str, object]:
    return {
        "model": version.model,
        "version": version.version,
        "digest": version.digest,
        "created": version.created,
        "kind": version.kind,
        "spec": json.dumps(dict(version.spec)),
        "manifest": json.dumps(dict(version.manifest)),
        "folder": version.folder,
        "source": version.source,
    }


def _version(row: Row[Any]) -> StoredVersion:
    return StoredVersion(**{**row._asdict(), "spec": json.loads(row.spec), "manifest": json.loads(row.manifest)})
