"""Functions that are computed once: the decorator, its steps, and why a call would miss."""

from cacheness.memoize.decorator import Cached
from cacheness.memoize.options import CachedOptions, Options

__all__ = ["Cached", "CachedOptions", "Options"]
