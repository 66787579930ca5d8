"""Runs the migrations in the connection and transaction of whoever asked. Called by Alembic, on behalf of upgrades.py."""

from alembic import context

from dragoman.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,  # SQLite can, although Alembic does not count on it
)
with context.begin_transaction():
    context.run_migrations()
