"""How Alembic runs: on the connection that `upgrade` holds, within its transaction."""

from __future__ import annotations

from alembic import context

from cacheness.metadata.sql.tables import schema_version

context.configure(
    connection=context.config.attributes["connection"],
    version_table=schema_version.name,
    # The caller begins and ends the transaction: a migration happens whole or not at all.
    transactional_ddl=False,
)
context.run_migrations()
