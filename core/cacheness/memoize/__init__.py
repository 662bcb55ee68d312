"""Functions that are computed once: the decorator, its steps, and why a call would miss."""

from cacheness.memoize.decorator import Cached, CachedOptions, Options

__all__ = ["Cached", "CachedOptions", "Options"]
