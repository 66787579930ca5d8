"""Databases that older servers made: what is in them is there after an upgrade, over every database."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Prediction, Progress
from dragoman.store import RegisteredModel, Store, StoredVersion
from dragoman.store.database import Database
from dragoman.store.postgres import Postgres
from dragoman.store.sqlite import SqliteFile
from dragoman.store.tables import METADATA
from dragoman.store.upgrades import HEAD, MIGRATIONS
from tests import postgres
from tests.stores import SHARED, Case, version, with_store

every_database = pytest.mark.parametrize("case", SHARED, ids=str)

SPEC, MANIFEST = {"runtime": "onnx", "ü": [1, None]}, {"w.bin": {"size": 3}}
MODELS = [{"name": "team/ü", "created": 7.0}, {"name": "b", "created": 5.0}, {"name": "a", "created": 5.0}]
VERSIONS = [
    {"number": 3, "model": "b", "version": "1", "digest": "d1", "created": 5.0},
    {"number": 4, "model": "a", "version": "1", "digest": "d2", "created": 5.0},
    {"number": 9, "model": "team/ü", "version": "2", "digest": "d3", "created": 7.0},
    {"number": 12, "model": "b", "version": "7", "digest": "d4", "created": 4.0},
]
ALIASES = [
    {"model": "b", "alias": "latest", "version": "7"},
    {"model": "b", "alias": "x", "version": "1"},
    {"model": "team/ü", "alias": "latest", "version": "2"},
]
PREDICTION = {
    "id": "0" * 32,
    "model": "b",
    "version": "1",
    "operation": "predict",
    "progress": "succeeded",
    "created": 5.0,
    "owner": "me",
    "attempt": 1,
    "lease_until": 6.0,
    "error": "",
    "error_kind": "",
    "started": 5.5,
    "finished": 5.75,
    "webhook": "",
    "delivered": False,
    "caller": "",
}
PAYLOADS = [
    {"prediction": "0" * 32, "part": "inputs", "data": b"[1]", "file": None, "size": 3},
    {"prediction": "0" * 32, "part": "outputs", "data": b"\x00", "file": None, "size": 1},
]


def database(case: Case, place: Path) -> Database:
    """The one that the store of this case is opened over at this place, empty."""
    if case.name == "postgres":
        return Postgres(postgres.database_of(place))
    path = place / "dragoman.db"
    path.touch(mode=0o600)
    return SqliteFile(path)


def run(database: Database, *statements: str) -> list[list[tuple[Any, ...]]]:
    """In one transaction, in whatever schema the database has."""
    transactions = database.transactions(write=True)
    try:
        with transactions.unchecked() as connection:  # type: ignore[attr-defined]  # both have it, for those who migrate
            results = [connection.execute(text(statement)) for statement in statements]
            return [[tuple(row) for row in result] if result.returns_rows else [] for result in results]
    finally:
        transactions.disconnect()


def made_by(revision: str, database: Database) -> None:
    """As the server of that revision left it, with something in it."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    transactions = database.transactions(write=True)
    with transactions.unchecked() as connection:  # type: ignore[attr-defined]  # both have it, for those who migrate
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        usual = {"kind": "onnx", "spec": json.dumps(SPEC), "manifest": json.dumps(MANIFEST), "folder": "models/x", "source": "file:///x"}
        tables: list[tuple[str, list[dict[str, Any]]]] = [
            ("models", MODELS),
            ("model_versions", [{**usual, **row} for row in VERSIONS]),
            ("model_aliases", ALIASES),
            ("predictions", [PREDICTION]),
            ("prediction_payloads", PAYLOADS),
        ]
        for table, rows in tables:
            names = list(rows[0])
            insertion = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)})"
            connection.execute(text(insertion), rows)
    transactions.disconnect()


def expected(row: dict[str, Any], number: int) -> StoredVersion:
    """What an old row reads as: numbers are given anew in the old order, and it is as new as it was."""
    fields = {name: row[name] for name in ("model", "version", "digest", "created")}
    return StoredVersion(
        **fields, updated=row["created"], kind="onnx", spec=SPEC, manifest=MANIFEST, folder="models/x", source="file:///x", number=number
    )


@every_database
def test_a_database_of_the_first_schema_reads_back_the_same(case: Case, tmp_path: Path) -> None:
    """Models, versions, aliases and predictions; what is new has been filled in."""
    made_by("0001", database(case, tmp_path))

    async def body(store: Store) -> None:
        versions = [expected(row, number) for number, row in enumerate(VERSIONS, 1)]
        assert await store.versions() == [versions[2], versions[1], versions[0], versions[3]]
        assert await store.version("b", "7") == versions[3]
        assert await store.models() == [
            RegisteredModel("a", 5.0, 5.0, number=1),
            RegisteredModel("b", 5.0, 5.0, number=2),
            RegisteredModel("team/ü", 7.0, 7.0, number=3),
        ]
        assert await store.aliases() == {(row["model"], row["alias"]): row["version"] for row in ALIASES}
        found = await store.prediction("0" * 32)
        usual = {"owner": "me", "attempt": 1, "lease_until": 6.0, "started": 5.5, "finished": 5.75}
        assert found == Prediction("0" * 32, "b", "1", "predict", Progress.SUCCEEDED, b"[1]", 5.0, outputs=b"\x00", **usual)  # type: ignore[arg-type]  # as its fields are
        assert await store.wishes() == []

    with_store(case, tmp_path, body)


@every_database
def test_an_upgraded_database_works_as_a_new_one(case: Case, tmp_path: Path) -> None:
    """New numbers go on, everything follows a new name, a model that came with a version goes with its last one."""
    made_by("0001", database(case, tmp_path))

    async def body(store: Store) -> None:
        added = await store.add_version(version("b", "", created=9.0), aliases=["x"])
        assert (added.version, added.number) == ("8", 5)
        assert (await store.add_model(RegisteredModel("c", 9.0))).number == 4
        await store.tag_version("b", "7", "k", "v", updated=9.0)
        await store.change_model("b", updated=9.0, new_name="new")
        assert await store.aliases("new") == {("new", "latest"): "7", ("new", "x"): "8"}
        assert [v.version for v in await store.versions("new")] == ["8", "1", "7"]
        assert await store.remove_version("a", "1")
        assert await store.model("a") is None
        assert await store.remove_model("new")
        assert await store.aliases() == {("team/ü", "latest"): "2"}
        assert (await store.wish("m", lambda _: {"a": 1})).generation == 1

    with_store(case, tmp_path, body)


@every_database
def test_an_upgrade_that_fails_leaves_what_was_there(case: Case, tmp_path: Path) -> None:
    """Here a table is in the way, after others were made anew; without it the next start goes on."""
    old = database(case, tmp_path)
    made_by("0001", old)
    run(old, "CREATE TABLE wishes (x INTEGER)")
    with pytest.raises(ServingError) as caught:
        old.prepare()
    assert caught.value.kind is Kind.UNAVAILABLE
    counts = [f"SELECT count(*) FROM {table}" for table in ("models", "model_versions", "model_aliases", "predictions")]
    looks = run(old, "SELECT version_num FROM alembic_version", *counts)
    assert looks == [[("0001",)], [(3,)], [(4,)], [(3,)], [(1,)]]
    run(old, "DROP TABLE wishes")
    old.prepare()
    assert run(old, "SELECT version_num FROM alembic_version", *counts) == [[(HEAD,)], [(3,)], [(4,)], [(3,)], [(1,)]]


@every_database
def test_an_upgrade_happens_once(case: Case, tmp_path: Path) -> None:
    """Servers that start together on an old database wait for each other."""
    made_by("0001", database(case, tmp_path))

    async def start() -> None:
        stores = await asyncio.gather(*(case.open(tmp_path) for _ in range(3)))
        for store in stores:
            assert len(await store.versions()) == len(VERSIONS)
            await store.close()

    asyncio.run(start())


@every_database
def test_migrations_make_the_tables_of_the_code(case: Case, tmp_path: Path) -> None:
    """Columns, types, keys and what follows a row, as Alembic itself compares them; indexes belong to the migrations."""
    fresh = database(case, tmp_path)
    fresh.prepare()
    transactions = fresh.transactions(write=False)
    with transactions() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [change for change in compare_metadata(context, METADATA) if change[0] != "remove_index"]
    transactions.disconnect()
    assert differences == []


@every_database
def test_the_children_of_a_row_have_their_indexes(case: Case, tmp_path: Path) -> None:
    """What goes or is renamed with a row is found without reading whole tables: each foreign key begins a key or an index."""
    fresh = database(case, tmp_path)
    fresh.prepare()
    transactions = fresh.transactions(write=False)
    missing = []
    with transactions() as connection:
        looked = inspect(connection)
        for table in looked.get_table_names():
            keys: list[list[str | None]] = [[*looked.get_pk_constraint(table)["constrained_columns"]]]
            keys += [[*constraint["column_names"]] for constraint in looked.get_unique_constraints(table)]
            keys += [index["column_names"] for index in looked.get_indexes(table)]
            for foreign in looked.get_foreign_keys(table):
                columns = foreign["constrained_columns"]
                if not any(key[: len(columns)] == columns for key in keys):
                    missing.append((table, columns))
    transactions.disconnect()
    assert missing == []
