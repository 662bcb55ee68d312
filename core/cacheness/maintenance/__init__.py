"""Care for a whole store: check and repair it, make room in it, copy it."""
