"""Statements on models, versions, aliases and tags. Each function runs in the transaction of the connection that it is given.

Those that write are called in transactions of which there is one at a time (`Database.alone`): what they look at is so when they write.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select, update

from dragoman.core.errors import Kind, ServingError
from dragoman.store import RegisteredModel, StoredVersion
from dragoman.store.tables import held, model_aliases, model_tags, model_versions, models, version_tags

_HIGHEST = 2**31 - 1
"""Of the numbers that are given to versions: the protocols count in 32 bits."""
_MODEL_FIELDS = tuple(c for c in models.c if c.name != "kept")
_NEWEST_FIRST = select(model_versions).order_by(model_versions.c.created.desc(), model_versions.c.number.desc())


@dataclass(frozen=True, slots=True)
class Addition:
    """What add_version was asked."""

    version: StoredVersion
    aliases: tuple[str, ...] = ()
    replace: bool = False
    reuse: Callable[[StoredVersion], bool] | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """What change_version was asked."""

    updated: float
    description: str | None
    stage: str | None
    facts: Mapping[str, str]
    archive: str


# --- models ---


def add_model(connection: Connection, model: RegisteredModel) -> RegisteredModel:
    if _has(connection, model.name):
        raise ServingError(Kind.CONFLICT, f"model '{model.name}' exists already", what="model")
    _insert_model(connection, model, kept=True)
    _set_tags(connection, model.tags, model=model.name)
    return _model_as_stored(connection, model.name)


def find_model(connection: Connection, name: str) -> RegisteredModel | None:
    row = connection.execute(select(*_MODEL_FIELDS).where(models.c.name == name)).one_or_none()
    return None if row is None else _model(row, _model_tags(connection, name).get(row.name, {}))


def all_models(connection: Connection) -> list[RegisteredModel]:
    rows = connection.execute(select(*_MODEL_FIELDS)).all()
    tags = _model_tags(connection)
    # Sorted here: databases differ in what comes first.
    return sorted((_model(row, tags.get(row.name, {})) for row in rows), key=lambda model: model.name)


def change_model(connection: Connection, name: str, updated: float, new_name: str | None, description: str | None) -> RegisteredModel:
    _expect_model(connection, name)
    if new_name is not None and held(new_name) != held(name) and _has(connection, new_name):
        raise ServingError(Kind.CONFLICT, f"model '{name}' cannot be called '{new_name}': there is a model of that name", what="model")
    values: dict[str, object] = {"updated": updated}
    values |= {} if new_name is None else {"name": new_name}  # its versions, aliases and tags follow by their foreign keys
    values |= {} if description is None else {"description": description}
    connection.execute(update(models).where(models.c.name == name).values(values))
    return _model_as_stored(connection, name if new_name is None else new_name)


def remove_model(connection: Connection, name: str) -> bool:
    """What belongs to it goes by its foreign keys."""
    return connection.execute(delete(models).where(models.c.name == name)).rowcount > 0


def tag_model(connection: Connection, name: str, key: str, value: str | None, updated: float) -> None:
    _expect_model(connection, name)
    connection.execute(delete(model_tags).where(model_tags.c.model == name, model_tags.c.key == key))
    _set_tags(connection, {} if value is None else {key: value}, model=name)
    connection.execute(update(models).where(models.c.name == name).values(updated=updated))


# --- versions ---


def add_version(connection: Connection, addition: Addition) -> StoredVersion:
    version = addition.version
    name, number = version.model, version.version
    same = None if addition.reuse is None else next(filter(addition.reuse, _of_digest(connection, name, version.digest)), None)
    if same is not None:
        _point(connection, name, addition.aliases, same.version)
        return same
    updated = version.updated or version.created
    if not _has(connection, name):
        _insert_model(connection, RegisteredModel(name, version.created, updated), kept=False)
    number = number or _next_number(connection, name)
    values = {**_values(version), "version": number, "updated": updated}
    if not _exists(connection, name, number):
        connection.execute(insert(model_versions).values(values))
    elif addition.replace:
        connection.execute(update(model_versions).where(_is(name, number)).values(values))
        connection.execute(delete(version_tags).where(version_tags.c.model == name, version_tags.c.version == number))
    else:
        raise ServingError(Kind.CONFLICT, f"version '{number}' of model '{name}' exists already", what="version")
    _set_tags(connection, version.tags, model=name, version=number)
    _point(connection, name, addition.aliases, number)
    _touch(connection, name, updated)
    return _version_as_stored(connection, name, number)


def change_version(connection: Connection, model: str, version: str, edit: Edit) -> StoredVersion:
    found = _version_as_stored(connection, model, version)
    values: dict[str, object] = {"updated": edit.updated}
    values |= {} if edit.description is None else {"description": edit.description}
    values |= {} if edit.stage is None else {"stage": edit.stage}
    values |= {"facts": json.dumps({**found.facts, **edit.facts})} if edit.facts else {}
    connection.execute(update(model_versions).where(_is(model, version)).values(values))
    if edit.stage is not None and edit.archive:
        others = and_(model_versions.c.model == model, model_versions.c.version != version, model_versions.c.stage == edit.stage)
        connection.execute(update(model_versions).where(others).values(stage=edit.archive, updated=edit.updated))
    _touch(connection, model, edit.updated)
    return _version_as_stored(connection, model, version)


def tag_version(connection: Connection, model: str, version: str, key: str, value: str | None, updated: float) -> None:
    _expect_version(connection, model, version)
    tag = and_(version_tags.c.model == model, version_tags.c.version == version, version_tags.c.key == key)
    connection.execute(delete(version_tags).where(tag))
    _set_tags(connection, {} if value is None else {key: value}, model=model, version=version)
    connection.execute(update(model_versions).where(_is(model, version)).values(updated=updated))


def set_stages(connection: Connection, stages: Mapping[tuple[str, str], str], updated: float) -> bool:
    """Whether that changed any. Raises NOT_FOUND."""
    changed = False
    for (model, version), stage in stages.items():
        _expect_version(connection, model, version)
        other = and_(_is(model, version), model_versions.c.stage != stage)
        if connection.execute(update(model_versions).where(other).values(stage=stage, updated=updated)).rowcount:
            _touch(connection, model, updated)
            changed = True
    return changed


def find_version(connection: Connection, model: str, version: str) -> StoredVersion | None:
    row = connection.execute(select(model_versions).where(_is(model, version))).one_or_none()
    return None if row is None else _version(row, _version_tags(connection, model, version).get((row.model, row.version), {}))


def all_versions(connection: Connection, model: str) -> list[StoredVersion]:
    rows = connection.execute(_NEWEST_FIRST.where(model_versions.c.model == model) if model else _NEWEST_FIRST).all()
    tags = _version_tags(connection, model)
    return [_version(row, tags.get((row.model, row.version), {})) for row in rows]


def remove_version(connection: Connection, model: str, version: str) -> bool:
    """Aliases and tags go with their version, by their foreign keys."""
    if not connection.execute(delete(model_versions).where(_is(model, version))).rowcount:
        return False
    others = select(model_versions.c.number).where(model_versions.c.model == model)
    connection.execute(delete(models).where(models.c.name == model, ~models.c.kept, ~others.exists()))
    return True


# --- aliases ---


def all_aliases(connection: Connection, model: str) -> dict[tuple[str, str], str]:
    rows = connection.execute(select(model_aliases).where(model_aliases.c.model == model) if model else select(model_aliases))
    return dict(sorted(((row.model, row.alias), row.version) for row in rows))


def set_alias(connection: Connection, model: str, alias: str, version: str) -> None:
    _expect_version(connection, model, version)
    _point(connection, model, (alias,), version)


def remove_alias(connection: Connection, model: str, alias: str) -> bool:
    return connection.execute(delete(model_aliases).where(model_aliases.c.model == model, model_aliases.c.alias == alias)).rowcount > 0


# --- inside ---


def _is(model: str, version: str) -> ColumnElement[bool]:
    return and_(model_versions.c.model == model, model_versions.c.version == version)


def _has(connection: Connection, model: str) -> bool:
    return connection.scalar(select(models.c.number).where(models.c.name == model)) is not None


def _exists(connection: Connection, model: str, version: str) -> bool:
    return connection.scalar(select(model_versions.c.number).where(_is(model, version))) is not None


def _expect_model(connection: Connection, name: str) -> None:
    if not _has(connection, name):
        raise ServingError(Kind.NOT_FOUND, f"there is no model '{name}'", what="model")


def _expect_version(connection: Connection, model: str, version: str) -> None:
    if not _exists(connection, model, version):
        raise ServingError(Kind.NOT_FOUND, f"model '{model}' has no version '{version}'", what="version")


def _of_digest(connection: Connection, model: str, digest: str) -> list[StoredVersion]:
    rows = connection.execute(_NEWEST_FIRST.where(model_versions.c.model == model, model_versions.c.digest == digest)).all()
    tags = _version_tags(connection, model) if rows else {}
    return [_version(row, tags.get((row.model, row.version), {})) for row in rows]


def _next_number(connection: Connection, model: str) -> str:
    versions = connection.scalars(select(model_versions.c.version).where(model_versions.c.model == model))
    numbers = (int(v) for v in versions if v.isascii() and v.isdigit() and len(v) <= len(str(_HIGHEST)))
    return str(max((number for number in numbers if number < _HIGHEST), default=0) + 1)


def _touch(connection: Connection, model: str, updated: float) -> None:
    """A model is as new as its newest version."""
    connection.execute(update(models).where(models.c.name == model, models.c.updated < updated).values(updated=updated))


def _point(connection: Connection, model: str, aliases: Iterable[str], version: str) -> None:
    for alias in dict.fromkeys(aliases):
        remove_alias(connection, model, alias)
        connection.execute(insert(model_aliases).values(model=model, alias=alias, version=version))


def _insert_model(connection: Connection, model: RegisteredModel, *, kept: bool) -> None:
    values = {"name": model.name, "created": model.created, "updated": model.updated or model.created, "description": model.description}
    connection.execute(insert(models).values(**values, kept=kept))


def _set_tags(connection: Connection, tags: Mapping[str, str], **whose: str) -> None:
    """Insert them all. Keys that are one in a database are one tag, the last."""
    table = version_tags if "version" in whose else model_tags
    rows = [{**whose, "key": key, "value": value} for key, value in {held(key): value for key, value in tags.items()}.items()]
    if rows:
        connection.execute(insert(table), rows)


def _model_tags(connection: Connection, model: str = "") -> dict[str, dict[str, str]]:
    query = select(model_tags).where(model_tags.c.model == model) if model else select(model_tags)
    tags: dict[str, dict[str, str]] = {}
    for row in connection.execute(query):
        tags.setdefault(row.model, {})[row.key] = row.value
    return tags


def _version_tags(connection: Connection, model: str = "", version: str = "") -> dict[tuple[str, str], dict[str, str]]:
    query = select(version_tags).where(version_tags.c.model == model) if model else select(version_tags)
    tags: dict[tuple[str, str], dict[str, str]] = {}
    for row in connection.execute(query.where(version_tags.c.version == version) if version else query):
        tags.setdefault((row.model, row.version), {})[row.key] = row.value
    return tags


def _values(version: StoredVersion) -> dict[str, object]:
    return {
        "model": version.model,
        "digest": version.digest,
        "created": version.created,
        "kind": version.kind,
        "spec": json.dumps(dict(version.spec)),
        "manifest": json.dumps(dict(version.manifest)),
        "folder": version.folder,
        "source": version.source,
        "description": version.description,
        "stage": version.stage,
        "facts": json.dumps(dict(version.facts)),
    }


def _model(row: Row[Any], tags: Mapping[str, str]) -> RegisteredModel:
    return RegisteredModel(**row._asdict(), tags=dict(sorted(tags.items())))


def _version(row: Row[Any], tags: Mapping[str, str]) -> StoredVersion:
    decoded = {name: json.loads(getattr(row, name)) for name in ("spec", "manifest", "facts")}
    return StoredVersion(**{**row._asdict(), **decoded, "tags": dict(sorted(tags.items()))})


def _model_as_stored(connection: Connection, name: str) -> RegisteredModel:
    found = find_model(connection, name)
    if found is None:
        raise ServingError(Kind.NOT_FOUND, f"there is no model '{name}'", what="model")
    return found


def _version_as_stored(connection: Connection, model: str, version: str) -> StoredVersion:
    found = find_version(connection, model, version)
    if found is None:
        raise ServingError(Kind.NOT_FOUND, f"model '{model}' has no version '{version}'", what="version")
    return found
