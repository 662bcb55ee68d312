"""Hold the state that a journal's lines describe, in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cacheness.keys import FunctionCode
from cacheness.lazy_dataclass import dataclass
from cacheness.metadata.folding import Place, Sums, added, folded, is_due
from cacheness.metadata.journal.lines import (
    dispute_from_json,
    entry_from_json,
    equivalence_from_json,
    time_from_text,
)
from cacheness.records import Dispute, Entry, Equivalence, Quota, Totals, Use, Where


@dataclass(slots=True)
class KeptFunction:
    """The code of a function, and the days on which it was first and last seen, in microseconds since the epoch."""

    code: FunctionCode
    first_seen: int
    last_seen: int


@dataclass(slots=True)
class Kept:
    """A live entry without its inline bytes, their place in the file, and the entry's uses."""

    entry: Entry
    offset: int
    length: int
    use: Use


class JournalIndex:
    """The live entries and tombstones. Each kind of record has one method."""

    def __init__(self) -> None:
        self.epoch = ""
        self.tombstones: set[str] = set()
        self.checks: dict[str, dict[int, int]] = {}
        self.unstored: dict[str, dict[bytes, tuple[str, int]]] = {}
        self.disputes: dict[str, dict[bytes, Dispute]] = {}
        self.equivalences: dict[str, dict[tuple[bytes, bytes], Equivalence]] = {}
        self.functions: dict[str, dict[bytes, KeptFunction]] = {}
        self.quotas: dict[str, Quota] = {}
        self.live_bytes = 0
        self._sizes: Counter[str] = Counter()  #: stored bytes, by namespace
        self.activity: dict[str, dict[Place, Sums]] = {}
        self._entries: dict[str, dict[bytes, Kept]] = {}
        self._aliases: dict[tuple[str, bytes], dict[bytes, None]] = {}  #: keys, by namespace and alias
        self._sorted: dict[str, list[bytes]] = {}

    def apply(self, offset: int, length: int, record: dict[str, Any]) -> None:
        """Apply one line. Fields that a newer library added are ignored."""
        self.epoch = record.get("epoch", self.epoch)
        if "put" in record:
            entry = entry_from_json(record["put"], with_bytes=False)
            self._put(Kept(entry, offset, length, Use(entry.created_at, 0)))
        for namespace, key in record.get("delete", []):
            self._delete(namespace, bytes.fromhex(key))
        if "change" in record:
            self._change(record["change"])
        for namespace, key, hits, at in record.get("use", []):
            self._use(namespace, bytes.fromhex(key), hits, at)
        self._count(length, record)
        if "quota" in record:
            said = record["quota"]
            self.quotas[said["namespace"]] = Quota(said["max_bytes"], said["max_entries"], said["policy"])
        for namespace, shard, at in record.get("checked", []):
            self.checks.setdefault(namespace, {})[shard] = at
        noted = record.get("unstored", [])
        self.live_bytes += length if noted else 0
        for namespace, key, why, at in noted:
            self.unstored.setdefault(namespace, {})[bytes.fromhex(key)] = (why, at)
        for namespace, before in record.get("forget_unstored", []):
            reasons = self.unstored.pop(namespace, {}).items()
            self.unstored[namespace] = {key: reason for key, reason in reasons if reason[1] >= before}
        self._note_functions(length, record)
        self._dispute(length, record)
        self._equate(length, record)
        self.tombstones.update(record.get("bury", []))
        self.tombstones.difference_update(record.get("unbury", []))

    def get(self, namespace: str, key: bytes) -> Kept | None:
        """Return one live entry."""
        return self._entries.get(namespace, {}).get(key)

    def _note_functions(self, length: int, record: dict[str, Any]) -> None:
        for namespace, name, module, components, first, last in record.get("functions", []):
            code, known = FunctionCode(name, module, components), self.functions.setdefault(namespace, {})
            if code.digest in known:
                known[code.digest].last_seen = last
            else:
                self.live_bytes += length
                known[code.digest] = KeptFunction(code, first, last)
        for namespace, digest in record.get("forget_functions", []):
            self.functions.get(namespace, {}).pop(bytes.fromhex(digest), None)

    def names_function(self, namespace: str, digest: bytes) -> bool:
        """Return True when a live entry names this code."""
        return any(kept.entry.fn == digest for kept in self.every(namespace))

    def _dispute(self, length: int, record: dict[str, Any]) -> None:
        for namespace, *said in record.get("disputed", []):
            self.live_bytes += length
            dispute = dispute_from_json(said)
            self.disputes.setdefault(namespace, {})[dispute.key] = dispute
        for namespace, key in record.get("settled", []):
            self.disputes.get(namespace, {}).pop(bytes.fromhex(key), None)

    def _equate(self, length: int, record: dict[str, Any]) -> None:
        for shown in record.get("equal", []):
            self.live_bytes += length
            one = equivalence_from_json(shown)
            self.equivalences.setdefault(one.namespace, {})[one.new, one.old] = one
        for namespace, new, old in record.get("unequal", []):
            self.equivalences.get(namespace, {}).pop((bytes.fromhex(new), bytes.fromhex(old)), None)

    def is_disputed(self, namespace: str, entry: Entry) -> bool:
        """Return True when this very entry is disputed: an entry that was put later is another one."""
        found = self.disputes.get(namespace, {}).get(entry.key)
        return found is not None and found.at >= entry.created_at

    def open_disputes(self, namespace: str) -> list[Dispute]:
        """Return the disputes about entries that still exist, in key order."""
        known = sorted(self.disputes.get(namespace, {}).items())
        kept = ((self.get(namespace, key), dispute) for key, dispute in known)
        return [dispute for one, dispute in kept if one is not None and dispute.at >= one.entry.created_at]

    def every(self, namespace: str) -> Iterator[Kept]:
        """Return the live entries of a namespace, unordered."""
        return iter(self._entries.get(namespace, {}).values())

    def totals(self, namespace: str) -> Totals:
        """Return the totals of a namespace."""
        return Totals(len(self._entries.get(namespace, {})), self._sizes[namespace])

    def old_figures(self, namespace: str, hour: int, most: int) -> list[tuple[Place, Sums]]:
        """Return figures that are old enough, in this hour, to be added to others."""
        known = self.activity.get(namespace, {})
        return [(place, known[place]) for place in sorted(known) if is_due(place, hour)][:most]

    def with_alias(self, namespace: str, alias: bytes | None) -> list[Kept]:
        """Return the live entries with this alias."""
        known = () if alias is None else self._aliases.get((namespace, alias), ())
        return [self._entries[namespace][key] for key in known]

    def links_to(self, namespace: str, entry: Entry) -> list[Entry]:
        """Return the live entries that are links to this one."""
        return [k.entry for k in self.with_alias(namespace, entry.alias) if k.entry.link == entry.key]

    def neighbours(self, namespace: str, start: bytes, limit: int) -> Iterator[Kept]:
        """Yield live entries in key order, starting at a key and wrapping around."""
        keys = self._in_order(namespace)
        at = bisect_left(keys, start)
        for key in [*keys[at : at + limit], *keys[: max(0, min(at, at + limit - len(keys)))]]:
            yield self._entries[namespace][key]

    def namespaces(self) -> list[str]:
        """Return the names of all namespaces with content."""
        return list(self._entries)

    def matching(self, where: Where, after: bytes = b"", now: int = 0) -> Iterator[Kept]:
        """Yield live entries with a greater key that meet every condition, in key order; ages are relative to `now`."""
        entries = self._entries.get(where.namespace, {})
        if where.keys is not None:
            keys = sorted(key for key in set(where.keys) if key in entries)
        else:
            keys = self._in_order(where.namespace)
        for key in keys[bisect_right(keys, after) :]:
            if _matches(entries[key].entry, where, now):
                yield entries[key]

    def _in_order(self, namespace: str) -> list[bytes]:
        # Sorted on first use and then kept, because the file's lines are unordered.
        if namespace not in self._sorted:
            self._sorted[namespace] = sorted(self._entries.get(namespace, {}))
        return self._sorted[namespace]

    def _put(self, kept: Kept) -> None:
        entries = self._entries.setdefault(kept.entry.namespace, {})
        old = entries.get(kept.entry.key)
        if old is None:
            if (keys := self._sorted.get(kept.entry.namespace)) is not None:
                insort(keys, kept.entry.key)
        else:
            self.live_bytes -= old.length
            self._sizes[kept.entry.namespace] -= old.entry.size
            self._forget_alias(old.entry)
        entries[kept.entry.key] = kept
        if kept.entry.alias is not None:
            self._aliases.setdefault((kept.entry.namespace, kept.entry.alias), {})[kept.entry.key] = None
        self.live_bytes += kept.length
        self._sizes[kept.entry.namespace] += kept.entry.size

    def _delete(self, namespace: str, key: bytes) -> None:
        old = self._entries.get(namespace, {}).pop(key, None)
        if old is not None:
            self._forget_alias(old.entry)
            self.live_bytes -= old.length
            self._sizes[namespace] -= old.entry.size
            if (keys := self._sorted.get(namespace)) is not None:
                del keys[bisect_left(keys, key)]

    def _forget_alias(self, entry: Entry) -> None:
        if entry.alias is not None:
            known = self._aliases[entry.namespace, entry.alias]
            known.pop(entry.key, None)
            if not known:
                del self._aliases[entry.namespace, entry.alias]

    def _change(self, change: dict[str, Any]) -> None:
        kept = self.get(change["namespace"], bytes.fromhex(change["key"]))
        if kept is not None:
            mac, expires_at = bytes.fromhex(change["mac"]), time_from_text(change["expires_at"])
            kept.entry = replace(kept.entry, mac=mac, expires_at=expires_at, key_id=change["key_id"])

    def _count(self, length: int, record: dict[str, Any]) -> None:
        # Return the records that a rewrite keeps until the next one; later lines replace them or are added to them.
        self.live_bytes += length if record.get("kept") else 0
        for namespace, span, hour, function, outcome, reason, who, *sums in record.get("figures", []):
            self.activity.setdefault(namespace, {})[span, hour, function, outcome, reason, who] = tuple(sums)
        for namespace, hour, most in record.get("fold", []):
            self._fold(namespace, hour, most)

    def _fold(self, namespace: str, hour: int, most: int) -> None:
        known = self.activity.get(namespace, {})
        old = self.old_figures(namespace, hour, most)
        for place, _ in old:
            del known[place]
        for place, sums in folded(old).items():
            known[place] = added(known.get(place, (0, 0.0, 0.0, 0)), sums)

    def _use(self, namespace: str, key: bytes, hits: int, at: int) -> None:
        kept = self.get(namespace, key)
        if kept is not None:
            kept.use = Use(max(kept.use.accessed_at, at), kept.use.hits + hits)


def _matches(entry: Entry, where: Where, now: int) -> bool:
    same = ("mac", "blob", "prefix")
    if any(getattr(where, name) not in (None, getattr(entry, name)) for name in same):
        return False
    if where.shard is not None and entry.key[0] != where.shard:
        return False
    if where.functions is not None and entry.function not in where.functions:
        return False
    if where.tag is not None and where.tag not in entry.tags:
        return False
    return _is_of_age(entry, where, now)


def _is_of_age(entry: Entry, where: Where, now: int) -> bool:
    if where.created_before is not None and not entry.created_at < where.created_before:
        return False
    if where.older_than is not None and not entry.created_at < now - where.older_than:
        return False
    return not where.expired or (entry.expires_at is not None and entry.expires_at <= now)
