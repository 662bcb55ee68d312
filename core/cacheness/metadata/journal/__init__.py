"""Metadata in a file that a person can read."""
