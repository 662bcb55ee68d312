"""What is signed is what every store gives back, and what one store refuses, all refuse alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheness import CodecError, UnifiedCache
from cacheness.keys import Digest
from cacheness.records import Entry
from cacheness.results.fields import LAST_TIME, plain
from cacheness.testing.contracts.metadata import entry
from tests.conftest import SIGNING_KEY

#: With NUL, halves of surrogate pairs, and characters of every width.
TEXT = st.text(st.characters() | st.sampled_from("\0\n\ud800é\U0001f600")) | st.integers(0, 5000).map("x".__mul__)
NUMBERS = (
    st.none() | st.floats() | st.integers() | st.sampled_from([10**400, Decimal("0.1"), Fraction(1, 3), "7", True])
)
NUMBERS |= st.floats(width=32).map(np.float32) | st.integers(0, 255).map(np.uint8)


def ends_while_it_is_looked_at(duration: Any) -> bool:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    return seconds is not None and 0 < seconds < 600


DURATIONS = (st.none() | st.floats() | st.integers() | st.timedeltas() | st.just(timedelta.max)).filter(
    lambda duration: not ends_while_it_is_looked_at(duration)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | TEXT, lambda inner: st.lists(inner), max_leaves=3
)

OPTIONS = st.fixed_dictionaries(
    {"x": TEXT | st.floats() | st.binary()},
    optional={
        "prefix": TEXT,
        "version": TEXT,
        "ttl": DURATIONS,
        "tags": st.lists(TEXT, max_size=3),
        "compute_seconds": NUMBERS,
        "provenance": st.dictionaries(TEXT, JSON, max_size=2),
        "function": TEXT.map(lambda label: Digest(bytes(32), label)),
    },
)


@pytest.fixture
def caches(tmp_path: Path, emptied_url: str) -> Iterator[list[UnifiedCache]]:
    opened = [
        UnifiedCache(cache_dir=tmp_path / "sqlite"),
        UnifiedCache(cache_dir=tmp_path / "json", metadata_backend="json"),
        UnifiedCache(
            metadata_backend=emptied_url, signing_key=SIGNING_KEY,
            blob_store=f"file://{tmp_path}/blobs", shared_path=True,
        ),
    ]  # fmt: skip
    yield opened
    for cache in opened:
        cache.close()


def outcome(cache: UnifiedCache, value: bytes, options: dict[str, Any]) -> Any:
    """What became of a put: the row without what differs by store, or the error."""
    try:
        put = cache.put(value, **options)
    except Exception as error:  # noqa: BLE001 - all stores must raise the same one
        return type(error), str(error)
    found = cache._store.metadata.find(cache.config.namespace, put.key)
    assert found == put
    assert all(type(getattr(found, field.name)) is type(getattr(put, field.name)) for field in fields(Entry))
    hit = cache.lookup(put.cache_key)
    assert hit is not None
    assert hit.value == value
    assert put in list(cache.iter_entries())
    listed = [one for one in cache.list_entries() if one["cache_key"] == put.cache_key]
    assert len(listed) == 1
    lifetime = None if put.expires_at is None else put.expires_at - put.created_at
    cache.clear()
    return replace(put, created_at=0, expires_at=lifetime, key_id="", mac=b"")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.binary(max_size=30), options=OPTIONS)
def test_every_store_gives_back_what_was_put_or_all_refuse_it_alike(
    caches: list[UnifiedCache], value: bytes, options: dict[str, Any]
) -> None:
    first, *others = [outcome(cache, value, options) for cache in caches]
    assert others == [first, first]


BAD: dict[str, list[Any]] = {
    "namespace": ["a\0b", None], "key": [b"short", bytes(33), "k" * 32], "digest": [b"", None],
    "blob": ["a\0", 5], "codec": [None, "\ud800"], "size": [-1, 1 << 63, "5", 5.0, None], "raw_size": [-1, 2.5],
    "created_at": [-1, LAST_TIME + 1, None], "expires_at": [-1, LAST_TIME + 1, 7.5, "never"],
    "compute_seconds": [math.nan, math.inf, -1.0, 10**400, "fast"], "function": ["\0"], "prefix": ["\udfff"],
    "args": ["{}", None], "components": ["\0", b"{}"], "value": [b"short", "v" * 32], "fn": [b""], "alias": [bytes(31)],
    "link": ["l" * 32], "outputs": [b"[]", "\0"], "tags": [("",), ("a\nb",), ("\0",), (7,)],
    "provenance": [{}, "\ud800"], "key_id": [None], "mac": ["mac"],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_field_that_a_store_would_change_is_named(name: str) -> None:
    good = entry(1)
    assert plain(good) == good
    for value in BAD[name]:
        with pytest.raises(CodecError, match=name):
            plain(replace(good, **{name: value}))


def test_every_field_is_checked() -> None:
    assert BAD.keys() | {"inline"} == {field.name for field in fields(Entry)}


class Name(str):
    __slots__ = ()


def test_fields_are_made_plain() -> None:
    strange = entry(
        1,
        size=np.int64(5),
        created_at=np.uint64(7),
        compute_seconds=np.float32(0.5),
        prefix=Name("p"),
        tags=(Name("t"),),
    )
    made = plain(strange)
    assert [type(getattr(made, name)) for name in ("size", "created_at", "compute_seconds", "prefix")] == [
        int, int, float, str,
    ]  # fmt: skip
    assert [type(tag) for tag in made.tags] == [str]
    assert math.copysign(1, plain(entry(1, compute_seconds=-0.0)).compute_seconds or 0.0) == 1
    assert len(plain(entry(1, function="f" * 5000)).function) == 500
