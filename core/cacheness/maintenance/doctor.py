"""Test each part of a store: a put, a get and a deletion, and common faults."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from typing import Any, Final

from cacheness.blobs.near import NearBlobStore
from cacheness.config import EMBEDDED, Config
from cacheness.errors import CachenessError
from cacheness.keys import make_key
from cacheness.lazy_dataclass import dataclass
from cacheness.records import MICROSECONDS, Where
from cacheness.results.store import Cache, PutDetails
from cacheness.units import number_of

CLOCK_APART: Final = 5.0  #: seconds
DISK_LEAST: Final = 0.05  #: free part of a disk
CONNECTIONS_AT_MOST: Final = 0.8  #: share of the server's maximum
SAMPLE: Final = 100  #: entries whose signatures are checked


_REQUIREMENT: Final = re.compile(r"(?P<name>[\w.-]+)(?:\[[^]]*\])?[^;]*?>=\s*(?P<least>[\d.]+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one part."""

    part: str
    ok: bool
    detail: str
    advice: str = ""  #: what to do about it

    def as_dict(self) -> dict[str, Any]:
        """Return the result as data."""
        return asdict(self)


def diagnose(cache: Cache, config: Config) -> list[Finding]:
    """Test each part; a failure of one does not prevent the other tests."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "clock": lambda: _clock(cache),
        "database": lambda: _database(cache),
        "reading": lambda: _signatures(cache),
        "writing": lambda: _round_trip(cache, config),
        "owner": lambda: _owner(cache),
        "connections": lambda: _connections(cache),
        "disk": lambda: _disk(config),
        "near": lambda: _near(cache),
        "bucket": lambda: _bucket(cache),
        "libraries": _libraries,
    }
    if not cache.writes:
        del checks["writing"], checks["owner"]
    found = []
    for part, check in checks.items():
        try:
            found += list(check())
        except CachenessError as error:
            found.append(Finding(part, False, f"{type(error).__name__}: {error}", _ADVICE.get(part, "")))
    return found


def without_opening(error: CachenessError) -> list[Finding]:
    """Return results for a store that cannot be opened: the reason, and the libraries."""
    why = Finding("opening", False, f"{type(error).__name__}: {error}", "nothing else can be tried before this works")
    return [why, *_libraries()]


_ADVICE: Final = {
    "clock": "is the database up, and its URL right?",
    "reading": "may this user read the tables?",
    "writing": "may this user write to the tables, and put, read, list and delete in the blob store?",
}


def _clock(cache: Cache) -> Iterator[Finding]:
    began = time.perf_counter()
    cache.metadata.measure_clock()
    seconds = time.perf_counter() - began
    apart = cache.metadata.now() / MICROSECONDS - time.time()
    if abs(apart) > CLOCK_APART:
        text = f"the database's clock is {apart:+.0f} s from this machine's"
        yield Finding("clock", False, text, "set this machine's clock by NTP; lifetimes go by the database's")
    else:
        yield Finding("clock", True, f"the database answers in {seconds * 1000:.0f} ms, and its clock agrees")


def _database(cache: Cache) -> Iterator[Finding]:
    damage = cache.metadata.damage(whole=False)
    if damage is None:
        return  # it cannot be read
    if damage:
        more = f"; and {number_of(len(damage) - 1, 'other finding')}" if damage[1:] else ""
        advice = "take over what it still reads (cacheness copy), restore a backup, or move it out of the way"
        yield Finding("database", False, f"it is damaged: {damage[0]}{more}", advice)
    else:
        yield Finding("database", True, "its pages are in order")


def _owner(cache: Cache) -> Iterator[Finding]:
    """Check whether a repair would delete; otherwise only a running repair would show that it cannot."""
    difference = cache.marker.why_not_ours(afresh=True)
    if difference is None:
        yield Finding("owner", True, "the blob store belongs to this database")
    else:
        advice = "nothing is deleted there until: cacheness adopt, if this is the database whose entries are to be kept"
        yield Finding("owner", False, difference, advice)


def _signatures(cache: Cache) -> Iterator[Finding]:
    some = cache.metadata.scan(Where(cache.namespace), limit=SAMPLE)
    foreign = [entry for entry in some if not cache.is_genuine(entry)]
    if foreign:
        ids = ", ".join(sorted({entry.key_id or "none" for entry in foreign}))
        text = f"of {number_of(len(some), 'entry')}, {len(foreign)} signed by keys that are not known here (ids: {ids})"
        yield Finding("reading", False, text, "give the signing_key= that other machines have, with old ones after it")
    else:
        yield Finding("reading", True, f"{number_of(len(some), 'entry')} looked at: the signatures are good")


def _round_trip(cache: Cache, config: Config) -> Iterator[Finding]:
    """Put a value as a blob, and one in the row; read both, and delete them."""
    probe = secrets.token_hex(8)
    for place, size in (("row", 10), ("blob", config.inline_max_bytes + 1)):
        key = make_key(args={"probe": probe, "place": place}, prefix="cacheness doctor")
        value = secrets.token_bytes(size)
        began = time.perf_counter()
        cache.publish([cache.draft(key, value, PutDetails(ttl=3600.0))])
        try:
            hit = cache.lookup(key.digest)
            if hit is not None:
                cache.read_bytes(hit.entry)  # of the blob store itself, and not of a copy
        finally:
            cache.delete(Where(cache.namespace, keys=(key.digest,)))
        seconds = time.perf_counter() - began
        if hit is None or hit.value != value:
            yield Finding("writing", False, f"a result put in a {place} could not be read again", _ADVICE["writing"])
        else:
            yield Finding(
                "writing", True, f"a result in a {place} was put, read and deleted in {seconds * 1000:.0f} ms"
            )


def _near(cache: Cache) -> Iterator[Finding]:
    blobs = cache.blobs
    if isinstance(blobs, NearBlobStore):
        text = f"copies of blobs take {blobs.size():,} of {blobs.most:,} bytes in {blobs.directory}"
        if blobs.is_in_use:
            yield Finding("near", True, text)
        else:
            yield Finding("near", False, f"{text}, and none are made for now", "look at the warning in the log")


def _bucket(cache: Cache) -> Iterator[Finding]:
    blobs = cache.blobs.far if isinstance(cache.blobs, NearBlobStore) else cache.blobs
    rules = getattr(blobs, "rules", None)  # those of a bucket have them
    if rules is None or not cache.writes:
        return
    for detail, advice in (found := list(rules())):
        yield Finding("bucket", False, detail, advice)
    if not found:
        yield Finding("bucket", True, "no rule of the bucket that can be seen deletes, moves or keeps blobs")


def _connections(cache: Cache) -> Iterator[Finding]:
    connections: Callable[[], tuple[int, int, bool]] | None = getattr(cache.metadata, "connections", None)
    if connections is None:
        return  # a file has none
    used, most, is_pooled = connections()
    text = f"{used:,} of {most:,} connections to the server are in use"
    if is_pooled:
        text += ", and a pooler such as PgBouncer is in between: nothing is prepared there"
    if used > most * CONNECTIONS_AT_MOST:
        advice = "raise max_connections" if is_pooled else "put PgBouncer in front, in transaction mode"
        yield Finding("connections", False, text, f"{advice}; docs/how-to/backends.md describes how")
    else:
        yield Finding("connections", True, text)


def _libraries() -> Iterator[Finding]:
    """Return packages that are older than required; pip warns only once, during the installation."""
    old = [one for one in map(_older, metadata.requires("cacheness") or ()) if one]
    for name, has, needs in sorted(set(old)):
        yield Finding("libraries", False, f"{name} {has} is older than {needs}", f"pip install -U '{name}>={needs}'")
    if not old:
        yield Finding("libraries", True, "what is installed is as new as is needed")


def _older(requirement: str) -> tuple[str, str, str] | None:
    """Return the package, its version, and the required one, if the package is too old."""
    found = _REQUIREMENT.match(requirement)
    if found is None:
        return None
    try:
        has = metadata.version(found["name"])
    except metadata.PackageNotFoundError:
        return None  # of an extra that is not used
    return (found["name"], has, found["least"]) if _numbers(has) < _numbers(found["least"]) else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", re.split(r"[^\d.]", version)[0])))


def _disk(config: Config) -> Iterator[Finding]:
    is_used = config.blob_store is None or config.metadata_backend in EMBEDDED
    if not is_used or not os.path.isdir(config.cache_dir):
        return
    usage = shutil.disk_usage(config.cache_dir)
    text = f"{usage.free:,} of {usage.total:,} bytes are free in {config.cache_dir}"
    if usage.free < usage.total * DISK_LEAST:
        yield Finding("disk", False, text, "set max_bytes, or run: cacheness evict")
    else:
        yield Finding("disk", True, text)
