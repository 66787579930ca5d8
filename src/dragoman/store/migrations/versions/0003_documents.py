"""Documents: what one protocol keeps and nothing else reads, such as MLflow's experiments and runs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("group", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.UniqueConstraint("kind", "key", name="one_document_of_a_key"),
    )
    op.create_index("documents_of_a_group", "documents", ["kind", "group"])


def downgrade() -> None:
    op.drop_table("documents")
