"""Find the code that decides a result: what a function calls, refers to, draws at random and writes."""

from cacheness.keys.code import callables, wrappers

__all__ = ["callables", "wrappers"]
