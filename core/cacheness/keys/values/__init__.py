"""How values are encoded: one module for each library's types, which is loaded when one of them is met.

Those of Python's own types are loaded at once, because they say how anything is encoded.
"""

from cacheness.keys.values import builtins, clients, lazy_files, objects

__all__ = ["builtins", "clients", "lazy_files", "objects"]
