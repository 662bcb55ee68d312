"""Which schema this library writes, and where."""

from __future__ import annotations

from typing import Final

#: What this library writes. Migrations are numbered up to it.
SCHEMA_VERSION: Final = 2
#: The oldest library that can use a database of this schema: SCHEMA_VERSION as it knew it.
MINIMUM_READER: Final = 2

#: Where the tables stand on PostgreSQL.
POSTGRESQL_SCHEMA: Final = "cacheness"
