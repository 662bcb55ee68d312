"""Encode values: one module per library, loaded when a value of its types occurs.

The module for Python's types is loaded at once, because every encoding needs it.
"""

from cacheness.keys.values import builtins, clients, lazy_files, objects

__all__ = ["builtins", "clients", "lazy_files", "objects"]
