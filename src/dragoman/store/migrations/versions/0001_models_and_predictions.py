"""Models, their versions and aliases; predictions and their payloads. The first revision."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.Float(53)


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("created", TIME, nullable=False),
    )
    op.create_table(
        "model_versions",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("model", sa.Text, sa.ForeignKey("models.name", ondelete="CASCADE"), nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.UniqueConstraint("model", "version", name="one_version_of_a_model"),
    )
    op.create_table(
        "model_aliases",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("alias", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["model", "version"], ["model_versions.model", "model_versions.version"], ondelete="CASCADE"),
    )
    op.create_index("aliases_of_a_version", "model_aliases", ["model", "version"])
    op.create_table(
        "predictions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("progress", sa.Text, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lease_until", TIME, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("error_kind", sa.Text, nullable=False),
        sa.Column("started", TIME),
        sa.Column("finished", TIME),
        sa.Column("webhook", sa.Text, nullable=False),
        sa.Column("delivered", sa.Boolean, nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
    )
    _partial("waiting_predictions", "predictions", ["created", "id"], "progress = 'pending'")
    _partial("owned_predictions", "predictions", ["owner"], "progress IN ('claimed', 'running')")
    _partial("ended_predictions", "predictions", ["finished"], "finished IS NOT NULL")
    _partial("undelivered_predictions", "predictions", ["finished"], "finished IS NOT NULL AND NOT delivered AND webhook <> ''")
    op.create_table(
        "prediction_payloads",
        sa.Column("prediction", sa.Text, sa.ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("data", sa.LargeBinary),
        sa.Column("file", sa.Text),
        sa.Column("size", sa.Integer, nullable=False),
    )
    _partial("payload_files", "prediction_payloads", ["file"], "file IS NOT NULL")


def downgrade() -> None:
    for table in ("prediction_payloads", "predictions", "model_aliases", "model_versions", "models"):
        op.drop_table(table)


def _partial(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
