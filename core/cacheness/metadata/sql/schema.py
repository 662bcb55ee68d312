"""Version and place of the schema that this library writes."""

from __future__ import annotations

from typing import Final

#: The schema that this library writes. Migrations are numbered up to it.
SCHEMA_VERSION: Final = 2
#: The oldest library that can use a database of this schema, by its SCHEMA_VERSION.
MINIMUM_READER: Final = 2

#: The schema of the tables on PostgreSQL.
POSTGRESQL_SCHEMA: Final = "cacheness"
