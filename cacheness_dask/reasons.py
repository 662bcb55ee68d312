"""The reasons why a result is not stored, or is never cached. docs/reference/dask.md has this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: A task with external effects, and the target that its code writes to.
SINK: Final = "sink:"
LEAVES: Final = f"{SINK} it writes to"
#: Files did not match the fingerprint.
FILE: Final = "files:"
#: A result that represents something external.
HANDLE: Final = "handle:"
NOTHING: Final = "None:"
#: A task that changes its arguments.
IN_PLACE: Final = "in place:"
#: A result over the limit of `max_value_bytes`.
TOO_LARGE: Final = "too large:"
#: A result that no codec accepts.
UNPICKLABLE: Final = "cannot be pickled:"
#: A result that differed when it was computed again.
DISPUTED: Final = "disputed:"
#: A result of earlier code that should have replaced a task's.
UNREADABLE: Final = "unreadable:"
CHEAP: Final = "cheaper to compute than to load"
#: A task that could be stored, except for one before it.
FOLLOWS: Final = ("downstream of ", "needs the future ")


@dataclass(frozen=True, slots=True)
class Reason:
    """One kind of reason."""

    begins: str  #: prefix in `explain` and `run.unstored`; "…" represents a name
    means: str
    planned: bool  #: known before anything runs, or only after the computation
    lasting: bool = True  #: remains valid for the same task, so that the next run uses it when it plans

    @property
    def known(self) -> str:
        """Return when it is known."""
        if self.planned:
            return "before it runs"
        return "once it ran, and in the next run" if self.lasting else "once it ran"


REASONS: Final = (
    Reason(SINK, "writes somewhere: Dask's writers, `register_sink`, code that names its own path", planned=True),
    Reason("unseeded randomness", "draws numbers that no argument seeds", planned=True),
    Reason("argument is", "is given a handle, a lock, an iterator or a client, whose content is unknown", planned=True),
    Reason("argument cannot be hashed", "is given an object that cannot be taken apart", planned=True),
    Reason("… is registered as stateful", "reads a clock, a service, a database: `register_stateful`", planned=True),
    Reason("… is a coroutine function", "returns what can be awaited once", planned=True),
    Reason(
        "its key is incomplete", 'refers to something that no key can see, with `incomplete="refuse"`', planned=True
    ),
    Reason(FOLLOWS[0].strip(), "needs one of these", planned=True),
    Reason(FOLLOWS[1].strip(), "needs a future that this client did not submit", planned=True),
    Reason(DISPUTED, "came out differently when it was computed again: `cacheness disputes` decides", planned=True),
    Reason(NOTHING, "returned `None`, as functions do that work by side effect", planned=False),
    Reason(HANDLE, "returned an open file, a lock, a memory map, a Zarr array, an iterator", planned=False),
    Reason(UNPICKLABLE, "returned what cannot be pickled, or not be read again", planned=False),
    Reason(TOO_LARGE, "returned more than `max_value_bytes`", planned=False),
    Reason(IN_PLACE, "changed its arguments: `check_inputs`", planned=False),
    Reason(FILE, "its files differed where it ran, or changed during the run", planned=False, lasting=False),
    Reason(
        UNREADABLE,
        "has a result of earlier code that could not be read: what follows is not kept",
        planned=False,
        lasting=False,
    ),
    Reason(CHEAP, 'took less time than loading it would, with `which="auto"`', planned=False, lasting=False),
)
#: What is too large depends on the limit, too.
LASTING: Final = (SINK, *(r.begins for r in REASONS if not r.planned and r.lasting and r.begins != TOO_LARGE))


def rows() -> list[str]:
    """Return the table in docs/reference/dask.md."""
    head = ["| the reason begins with | because the task | known |", "|---|---|---|"]
    return head + [f"| `{reason.begins}` | {reason.means} | {reason.known} |" for reason in REASONS]
