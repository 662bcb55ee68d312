"""Stores for the rows of results; a result exists when its row is committed."""
