"""Maintain a whole store: check, repair, evict, copy. Most processes load only what evicts."""

from typing import TYPE_CHECKING

from cacheness.lazy_modules import loaded_on_use

if TYPE_CHECKING:
    from cacheness.maintenance import activity, comparison, report, signers

__all__ = ["activity", "comparison", "report", "signers"]

if not TYPE_CHECKING:  # otherwise a type checker would accept any name here
    __getattr__ = loaded_on_use(__name__, modules=__all__)
