"""The registry: descriptions, stages, tags, facts and numbers of models and versions; wishes, and who has applied them.

The tables of models, versions and aliases are made anew with what they hold, children first: SQLite cannot add a constraint to one that is
there, and removing a parent first would take its children with it. They are small, and predictions stay where they are. There is no way back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.Float(53)


def upgrade() -> None:
    models = _rows("SELECT name, created FROM models ORDER BY created, name")
    versions = _rows("SELECT * FROM model_versions ORDER BY number")
    aliases = _rows("SELECT model, alias, version FROM model_aliases")
    for table in ("model_aliases", "model_versions", "models"):
        op.drop_table(table)

    op.create_table(
        "registry",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
    )
    _fill("registry", [{"id": 1, "generation": 0}])
    op.create_table(
        "models",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("updated", TIME, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("kept", sa.Boolean, nullable=False),
        sa.UniqueConstraint("name", name="one_model_of_a_name"),
        sqlite_autoincrement=True,
    )
    newest = {row["model"]: row["created"] for row in sorted(versions, key=lambda row: row["created"])}
    _fill("models", [{**row, "updated": newest.get(row["name"], row["created"]), "description": "", "kept": False} for row in models])
    op.create_table(
        "model_versions",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("model", sa.Text, _of_model(), nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("updated", TIME, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.UniqueConstraint("model", "version", name="one_version_of_a_model"),
        sqlite_autoincrement=True,
    )
    # Numbers are given anew, in the same order: a number that is written would not move PostgreSQL's sequence on.
    kept = [{key: value for key, value in row.items() if key != "number"} for row in versions]
    _fill("model_versions", [{**row, "updated": row["created"], "description": "", "stage": "", "facts": "{}"} for row in kept])
    op.create_table(
        "model_aliases",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("alias", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, nullable=False),
        _of_version(),
    )
    op.create_index("aliases_of_a_version", "model_aliases", ["model", "version"])
    _fill("model_aliases", aliases)
    op.create_table(
        "model_tags",
        sa.Column("model", sa.Text, _of_model(), primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "version_tags",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        _of_version(),
    )

    op.create_table(
        "wishes",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.UniqueConstraint("generation", name="one_wish_of_a_generation"),
    )
    op.create_table(
        "workers",
        sa.Column("worker", sa.Text, primary_key=True),
        sa.Column("lease_until", TIME, nullable=False),
    )
    op.create_table(
        "reports",
        sa.Column("worker", sa.Text, sa.ForeignKey("workers.worker", ondelete="CASCADE"), primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Text, nullable=False),
    )
    op.create_index("reports_on_a_model", "reports", ["model"])


def _of_model() -> sa.ForeignKey:
    return sa.ForeignKey("models.name", ondelete="CASCADE", onupdate="CASCADE")


def _of_version() -> sa.ForeignKeyConstraint:
    whose = ["model_versions.model", "model_versions.version"]
    return sa.ForeignKeyConstraint(["model", "version"], whose, ondelete="CASCADE", onupdate="CASCADE")


def _rows(query: str) -> list[dict[str, Any]]:
    return [dict(row) for row in op.get_bind().execute(sa.text(query)).mappings()]


def _fill(name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """One by one, in this order: it is that of the numbers."""
    if not rows:
        return
    insertion = sa.insert(sa.table(name, *(sa.column(key) for key in rows[0])))
    for row in rows:
        op.get_bind().execute(insertion, row)
