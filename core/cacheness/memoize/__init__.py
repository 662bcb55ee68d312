"""Functions that are computed once: the decorator, its steps, and why a call would miss."""

from cacheness.memoize.decorator import Cached, Options

__all__ = ["Cached", "Options"]
