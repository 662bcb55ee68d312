"""The figures of a run. This module imports neither Prefect nor Dask, which print and log when they start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run did, for the comparison of runs."""

    seconds: float
    distributions: int
    files: int
    parsed: int  #: parse tasks that ran
    loaded: int  #: parse tasks whose result the cache had
    made: int  #: tables that were made
    cached: int  #: tables that Prefect took from the cache
    entries: int  #: added to the store
    bytes: int  #: added to the store
