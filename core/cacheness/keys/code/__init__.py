"""Find the code that decides a result: what a function calls, refers to, draws at random and writes.

`function_code` is loaded at once, and all other modules with the first function.
"""

from typing import TYPE_CHECKING

from cacheness.lazy_modules import loaded_on_use

if TYPE_CHECKING:
    from cacheness.keys.code import fingerprint, pinned, random_calls, writers

__all__ = ["fingerprint", "pinned", "random_calls", "writers"]

if not TYPE_CHECKING:  # otherwise a type checker would accept any name here
    __getattr__ = loaded_on_use(__name__, modules=__all__)
