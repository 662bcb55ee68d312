"""Maintain a whole store: check, repair, evict, copy."""
