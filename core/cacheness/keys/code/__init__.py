"""Which code decides a result: what a function calls and refers to, however it is wrapped, what it draws and writes."""

from cacheness.keys.code import callables, wrappers

__all__ = ["callables", "wrappers"]
