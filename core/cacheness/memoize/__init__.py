"""Functions that are computed once: the decorator, its steps, and why a call would miss.

What a call needs is loaded with the first function.
"""

from typing import TYPE_CHECKING

from cacheness.lazy_modules import loaded_on_use
from cacheness.memoize.options import CachedOptions, Options

if TYPE_CHECKING:
    from cacheness.memoize import acceptances, decorator
    from cacheness.memoize.decorator import Cached

__all__ = ["Cached", "CachedOptions", "Options", "acceptances", "decorator"]

if not TYPE_CHECKING:  # otherwise a type checker would accept any name here
    __getattr__ = loaded_on_use(__name__, {"Cached": "decorator"}, modules=("acceptances", "decorator"))
