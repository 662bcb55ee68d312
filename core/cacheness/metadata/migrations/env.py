"""Run Alembic on the connection that `upgrade` holds, within its transaction."""

from __future__ import annotations

from alembic import context

from cacheness.metadata.sql.tables import schema_version

context.configure(
    connection=context.config.attributes["connection"],
    version_table=schema_version.name,
    # The caller begins and ends the transaction, so that a migration is applied as a whole or not at all.
    transactional_ddl=False,
)
context.run_migrations()
