"""List why a task runs again in spite of a cache policy, and what users see.

docs/reference/prefect.md has this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NO_KEY: Final = "the cache could not make a key"
NO_STORE: Final = "the cache could not store a result"
GOES_ON: Final = "the run continues without it"
NOT_STORED: Final = "The result is not stored"
DISPUTED: Final = "it came out differently before, and the dispute is open: cacheness disputes"
#: Prefixes of the log lines about what the cache did for a run.
HIT: Final = "Cache hit"
WAITED: Final = "Waited for another run"
MISS: Final = "Cache miss"


@dataclass(frozen=True, slots=True)
class ReasonForMiss:
    """One kind of reason."""

    means: str
    says: str = ""  #: part of a message; "" if nothing is logged
    where: str = "a warning in the run's log, once a run"
    instead: str = ""  #: what users see if nothing is logged

    @property
    def seen(self) -> str:
        """Return what users see."""
        if not self.says:
            return self.instead
        return f"`` {self.says} ``: {self.where}" if "`" in self.says else f"`{self.says}`: {self.where}"


REASONS: Final = (
    ReasonForMiss(
        "has an argument, or refers to a value, that no key can cover, or whose code fails for a key", NO_KEY
    ),
    ReasonForMiss('refers to something that no key can see, with `incomplete="refuse"`', "is incomplete"),
    ReasonForMiss(
        "has such an argument, in a sum of policies (`store.policy() + INPUTS`)",
        "Error encountered when computing cache key",
        "an error in the run's log",
    ),
    ReasonForMiss("returned an open file, a lock, or what else cannot be pickled and read again", NO_STORE),
    ReasonForMiss("returned more than the quota (`max_bytes`)", NO_STORE),
    ReasonForMiss("ran while the database or the bucket was down, or damaged", GOES_ON),
    ReasonForMiss("had other files when it ended than when it began", NOT_STORED, "a line in the run's log"),
    ReasonForMiss(
        "came out differently when a run of it was checked, and the dispute is open",
        "cacheness disputes",
        "a line in the run's log",
    ),
    ReasonForMiss(
        "has `persist_result=False`", "Ignoring `cache_policy`", "a warning of Prefect's where the task is written"
    ),
    ReasonForMiss(
        "has a `cache_key_fn`, which takes the place of the policy",
        "`cache_key_fn` will be used",
        "a warning of Prefect's where the task is written",
    ),
    ReasonForMiss("has `refresh_cache=True`: its result is stored, and not read", instead="`task.refresh_cache`"),
    ReasonForMiss(
        "was written where `PREFECT_TASKS_DISABLE_CACHING` is true", instead="`task.cache_policy` is `NO_CACHE`"
    ),
    ReasonForMiss(
        "raised, or was rolled back by a transaction around it", instead="the state, or the transaction's error"
    ),
    ReasonForMiss(
        "was called before by the same task, or in the same transaction: Prefect stores results when that ends",
        instead="nothing; with `transaction(commit_mode=CommitMode.EAGER)` around the calls it is `Cached`",
    ),
    ReasonForMiss(
        "is a generator: Prefect runs these each time", instead="nothing: from the second time on it is `Cached`"
    ),
)


def rows() -> list[str]:
    """Return the table in docs/reference/prefect.md."""
    head = ["| the task | one sees |", "|---|---|"]
    return head + [f"| {reason.means} | {reason.seen} |" for reason in REASONS]
