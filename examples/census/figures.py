"""What a run tells the story. Free of Prefect and Dask, which have words of their own for whom they start in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run did, for the comparison at the end."""

    seconds: float
    distributions: int
    files: int
    parsed: int  #: parse tasks that ran
    loaded: int  #: parse tasks whose result the cache had
    made: int  #: tables that were made
    cached: int  #: tables that Prefect took from the cache
    entries: int  #: new in the store
    bytes: int  #: new in the store
