"""Store metadata in SQLite and PostgreSQL: one set of statements, two ways to run them."""
