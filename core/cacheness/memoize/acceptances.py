"""Handle accepted changes: results of earlier code that count for today's code.

A row of `equivalences` relates two fingerprints. It affects only look-ups: results of today's code
are stored under today's key. The statement that finds an old result joins this row, so that a
deleted row takes effect at once, in every process.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, Literal, TypeAlias

from cacheness import forks
from cacheness.audit import Sampler
from cacheness.errors import CodecError, NotAccepted
from cacheness.keys import Digest, Key, call_of
from cacheness.lazy_dataclass import dataclass
from cacheness.logs import logger_of
from cacheness.memoize.lines import LineWatch
from cacheness.printable import printable
from cacheness.records import EQUIVALENCE_LASTS, EarlierHit, Entry, Equivalence, Hit
from cacheness.results.store import Cache
from cacheness.units import number_of

_log = logger_of(__name__)

#: Seconds after which a process reads the accepted changes again, at a miss.
LOOK_EVERY: Final = 60.0
#: Share of hits on results of earlier code that are computed anyway, and compared.
AUDITED: Final = 0.05
#: Earlier fingerprints that may count for one: the keys that one miss looks up.
MOST_EARLIER: Final = 8
#: Equivalences of a namespace that a process keeps in memory.
MOST: Final = 1000
#: Why a change that an earlier version of cacheness accepted does not count for tasks of graphs.
_NOT_COMPARED: Final = "it was accepted when tasks of graphs were not served: accept it again"
#: The error probability of a bound.
_CONFIDENCE: Final = 0.95

#: Special times in the row of a change that a difference ended, or that a person revoked: the row
#: is kept, and no `accept=` tries the change again.
ENDED: Final = 0
REVOKED: Final = -1

State: TypeAlias = Literal["accepted", "trying", "ended", "revoked", "refused"]


def bound_of(equal: int) -> float:
    """Return the largest share of calls that may differ, at 95 %, after so many random ones were equal."""
    return 1.0 - (1.0 - _CONFIDENCE) ** (1.0 / equal) if equal else 1.0


@dataclass(frozen=True, slots=True)
class AcceptedChange:
    """Results of earlier code that count for today's code, or why they do not, and the evidence."""

    id: str  #: twelve hexadecimal digits, for `revoke`
    function: str  #: module:qualified name, today
    was: str  #: … and when the results were made
    state: State  #: accepted; trying: calls are compared; ended: by a difference; revoked; refused: nothing was written
    equal: int  #: calls that were compared and were equal
    why: str = ""  #: why it ended or was rejected, or who revoked it
    parameters: Mapping[str, str] | None = None  #: parameters with another name then, or new ones: as text
    changes: tuple[str, ...] = ()  #: what changed in the code
    unrun: Mapping[str, Sequence[int]] | None = None  #: lines of changed functions that no compared call ran
    not_watched: tuple[str, ...] = ()  #: what the compared calls may have run unseen
    skipped: Mapping[str, int] | None = None  #: how many results could not be compared, by reason
    results: int = 0  #: of the earlier code, when it was accepted
    created_at: int = 0  #: microseconds since the epoch
    until: int = 0  #: microseconds since the epoch
    by: str = ""  #: who accepted it
    not_in_graphs: str = ""  #: why tasks of Dask's graphs compute anyway; "" if it counts for them, too

    @property
    def bound(self) -> float:
        """Return the largest share of such calls that may differ, at 95 %."""
        return bound_of(self.equal)

    def __str__(self) -> str:
        name = self.function.replace(":", ".")
        return printable(f"{name}: {self.sentence()}")

    def sentence(self) -> str:
        """Return a description in one line."""
        evidence = (
            f"{number_of(self.equal, 'equal call')}: at most {100 * self.bound:.1f} % of such calls differ, at 95 %"
        )
        if self.state == "accepted":
            return evidence
        if self.state == "trying":
            return f"being tried: {number_of(self.equal, 'call')} came out equal so far"
        return f"{self.state}: {self.why}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as data for JSON."""
        return asdict(self) | {"bound": self.bound}


class Acceptances:
    """The accepted changes that this process has read. Thread-safe; reads the rows of a namespace once a minute."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._sampler = Sampler(AUDITED)
        self.reset_after_fork()
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Make a new lock, because a thread of the parent may hold the old one."""
        self._lock = threading.RLock()
        self._known: dict[bytes, list[Equivalence]] = {}
        self._revoked: dict[bytes, list[Equivalence]] = {}
        self._ask_at = float("-inf")
        self._watches: dict[tuple[bytes, bytes], LineWatch] = {}
        self._looked_for: set[bytes] = set()

    def of(self, new: bytes | None) -> Sequence[Equivalence]:
        """Return the equivalences of a fingerprint that are not revoked, as this process has read them."""
        if time.monotonic() >= self._ask_at:
            self._load()
        return self._known.get(new, ()) if new is not None else ()

    def log_revoked(self, one: Equivalence) -> None:
        """Log why no calls are compared for a change."""
        change = change_of(one)
        _log.info(
            "%s: the change %s was revoked %s, so accept= compares no calls for it",
            change.function,
            change.id,
            change.why,
        )

    def revoked(self, new: bytes | None) -> Sequence[Equivalence]:
        """Return the revoked changes of a fingerprint, as this process has read them."""
        return self._revoked.get(new, ()) if new is not None else ()

    def forget(self) -> None:
        """Drop the kept rows, so that they are read again."""
        self._ask_at = float("-inf")

    def every(self) -> list[Equivalence]:
        """Return the equivalences of the namespace that are signed for this store and not expired."""
        cache = self._cache
        return [one for one in cache.metadata.equivalences(cache.namespace) if self._counts(one)]

    def of_graphs(self, *, fresh: bool = False) -> list[Equivalence]:
        """Return the accepted changes that count for tasks of graphs, latest first.

        Args:
            fresh: read the rows now, and not once a minute.
        """
        if fresh:
            self.forget()
        if time.monotonic() >= self._ask_at:
            self._load()
        found = [one for rows in self._known.values() for one in rows]
        now = self._cache.metadata.now() if found else 0
        counting = [one for one in found if one.until > now and _state_of(one) == "accepted" and _is_by_place(one)]
        return sorted(counting, key=lambda one: one.created_at, reverse=True)

    def find(self, key: Key, *, unread: bool = False) -> EarlierHit | None:
        """Return a result of earlier code for this call, by one statement; accepted changes before those being tried.

        Args:
            key: the call's key.
            unread: return the entry without its value, if it would be served.
        """
        new, keys = key.fingerprint, self.keys_of(key)
        if new is None or not keys:
            return None
        rows = self._cache.metadata.find_equivalent(self._cache.namespace, new, keys)
        found = [(entry, one) for entry, one in rows if self._leads_to(key, one, entry)]
        for is_accepted in (True, False):
            for entry, one in sorted(found, key=lambda pair: -pair[0].created_at):
                if _state_of(one) == ("accepted" if is_accepted else "trying"):
                    hit = self._read(entry, unread=unread and is_accepted)
                    if hit is not None:
                        return EarlierHit(hit, one, is_accepted, self._watches.get((one.new, one.old)))
        return None

    def peek(self, new: bytes, key: bytes, *, unread: bool = False) -> Hit | None:
        """Return the result of earlier code under a key, while it counts for a fingerprint.

        Args:
            new: the fingerprint of today's code.
            key: 32 bytes: the key that the call had under the earlier code.
            unread: return the entry without its value.
        """
        for entry, one in self._cache.metadata.find_equivalent(self._cache.namespace, new, [key]):
            is_meant = one.new == new and entry.key == key and _fingerprint_in(entry) == one.old
            if is_meant and self._is_valid(one) and _state_of(one) == "accepted" and not entry.outputs:
                return self._read(entry, unread=unread)
        return None

    def keys_of(self, key: Key) -> list[bytes]:
        """Return the keys of this call under earlier code, as far as this process has read them."""
        return [under for one in self.of(key.fingerprint) if (under := _key_under(key, one)) is not None]

    def is_audited(self, earlier: EarlierHit) -> bool:
        """Return True when a result of earlier code is computed anyway, to be compared."""
        return self.chooses(earlier.hit.entry.key)

    def chooses(self, key: bytes) -> bool:
        """Return True when the result of earlier code under this key is computed anyway, to be compared."""
        return self._sampler.chooses(key)

    def has_looked_for(self, new: bytes) -> bool:
        """Return True from the second call for a fingerprint on, when reading entries is worthwhile."""
        with self._lock:
            is_known = new in self._looked_for
            self._looked_for.add(new)
            return is_known

    def watch(self, one: Equivalence, watch: LineWatch) -> None:
        """Record lines while an equivalence is being tried."""
        with self._lock:
            self._watches[one.new, one.old] = watch

    def write(
        self,
        new: bytes,
        old: bytes,
        parameters: Mapping[str, Mapping[str, str]],
        evidence: Mapping[str, Any],
        *,
        is_over: bool = False,
        renews: bool = False,
    ) -> Equivalence | None:
        """Sign and write an equivalence. Return None if a difference or a person has ended it.

        Args:
            new: the fingerprint of today's code.
            old: that of the earlier code.
            parameters: former names of parameters that differ.
            evidence: the evidence.
            is_over: results of earlier code no longer count.
            renews: a person accepts it: a revoked change counts again.
        """
        now = self._cache.metadata.now()
        self._make_room(new, old, renews=renews)
        return self._sign_and_set(
            Equivalence(
                namespace=self._cache.namespace,
                new=new,
                old=old,
                store=self._cache.store_id,
                parameters=_canonical(parameters),
                evidence=_canonical(evidence),
                created_at=now,
                until=ENDED if is_over else now + EQUIVALENCE_LASTS,
                by=_who(),
                key_id="",
                mac=b"",
            )
        )

    def described(self, one: Equivalence) -> AcceptedChange:
        """Return the description of an equivalence."""
        return change_of(one)

    def revoke(self, one: Equivalence) -> bool:
        """Stop results of earlier code from counting, until a person accepts the change again.

        The row stays, so that no `accept=` compares calls for it. Returns False if it was revoked before.
        """
        if one.until == REVOKED:
            return False
        known, who = json.loads(one.evidence), _who()
        evidence = {**known, "state": "revoked", "why": f"by {who}, until a person accepts it again"}
        if one.until == ENDED:
            self._cache.metadata.delete_equivalence(one.namespace, one.new, one.old)
        self._sign_and_set(replace(one, evidence=_canonical(evidence), until=REVOKED, by=who, key_id="", mac=b""))
        _log.info("results of earlier code no longer count for %s: revoked by %s", known.get("function"), who)
        return True

    def _sign_and_set(self, one: Equivalence) -> Equivalence | None:
        signed = self._cache.keyring.sign_equivalence(one)
        is_written = self._cache.metadata.set_equivalence(signed)
        self.forget()
        return signed if is_written else None

    def _make_room(self, new: bytes, old: bytes, *, renews: bool) -> None:
        """Delete a revoked row that a person now accepts, or the oldest revoked one if there are too many rows."""
        metadata, namespace = self._cache.metadata, self._cache.namespace
        known = metadata.equivalences(namespace)
        revoked = [one for one in known if one.until == REVOKED]
        own = [one for one in known if (one.new, one.old) == (new, old)]
        dropped = [one for one in own if renews and one in revoked]
        if len(known) >= MOST and not own:
            dropped = sorted(revoked, key=lambda one: one.created_at)[:1]
            if not dropped:
                raise NotAccepted(f"the namespace {namespace} has {MOST:,} accepted changes, which is the limit")
        for one in dropped:
            metadata.delete_equivalence(namespace, one.new, one.old)

    def note(self, earlier: EarlierHit, *, same: bool, detail: str) -> None:
        """Record the result of computing a result of earlier code again."""
        if not same:
            self.end(earlier.equivalence, detail)
        elif not earlier.is_accepted:
            self._note_trial(earlier, json.loads(earlier.equivalence.evidence))

    def end(self, one: Equivalence, why: str) -> None:
        """Stop results of earlier code from counting, everywhere, because one of them differs."""
        known = json.loads(one.evidence)
        changed = {**known, "state": "ended", "why": why}
        self.write(one.new, one.old, json.loads(one.parameters), changed, is_over=True)
        _log.warning(
            "results of earlier code no longer count for %s: %s. cacheness accept --list shows it",
            known.get("function"),
            why,
        )

    def _note_trial(self, earlier: EarlierHit, known: dict[str, Any]) -> None:
        one, watch = earlier.equivalence, earlier.watch
        unrun = known.get("unrun", {})
        if watch is not None:
            watch.merge(unrun)
            unrun = watch.state()
        known |= {"equal": known.get("equal", 0) + 1, "unrun": unrun}
        if known["equal"] >= known.get("wanted", 0) and not unrun:
            known["state"] = "accepted"
            with self._lock:
                self._watches.pop((one.new, one.old), None)
        self.write(one.new, one.old, json.loads(one.parameters), known)

    def _load(self) -> None:
        with self._lock:
            if time.monotonic() < self._ask_at:
                return
            # Also after a failure: a miss must not wait for a failing store each time.
            self._ask_at = time.monotonic() + LOOK_EVERY
            known: dict[bytes, list[Equivalence]] = {}
            revoked: dict[bytes, list[Equivalence]] = {}
            for one in self.every():
                (revoked if one.until == REVOKED else known).setdefault(one.new, []).append(one)
            self._known, self._revoked = known, revoked

    def _counts(self, one: Equivalence) -> bool:
        cache = self._cache
        is_ours = (one.namespace, one.store) == (cache.namespace, cache.store_id)
        return is_ours and cache.keyring.is_genuine_equivalence(one)

    def _leads_to(self, key: Key, one: Equivalence, entry: Entry) -> bool:
        """Return True when the row that was read with this entry lets it count for this call."""
        is_meant = one.new == key.fingerprint and _key_under(key, one) == entry.key
        return is_meant and self._is_valid(one) and not entry.outputs

    def _is_valid(self, one: Equivalence) -> bool:
        return self._counts(one) and one.until > self._cache.metadata.now()

    def _read(self, entry: Entry, *, unread: bool) -> Hit | None:
        if not unread:
            return self._cache.follow(entry)
        return Hit(None, entry) if self._cache.is_served(entry, is_use=True) else None


def change_of(one: Equivalence) -> AcceptedChange:
    """Return the description of an equivalence.

    Args:
        one: a row with a valid signature.
    """
    known = json.loads(one.evidence)
    return AcceptedChange(
        id=one.id,
        function=known.get("function", ""),
        was=known.get("was", ""),
        state=known.get("state", "ended"),
        equal=known.get("equal", 0),
        why=known.get("why", ""),
        parameters=in_words(json.loads(one.parameters)),
        changes=tuple(known.get("changes", ())),
        unrun=known.get("forced", {}),
        not_watched=tuple(known.get("not_watched", ())),
        skipped=known.get("skipped", {}),
        results=known.get("results", 0),
        created_at=one.created_at,
        until=one.until,
        by=one.by,
        not_in_graphs=known.get("by_place", _NOT_COMPARED),
    )


def in_words(parameters: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Describe the parameters that differ."""
    return {name: f"was `{change['was']}`" if "was" in change else "is new" for name, change in parameters.items()}


def _is_by_place(one: Equivalence) -> bool:
    found: str = json.loads(one.evidence).get("by_place", _NOT_COMPARED)
    return not found


def _fingerprint_in(entry: Entry) -> bytes | None:
    """Return the fingerprint of the code that made an entry."""
    try:
        function = call_of(entry.args)[1]["function"]
    except CodecError:
        return None
    return function.digest if isinstance(function, Digest) else None


def _state_of(one: Equivalence) -> str:
    found = json.loads(one.evidence).get("state")
    return found if isinstance(found, str) else ""


def _key_under(key: Key, one: Equivalence) -> bytes | None:
    return key.under(one.old, json.loads(one.parameters))


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _who() -> str:
    import getpass
    import socket

    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container whose user has no name
        return socket.gethostname()
