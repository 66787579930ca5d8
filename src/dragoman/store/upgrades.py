"""Brings a database to the schema of this code: a look at its revision, and Alembic only when that is an old one.

Called with a connection whose transaction keeps other processes out (sqlite.py). All migrations run in that one transaction: a process
that dies in between leaves the database as it was.
"""

import logging
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from dragoman.core.errors import Kind, ServingError

log = logging.getLogger("dragoman.store")

HEAD = "0003"
"""The newest revision in migrations/versions."""
MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Migrate if that is due. Raises ServingError UNAVAILABLE for a database of a newer server or of another program."""
    revision = _revision(connection)
    if revision == HEAD:
        return
    # Half a tenth of a second and more, which a start with a database that is up to date does not pay.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision and revision not in known:
        raise ServingError(
            Kind.UNAVAILABLE,
            f"the server's database has the schema {revision}, and this version of Dragoman knows those up to {HEAD}: a newer version wrote it. "
            "Install that version, or start with another data directory",
        )
    log.info("migrating the database from schema %s to %s", revision or "none", HEAD)
    command.upgrade(config, "head")


def check(connection: Connection) -> None:
    """Raises ServingError UNAVAILABLE when the schema is not this code's: the file was replaced while the server ran."""
    if _revision(connection) != HEAD:
        raise ServingError(Kind.UNAVAILABLE, "the server's database was replaced by one of another version: start the server anew")


def _revision(connection: Connection) -> str:
    """Empty for an empty database."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        return str(connection.scalar(text("SELECT version_num FROM alembic_version")) or "")
    if tables:
        raise ServingError(
            Kind.UNAVAILABLE,
            "the server's database belongs to another program: it holds tables that Dragoman did not make. Start with another data directory",
        )
    return ""
