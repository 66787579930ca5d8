"""The tables as SQLAlchemy Core sees them; `migrations/` makes them and their indexes, and a test holds the columns together.

Statements live in models.py, deployments.py, predictions.py and documents.py. Whatever is written here works in SQLite and PostgreSQL alike.
"""

from sqlalchemy import (
    BigInteger,
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
        return None if value is None else held(value)


def held(text: str) -> str:
    """This text as every database holds it. Who compares keys in Python before they are written compares these."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


# One row: the generation of the last wish. Its update is what makes wishes wait for each other, whatever else does.
registry = Table(
    "registry",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
)

# Numbers are never given twice: SQLite would give that of the newest row again after its removal, but for `sqlite_autoincrement`.
models = Table(
    "models",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created", Float(53), nullable=False),
    Column("updated", Float(53), nullable=False),
    Column("description", Text, nullable=False),
    Column("kept", Boolean, nullable=False),  # without versions, too: somebody made it on purpose
    UniqueConstraint("name", name="one_model_of_a_name"),
    sqlite_autoincrement=True,
)


def _of_model() -> ForeignKey:
    return ForeignKey("models.name", ondelete="CASCADE", onupdate="CASCADE")


def _of_version() -> ForeignKeyConstraint:
    whose = ["model_versions.model", "model_versions.version"]
    return ForeignKeyConstraint(["model", "version"], whose, ondelete="CASCADE", onupdate="CASCADE")


model_versions = Table(
    "model_versions",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("model", Text, _of_model(), nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created", Float(53), nullable=False),
    Column("updated", Float(53), nullable=False),
    Column("kind", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("facts", Text, nullable=False),
    UniqueConstraint("model", "version", name="one_version_of_a_model"),
    sqlite_autoincrement=True,
)

model_aliases = Table(
    "model_aliases",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Text, nullable=False),
    _of_version(),
)

model_tags = Table(
    "model_tags",
    METADATA,
    Column("model", Text, _of_model(), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

version_tags = Table(
    "version_tags",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    _of_version(),
)

wishes = Table(
    "wishes",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("run", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    UniqueConstraint("generation", name="one_wish_of_a_generation"),
)

workers = Table(
    "workers",
    METADATA,
    Column("worker", Text, primary_key=True),
    Column("lease_until", Float(53), nullable=False),
)

reports = Table(
    "reports",
    METADATA,
    Column("worker", Text, ForeignKey("workers.worker", ondelete="CASCADE"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("failures", Text, nullable=False),
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

documents = Table(
    "documents",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("group", Text, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("kind", "key", name="one_document_of_a_key"),
)
