"""Stores for the bytes of results."""
