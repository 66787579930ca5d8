"""The tables as SQLAlchemy Core sees them; `migrations/` makes them and their indexes, and a test holds the columns together.

Statements live in models.py and predictions.py. Whatever is written here works in SQLite and PostgreSQL alike.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy import Text as AnyText

METADATA = MetaData()


class Text(TypeDecorator[str]):
    """Text as it comes from models and clients: what a database cannot hold (half a surrogate pair, NUL) is replaced and no reason to fail."""

    impl = AnyText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


models = Table(
    "models",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("created", Float(53), nullable=False),
)

model_versions = Table(
    "model_versions",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("model", ForeignKey("models.name", ondelete="CASCADE"), nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created", Float(53), nullable=False),
    Column("kind", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("source", Text, nullable=False),
    UniqueConstraint("model", "version", name="one_version_of_a_model"),
)

model_aliases = Table(
    "model_aliases",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Text, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["model_versions.model", "model_versions.version"], ondelete="CASCADE"),
)

# Payloads have a table of their own: SQLite writes a whole row again when one column changes, and a prediction changes its state, its lease
# and its delivery several times while its inputs stay what they are.
predictions = Table(
    "predictions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("progress", Text, nullable=False),
    Column("created", Float(53), nullable=False),
    Column("owner", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lease_until", Float(53), nullable=False),
    Column("error", Text, nullable=False),
    Column("error_kind", Text, nullable=False),
    Column("started", Float(53)),
    Column("finished", Float(53)),
    Column("webhook", Text, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Column("caller", Text, nullable=False),
)

# The conditions of the partial indexes, which stay small however many results are kept. SQLite uses such an index only for a query that repeats
# its condition word for word, so these are texts and not parameters.
WAITING = text("progress = 'pending'")
OWNED = text("progress IN ('claimed', 'running')")
ENDED = text("finished IS NOT NULL")
UNDELIVERED = text("finished IS NOT NULL AND NOT delivered AND webhook <> ''")

payloads = Table(
    "prediction_payloads",
    METADATA,
    Column("prediction", ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Text, primary_key=True),  # inputs, outputs, logs
    Column("data", LargeBinary),
    Column("file", Text),  # its name, where the content lies beside the database
    Column("size", Integer, nullable=False),
)
FILED = text("file IS NOT NULL")
