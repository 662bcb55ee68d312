"""Tests for every metadata store. Subclass one of these and override `open_store`.

```python
class TestMyStore(SessionStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path):
        return lambda: MyStore(tmp_path / "metadata", limits=Limits())
```
"""

from __future__ import annotations

import itertools
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from cacheness.errors import SessionLost
from cacheness.keys import FunctionCode
from cacheness.protocols import MetadataStore
from cacheness.records import (
    DAY,
    HOUR,
    MICROSECONDS,
    Activity,
    Candidate,
    Deleted,
    Dispute,
    Entry,
    Equivalence,
    Holdings,
    Presence,
    Process,
    Quota,
    Totals,
    Use,
    Where,
)

OpenStore: TypeAlias = Callable[[], MetadataStore]

NAMESPACE = "default"
SOMEBODY = Process(host="here", boot_id="boot", pid_ns="4026531836", pid=4711, pid_start="12345")


def key(number: int) -> bytes:
    """Return the key with this number: keys sort like their numbers."""
    return number.to_bytes(32, "big")


def blob_name(of: bytes, session: str = "0" * 16) -> str:
    """Return a fresh name for a blob."""
    return f"{NAMESPACE}/{of.hex()[:2]}/{of.hex()}.{session}.{secrets.token_hex(8)}"


def equivalence(new: int, old: int, **fields: Any) -> Equivalence:
    """Return an equivalence of the fingerprints with these numbers."""
    plain: dict[str, Any] = {
        "namespace": NAMESPACE,
        "store": "a store",
        "parameters": '{"n":{"was":"x"}}',
        "evidence": "{}",
        "created_at": 10,
        "until": 1_800_000_000_000_003,
        "by": "somebody",
        "key_id": "k1",
        "mac": b"\x00" * 32,
    }
    return Equivalence(new=key(new), old=key(old), **{**plain, **fields})


def entry(number: int = 1, **fields: Any) -> Entry:
    """Return an entry with a blob, under the key with this number."""
    plain: dict[str, Any] = {
        "namespace": NAMESPACE,
        "key": key(number),
        "blob": blob_name(key(number)),
        "inline": None,
        "size": 100,
        "raw_size": 300,
        "digest": b"\x00\xff" * 16,
        "codec": "pickle+zstd",
        "created_at": 1_700_000_000_000_001,
        "expires_at": None,
        "compute_seconds": None,
        "function": "module:function",
        "prefix": "",
        "args": b"\x00\x01args",
        "components": '{"args":{"x":["ab12","1"]}}',
        "value": None,
        "fn": None,
        "alias": None,
        "link": None,
        "outputs": None,
        "tags": (),
        "provenance": "{}",
        "key_id": "",
        "mac": b"",
    }
    return Entry(**{**plain, **fields})


def inline(number: int = 1, data: bytes = b"\x00\n\xffbytes", **fields: Any) -> Entry:
    """Return an entry with inline bytes."""
    return entry(number, **{"blob": None, "inline": data, "size": len(data), **fields})


class MetadataStoreContract:
    """The guarantees of every metadata store."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Open the store under test; each call returns another handle on the same data."""
        raise AssertionError("override the fixture `open_store`")

    @pytest.fixture
    def opened(self, open_store: OpenStore) -> Iterator[OpenStore]:
        """Like `open_store`; the store is closed when the test ends."""
        stores: list[MetadataStore] = []

        def open_another() -> MetadataStore:
            stores.append(open_store())
            return stores[-1]

        yield open_another
        for store in stores:
            store.close()

    @pytest.fixture
    def store(self, opened: OpenStore) -> MetadataStore:
        """Return a fresh, empty store."""
        return opened()

    @pytest.fixture
    def put(self, store: MetadataStore) -> Callable[..., list[str]]:
        """Commit entries in one session."""
        session = store.open_session(SOMEBODY)
        return lambda *entries: store.commit(entries, session)

    # entries

    def test_when_each_shard_was_checked_is_remembered(self, store: MetadataStore) -> None:
        assert store.check_times("default") == {}
        assert not store.damage(whole=False)
        assert not store.damage(whole=True)
        for shards, at in ((range(2, 5), 10), ([255], 20), ([3], 30), ([], 40)):
            store.record_checks("default", shards, at)
        assert store.check_times("default") == {2: 10, 3: 30, 4: 10, 255: 20}
        assert store.check_times("other") == {}

    def test_why_results_are_not_there_is_remembered(self, store: MetadataStore) -> None:
        hour = 3600 * MICROSECONDS
        keys = [key(number) for number in range(12_000)]
        store.note_unstored("default", {})
        store.note_unstored("default", dict.fromkeys(keys[:11_000], "too large"))
        store.note_unstored("default", {keys[0]: "a handle ☂", keys[11_000]: "None"})
        store.note_unstored("other", {keys[1]: "chance"})
        assert store.unstored("default", [], hour) == {}
        assert store.unstored("default", [keys[0], keys[1], keys[11_000], keys[11_001]], hour) == {
            keys[0]: "a handle ☂", keys[1]: "too large", keys[11_000]: "None",
        }  # fmt: skip
        assert len(store.unstored("default", keys, hour)) == 11_001
        assert store.unstored("default", keys, -hour) == {}
        store.delete_unstored("default", hour)
        assert len(store.unstored("default", keys[:2], hour)) == 2
        store.delete_unstored("default", -hour)
        assert store.unstored("default", keys, hour) == {}
        assert store.unstored("other", keys, hour) == {keys[1]: "chance"}

    def test_what_code_made_results_is_kept_once_for_each_digest(self, opened: OpenStore) -> None:
        store, other = opened(), opened()
        codes = [FunctionCode(f"m:f{n}", "m", f'{{"code":{{"m.f ☂":"{n}"}}}}') for n in range(1200)]
        store.note_functions(NAMESPACE, [])
        store.note_functions(NAMESPACE, [codes[0], *codes, codes[0]])
        other.note_functions(NAMESPACE, codes[:3])
        other.note_functions("other", codes[:1])
        assert store.function_codes(NAMESPACE, [code.digest for code in codes]) == {c.digest: c for c in codes}
        assert other.function_codes(NAMESPACE, [codes[1].digest, bytes(32)]) == {codes[1].digest: codes[1]}
        assert store.function_codes("other", [code.digest for code in codes[:9]]) == {codes[0].digest: codes[0]}
        assert store.function_codes(NAMESPACE, []) == {}

    def test_code_that_no_entry_names_is_forgotten_a_slice_at_a_time(self, store: MetadataStore, put: Any) -> None:
        codes = [FunctionCode(f"m:f{n}", "m", "{}") for n in range(5)]
        digests = [code.digest for code in codes]
        store.note_functions(NAMESPACE, codes)
        store.note_functions("other", codes)
        put(entry(1, fn=digests[1]), entry(2, fn=digests[1]), entry(3, fn=digests[4]), entry(4))
        assert store.forget_functions(NAMESPACE, DAY, 100) == 0  # they were seen today
        assert [store.forget_functions(NAMESPACE, -2 * DAY, most) for most in (2, 1)] == [2, 1]
        assert store.forget_functions(NAMESPACE, -2 * DAY, 100) >= 2
        assert set(store.function_codes(NAMESPACE, digests)) == {digests[1], digests[4]}
        store.delete(Where(NAMESPACE, keys=(key(3),)))
        store.forget_functions(NAMESPACE, -2 * DAY, 100)
        assert set(store.function_codes(NAMESPACE, digests)) == {digests[1]}
        assert set(store.function_codes("other", digests)) == set(digests)

    def test_entries_are_found_by_the_digests_of_their_values(self, store: MetadataStore, put: Any) -> None:
        one, two = b"1" * 32, b"2" * 32
        put(entry(1, value=one), entry(3, value=one), entry(2, value=two), entry(4))
        assert store.keys_by_value(NAMESPACE, [two, one, b"3" * 32]) == {one: [key(1), key(3)], two: [key(2)]}
        assert store.keys_by_value(NAMESPACE, [two]) == {two: [key(2)]}
        assert store.keys_by_value("other", [one]) == store.keys_by_value(NAMESPACE, []) == {}
        put(entry(1, value=two))
        assert store.keys_by_value(NAMESPACE, [one]) == {one: [key(3)]}

    def test_entries_are_found_by_alias_the_newest_first_and_without_links(
        self, store: MetadataStore, put: Any
    ) -> None:
        one, other, now = b"1" * 32, b"2" * 32, store.now()
        made = [inline(n, alias=one, created_at=now - 10 + n) for n in range(1, 6)]
        put(*made, inline(6, alias=other), inline(7), inline(8, b"", alias=one, link=key(1), created_at=now))
        assert store.find_by_alias(NAMESPACE, one) == made[::-1]
        store.dispute(NAMESPACE, Dispute(key(5), now, None, None, "m:f", ""), 9)
        put(inline(3, alias=other, created_at=now))
        assert store.find_by_alias(NAMESPACE, one) == [made[3], made[1], made[0]]
        assert store.find_by_alias("other", one) == store.find_by_alias(NAMESPACE, bytes(32)) == []

    def test_a_link_is_there_as_long_as_the_entry_with_its_alias_that_it_names(
        self, store: MetadataStore, put: Any
    ) -> None:
        one, other, now = b"1" * 32, b"2" * 32, store.now()
        link: dict[str, Any] = {"alias": one, "link": key(1), "created_at": now}
        put(inline(1, b"abc", alias=one, raw_size=9), *(inline(n, b"", **link) for n in (2, 3)))
        put(inline(4, b"", alias=other, link=key(1)), inline(5, b"", alias=one, link=key(2)), inline(6, alias=other))
        put(inline(7, b"", alias=one, link=key(9)), inline(8, b"", **{**link, "expires_at": now - 1}))
        keys = [key(n) for n in range(1, 10)]
        there = store.present(NAMESPACE, keys)
        assert {found: (one.size, one.raw_size, one.link) for found, one in there.items()} == {
            key(1): (3, 9, None), key(2): (3, 9, key(1)), key(3): (3, 9, key(1)), key(6): (8, 300, None),
        }  # fmt: skip
        store.dispute(NAMESPACE, Dispute(key(1), now, None, None, "m:f", ""), 9)
        assert list(store.present(NAMESPACE, keys)) == [key(6)]
        store.settle(NAMESPACE, [key(1)])
        before = store.totals(NAMESPACE)
        assert store.delete(Where(NAMESPACE, keys=(key(1),))) == Deleted(1, ())
        assert [found.key for found in store.scan(Where(NAMESPACE))] == [key(n) for n in (4, 5, 6, 7)]
        assert store.totals(NAMESPACE) == Totals(4, before.bytes - 3)
        assert store.recount(NAMESPACE, correct=False) == (0, 0)

    def test_the_mark_of_the_last_change_is_another_after_each_commit(self, store: MetadataStore, put: Any) -> None:
        put(entry(1))
        marks = [store.last_change()]
        assert store.find(NAMESPACE, key(1)) is not None
        assert store.last_change() == marks[0]
        for write in (
            lambda: put(entry(1)),
            lambda: store.delete(Where(NAMESPACE, keys=(key(1),))),
            lambda: store.dispute(NAMESPACE, Dispute(key(1), store.now(), None, None, "m:f", ""), 9),
        ):
            write()
            marks.append(store.last_change())
        assert marks == [None] * 4 or all(one != other for one, other in itertools.combinations(marks, 2))

    def test_which_code_entries_name_is_known(self, store: MetadataStore, put: Any) -> None:
        digests = [n.to_bytes(32, "big") for n in range(12_000)]
        put(entry(1, fn=digests[1]), entry(2, fn=digests[1]), entry(3, fn=digests[11_000]), entry(4))
        assert store.named_codes(NAMESPACE, digests) == {digests[1], digests[11_000]}
        assert store.named_codes("other", digests) == store.named_codes(NAMESPACE, []) == set()

    def test_what_is_disputed_is_not_found_until_it_is_settled_or_put_again(
        self, store: MetadataStore, put: Any
    ) -> None:
        now = store.now()
        put(entry(1, created_at=now - 5), entry(2, created_at=now - 5), entry(3, created_at=now - 5))
        disputed = [Dispute(key(n), now, bytes(32), None, "m:f", "1 is stored ☂, 2 was computed") for n in (1, 2, 9)]
        assert [store.dispute(NAMESPACE, one, 3) for one in disputed] == [True] * 3
        assert not store.dispute(NAMESPACE, Dispute(key(3), now, None, None, "m:f", "one too many"), 3)
        assert store.dispute("other", Dispute(key(3), now, None, None, "m:f", "elsewhere"), 3)
        assert store.disputes(NAMESPACE) == disputed[:2]
        assert store.disputes(NAMESPACE, [key(2), key(3)]) == disputed[1:2]
        keys = [key(n) for n in (1, 2, 3)]
        assert store.find(NAMESPACE, key(1)) is None
        assert list(store.find_many(NAMESPACE, keys)) == list(store.present(NAMESPACE, keys)) == [key(3)]
        assert [found.key for found in store.scan(Where(NAMESPACE))] == keys
        put(entry(1, created_at=now + 1))
        assert store.find(NAMESPACE, key(1)) is not None
        assert store.disputes(NAMESPACE) == disputed[1:2]
        assert store.dispute(NAMESPACE, disputed[1], 9)
        assert store.settle(NAMESPACE, [key(2), key(3)]) == 1
        assert store.disputes(NAMESPACE) == []
        assert sorted(store.present(NAMESPACE, keys)) == keys
        store.delete_stale_disputes(NAMESPACE)
        assert store.settle(NAMESPACE, [key(1), key(9)]) == 0

    def test_rows_are_found_with_the_equivalences_that_are_there(
        self, store: MetadataStore, opened: OpenStore, put: Any
    ) -> None:
        put(entry(1, created_at=5), inline(2, b"bytes"), entry(3))
        equal = [equivalence(7, 8), equivalence(7, 9, evidence='{"equal":3,"words":"ä ☂"}'), equivalence(6, 8)]
        assert [store.set_equivalence(one) for one in (*equal, equivalence(5, 8, namespace="other"))] == [True] * 4
        assert store.equivalences(NAMESPACE) == [equal[2], *equal[:2]]
        found = store.find_equivalent(NAMESPACE, key(7), [key(1), key(2), key(4)])
        assert sorted((row.key, one.old) for row, one in found) == [
            (key(number), key(old)) for number in (1, 2) for old in (8, 9)
        ]
        assert all(row == store.find(NAMESPACE, row.key) and one in equal for row, one in found)
        assert store.dispute(NAMESPACE, Dispute(key(1), 6, None, None, "m:f", "differs"), 9)
        assert {row.key for row, _ in store.find_equivalent(NAMESPACE, key(7), [key(1), key(2)])} == {key(2)}
        assert store.find_equivalent(NAMESPACE, key(8), [key(2)]) == []
        assert store.find_equivalent("other", key(7), [key(2)]) == []
        assert store.delete_equivalence(NAMESPACE, key(7), key(8))
        assert not store.delete_equivalence(NAMESPACE, key(7), key(8))
        assert not store.delete_equivalence("other", key(7), key(9))
        assert [one for _, one in opened().find_equivalent(NAMESPACE, key(7), [key(2)])] == [equal[1]]

    def test_an_equivalence_that_a_difference_ended_comes_back_only_when_it_was_deleted(
        self, store: MetadataStore
    ) -> None:
        assert store.set_equivalence(equivalence(1, 2))
        assert store.set_equivalence(equivalence(1, 2, by="again", until=300))
        assert store.set_equivalence(equivalence(1, 2, until=0, by="ended"))
        assert not store.set_equivalence(equivalence(1, 2))
        assert not store.set_equivalence(equivalence(1, 2, until=-1))
        assert [one.by for one in store.equivalences(NAMESPACE)] == ["ended"]
        assert store.delete_equivalence(NAMESPACE, key(1), key(2))
        assert store.set_equivalence(equivalence(1, 2))
        assert store.set_equivalence(equivalence(1, 2, until=-1, by="revoked"))
        assert not store.set_equivalence(equivalence(1, 2))
        assert [one.by for one in store.equivalences(NAMESPACE)] == ["revoked"]

    def test_old_equivalences_are_dropped(self, store: MetadataStore) -> None:
        made = [equivalence(1, number, created_at=number, until=0) for number in (2, 3)]
        revoked = equivalence(1, 4, created_at=1, until=-1)
        for one in (*made, revoked, equivalence(1, 2, namespace="other", created_at=2)):
            assert store.set_equivalence(one)
        store.delete_old_equivalences(NAMESPACE, 2)
        assert store.equivalences(NAMESPACE) == [*made, revoked]
        store.delete_old_equivalences(NAMESPACE, 3)
        assert store.equivalences(NAMESPACE) == [*made[1:], revoked]
        assert len(store.equivalences("other")) == 1

    def test_what_was_committed_is_found_field_for_field(self, store: MetadataStore, put: Any) -> None:
        full = entry(
            1, expires_at=1_800_000_000_000_003, compute_seconds=0.1 + 0.2, value=bytes(32),
            fn=b"fn" * 16, alias=b"\xff" * 32, link=key(7), outputs='[["out","f.csv"]]', prefix="clean ☂",
            tags=("a b", "umlaut ä"), provenance='{"flow":"x"}', key_id="k1", mac=b"\x00" * 32,
        )  # fmt: skip
        small = inline(2, bytes(range(256)))
        put(full, small)
        assert store.find(NAMESPACE, key(1)) == full
        assert store.find(NAMESPACE, key(2)) == small

    @pytest.mark.parametrize("size", [0, 1, 32 * 1024])
    def test_inline_bytes_come_back_exactly(self, store: MetadataStore, put: Any, size: int) -> None:
        put(inline(1, secrets.token_bytes(size)), inline(2, b"other"))
        kept = inline(3, secrets.token_bytes(size))
        put(kept)
        assert store.find(NAMESPACE, key(3)) == kept

    @pytest.mark.parametrize(
        "text", ['{"b": 1, "a": 2}', '{"a":1.0}', "not json", "[]", '"text"', "null", '{"ä":"\\u00e4"}']
    )
    def test_signed_text_comes_back_letter_for_letter(self, store: MetadataStore, put: Any, text: str) -> None:
        put(entry(1, components=text, outputs=text, provenance=text))
        found = store.find(NAMESPACE, key(1))
        assert found is not None
        assert (found.components, found.outputs, found.provenance) == (text, text, text)

    @pytest.mark.parametrize("text", ["'; DROP TABLE entries; --", "%", "_", "%(x)s", ":x $1 ?", "\\", "\\n", '"'])
    def test_text_is_data_and_never_syntax(self, store: MetadataStore, put: Any, text: str) -> None:
        put(entry(1, function=text, prefix=text, tags=(text,)), entry(2))
        for where in (Where(NAMESPACE, functions=(text,)), Where(NAMESPACE, prefix=text), Where(NAMESPACE, tag=text)):
            assert [found.key for found in store.scan(where)] == [key(1)]

    def test_an_unknown_key_is_not_found(self, store: MetadataStore, put: Any) -> None:
        put(entry(1))
        assert store.find(NAMESPACE, key(2)) is None
        assert store.find("other", key(1)) is None

    def test_an_expired_entry_is_found_as_it_is(self, store: MetadataStore, put: Any) -> None:
        put(entry(1, expires_at=5))
        found = store.find(NAMESPACE, key(1))
        assert found is not None
        assert found.expires_at == 5

    def test_a_namespace_knows_nothing_of_another(self, store: MetadataStore, put: Any) -> None:
        put(entry(1), entry(1, namespace="other"))
        assert store.delete(Where("other")).entries == 1
        assert store.find(NAMESPACE, key(1)) is not None
        assert store.find("other", key(1)) is None

    @pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
    def test_a_link_replaces_only_a_link(self, store: MetadataStore, several: bool) -> None:
        session, now = store.open_session(SOMEBODY), store.now()
        others = [inline(n, created_at=now) for n in ((8, 9) if several else ())]
        link: dict[str, Any] = {"alias": b"1" * 32, "created_at": now, "tags": ("red",)}
        own = inline(1, b"own", alias=b"1" * 32, created_at=now)
        old, new = (inline(2, b"", link=key(n), **link) for n in (5, 6))
        for made in (own, old, inline(1, b"", link=key(2), **link), new):
            store.commit([made, *others], session, fresh=True)
        assert (store.find(NAMESPACE, key(1)), store.find(NAMESPACE, key(2))) == (own, new)
        assert [one.key for one in store.scan(Where(NAMESPACE, tag="red"))] == [key(2)]
        again = replace(own, created_at=now - 1)
        store.commit([again, inline(1, b"", link=key(2), **link), *others], session, fresh=True)
        assert store.find(NAMESPACE, key(1)) == again  # within one commit, too
        store.commit([inline(3, b"", link=key(2), **link), *others], session, fresh=True)
        store.commit([replace(own, key=key(3)), *others], session, fresh=True)
        assert store.find(NAMESPACE, key(3)) == replace(own, key=key(3))
        assert store.recount(NAMESPACE, correct=False) == (0, 0)

    @pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
    def test_a_copy_replaces_no_newer_entry(self, store: MetadataStore, several: bool) -> None:
        session, others = store.open_session(SOMEBODY), [entry(n) for n in ((8, 9) if several else ())]
        first, newer, older = (entry(1, created_at=100 + n, blob=f"blob {n}") for n in (1, 2, 0))
        assert store.commit([first, *others], session) == []
        assert store.commit([newer, *others], session) == [first.blob]
        assert store.commit([older, *others], session) == [older.blob]
        assert store.find(NAMESPACE, key(1)) == newer
        same = replace(newer, blob="blob 3")
        assert store.commit([same, *others], session) == [newer.blob]
        assert store.find(NAMESPACE, key(1)) == same
        assert store.recount(NAMESPACE, correct=False) == (0, 0)

    def test_a_commit_is_there_for_a_store_opened_later(
        self, store: MetadataStore, put: Any, opened: OpenStore
    ) -> None:
        put(entry(1), inline(2))
        store.close()
        again = opened()
        assert again.find(NAMESPACE, key(2)) == inline(2)

    def test_a_commit_is_seen_at_once_by_a_store_opened_earlier(
        self, store: MetadataStore, put: Any, opened: OpenStore
    ) -> None:
        other = opened()
        assert other.find(NAMESPACE, key(1)) is None
        put(inline(1))
        assert other.find(NAMESPACE, key(1)) == inline(1)

    def test_a_new_entry_replaces_the_old_one_and_buries_its_object(self, store: MetadataStore, put: Any) -> None:
        old, new = entry(1), entry(1)
        assert put(old) == []
        assert put(new) == [old.blob]
        assert store.find(NAMESPACE, key(1)) == new
        assert store.tombstones() == [old.blob]

    def test_an_inline_entry_replaces_one_with_a_blob_and_the_other_way_round(
        self, store: MetadataStore, put: Any
    ) -> None:
        blob = entry(1)
        put(blob)
        assert put(inline(1)) == [blob.blob]
        assert put(entry(1)) == []
        assert store.tombstones() == [blob.blob]

    def test_committing_an_entry_again_buries_nothing(self, store: MetadataStore, put: Any) -> None:
        same = entry(1)
        put(same)
        assert put(same) == []
        assert store.tombstones() == []

    def test_of_two_entries_under_one_key_in_a_batch_the_last_stays(self, store: MetadataStore, put: Any) -> None:
        first, last = entry(1), entry(1)
        assert put(entry(2), first, last) == [first.blob]
        assert store.find(NAMESPACE, key(1)) == last
        assert store.tombstones() == [first.blob]

    def test_an_empty_batch_is_no_commit(self, store: MetadataStore, put: Any) -> None:
        assert put() == []
        assert store.scan(Where(NAMESPACE)) == []

    def test_many_are_found_at_once(self, store: MetadataStore, put: Any) -> None:
        kept = [entry(number) if number % 2 else inline(number) for number in range(1, 12)]
        put(*kept)
        wanted = [key(number) for number in (3, 4, 999, 3, 11)]
        assert store.find_many(NAMESPACE, wanted) == {key(n): kept[n - 1] for n in (3, 4, 11)}
        assert store.find_many(NAMESPACE, []) == {}

    def test_more_keys_than_one_statement_takes_are_found(self, store: MetadataStore, put: Any) -> None:
        put(*(inline(number, b"x") for number in (1, 10_001, 20_002)))
        wanted = [key(number) for number in range(20_003)]
        assert set(store.find_many(NAMESPACE, wanted)) == {key(1), key(10_001), key(20_002)}
        assert set(store.present(NAMESPACE, wanted)) == {key(1), key(10_001), key(20_002)}

    def test_presence_tells_sizes_and_leaves_out_the_expired(self, store: MetadataStore, put: Any) -> None:
        now = store.now()
        put(
            entry(1, compute_seconds=2.5, expires_at=now + 3600 * MICROSECONDS),
            inline(2, b"abc", raw_size=9),
            entry(3, expires_at=now - 1),
        )
        found = store.present(NAMESPACE, [key(number) for number in range(5)])
        assert found == {key(1): Presence(100, 300, 2.5), key(2): Presence(3, 9, None)}
        assert store.present(NAMESPACE, []) == {}

    # scans

    def test_a_scan_goes_through_everything_in_key_order_and_pages(self, store: MetadataStore, put: Any) -> None:
        put(*(entry(number) for number in (5, 1, 4, 2, 3)))
        first = store.scan(Where(NAMESPACE), limit=2)
        rest = store.scan(Where(NAMESPACE), after=first[-1].key, limit=10)
        assert [found.key for found in first + rest] == [key(number) for number in (1, 2, 3, 4, 5)]
        assert store.scan(Where("other")) == []

    @pytest.mark.parametrize(
        ("conditions", "expected"),
        [
            ({"keys": (key(2), key(9))}, [2]),
            ({"keys": ()}, []),
            ({"mac": b"mac of 3"}, [3]),
            ({"tag": "red"}, [1, 3]),
            ({"tag": "re"}, []),
            ({"tag": "RED"}, []),
            ({"tag": "light red"}, [2]),
            ({"functions": ("f:one",)}, [1]),
            ({"functions": ("f:one", "module:function", "g")}, [1, 2, 3, 4]),
            ({"functions": ()}, []),
            ({"functions": ("F:ONE", "one", "f")}, []),
            ({"prefix": "p"}, [2]),
            ({"prefix": ""}, [1, 3, 4]),
            ({"created_before": 30}, [1, 2]),
            ({"expired": True}, [2, 3]),
            ({"older_than": 3600 * MICROSECONDS}, [1, 2, 3, 4]),
            ({"older_than": 3600 * MICROSECONDS, "expired": True, "shard": 0}, [2, 3]),
            ({"shard": 0}, [1, 2, 3]),
            ({"shard": 255}, [4]),
            ({"tag": "red", "created_before": 30, "keys": (key(1), key(2), key(3))}, [1]),
        ],
    )
    def test_a_scan_meets_every_condition(
        self, store: MetadataStore, put: Any, conditions: dict[str, Any], expected: list[int]
    ) -> None:
        put(
            entry(1, tags=("blue", "red"), function="f:one", created_at=10),
            entry(2, tags=("light red",), prefix="p", created_at=20, expires_at=20),
            entry(3, tags=("red",), mac=b"mac of 3", created_at=30, expires_at=30),
            entry(4, key=b"\xff" * 32, created_at=40),
        )
        numbers = {key(1): 1, key(2): 2, key(3): 3, b"\xff" * 32: 4}
        assert [numbers[found.key] for found in store.scan(Where(NAMESPACE, **conditions))] == expected

    def test_a_scan_finds_the_row_that_names_an_object(self, store: MetadataStore, put: Any) -> None:
        wanted = entry(2)
        put(entry(1), wanted, inline(3))
        assert store.scan(Where(NAMESPACE, blob=wanted.blob)) == [wanted]

    def test_ages_are_counted_from_the_databases_clock(self, store: MetadataStore, put: Any) -> None:
        now, minute = store.now(), 60 * MICROSECONDS
        put(
            entry(1, created_at=now - 10 * minute, expires_at=now - minute),
            entry(2, created_at=now - minute, expires_at=now + minute),
            entry(3, created_at=now + 10 * minute),
        )
        for age, expected in ((11 * minute, []), (5 * minute, [1]), (0, [1, 2]), (-11 * minute, [1, 2, 3])):
            found = store.scan(Where(NAMESPACE, older_than=age))
            assert [row.key for row in found] == [key(number) for number in expected]
        assert store.delete(Where(NAMESPACE, older_than=5 * minute, expired=True)).entries == 1
        assert store.delete(Where(NAMESPACE, expired=True)).entries == 0

    # deletion

    def test_what_is_deleted_is_gone_and_its_objects_are_buried(self, store: MetadataStore, put: Any) -> None:
        red, blue, small = entry(1, tags=("red",)), entry(2), inline(3, tags=("red",))
        put(red, blue, small)
        assert store.delete(Where(NAMESPACE, tag="red")) == Deleted(2, (str(red.blob),))
        assert [found.key for found in store.scan(Where(NAMESPACE))] == [key(2)]
        assert store.tombstones() == [red.blob]
        assert store.delete(Where(NAMESPACE, tag="red")) == Deleted(0, ())

    def test_a_row_is_deleted_only_while_it_names_the_same_object(self, store: MetadataStore, put: Any) -> None:
        dangling, newer = entry(1), entry(1)
        put(dangling)
        put(newer)
        where = Where(NAMESPACE, keys=(key(1),), mac=dangling.mac, blob=dangling.blob)
        assert store.delete(where) == Deleted(0, ())
        assert store.find(NAMESPACE, key(1)) == newer

    def test_thousands_are_deleted_in_batches(self, store: MetadataStore, put: Any) -> None:
        put(*(entry(number) for number in range(2001)))
        deleted = store.delete(Where(NAMESPACE, created_before=store.now()))
        assert deleted.entries == 2001
        assert sorted(deleted.blobs) == store.tombstones(limit=5000)
        assert store.totals(NAMESPACE) == Totals(0, 0)

    # lifetime

    def test_a_row_that_is_still_the_same_is_swapped(self, store: MetadataStore, put: Any) -> None:
        old = inline(1, b"kept", mac=b"old", key_id="k1")
        put(old)
        store.record_use(NAMESPACE, {key(1): (3, old.created_at + 5)})
        new = replace(old, expires_at=99, mac=b"new", key_id="k2")
        assert store.swap(old, new)
        assert store.find(NAMESPACE, key(1)) == new
        assert store.uses(NAMESPACE, [key(1)]) == {key(1): Use(old.created_at + 5, 3)}

    def test_a_row_that_has_changed_is_not_swapped(self, store: MetadataStore, put: Any) -> None:
        old = entry(1, mac=b"old")
        assert not store.swap(old, replace(old, expires_at=1))
        newer = entry(1, mac=b"old")
        put(old)
        put(newer)
        assert not store.swap(old, replace(old, expires_at=1))
        assert store.find(NAMESPACE, key(1)) == newer

    def test_use_is_counted_and_never_goes_back_in_time(self, store: MetadataStore, put: Any) -> None:
        put(entry(1, created_at=100), entry(2, created_at=100))
        store.record_use(NAMESPACE, {key(1): (2, 150), key(2): (1, 50), key(3): (1, 1)})
        store.record_use(NAMESPACE, {key(1): (1, 120)})
        store.record_use(NAMESPACE, {})
        keys = [key(1), key(2), key(3)]
        assert store.uses(NAMESPACE, keys) == {key(1): Use(150, 3), key(2): Use(100, 1)}
        assert store.uses(NAMESPACE, []) == store.uses("other", keys) == {}

    def test_the_uses_of_an_entry_end_with_it(self, store: MetadataStore, put: Any) -> None:
        put(entry(1, created_at=100), entry(2, created_at=100))
        store.record_use(NAMESPACE, {key(1): (2, 150), key(2): (2, 150)})
        put(entry(1, created_at=120))
        store.delete(Where(NAMESPACE, keys=(key(2),)))
        store.record_use(NAMESPACE, {key(2): (2, 150)})
        assert store.uses(NAMESPACE, [key(1), key(2)]) == {key(1): Use(120, 0)}
        put(entry(2, created_at=130))
        assert store.uses(NAMESPACE, [key(2)]) == {key(2): Use(130, 0)}

    def test_totals_count_entries_and_bytes(self, store: MetadataStore, put: Any) -> None:
        assert store.totals(NAMESPACE) == Totals(0, 0)
        put(entry(1), inline(2, b"abc"), entry(3, namespace="other"))
        assert store.totals(NAMESPACE) == Totals(2, 103)

    def test_figures_that_are_written_twice_count_once_and_those_of_processes_add_up(
        self, store: MetadataStore
    ) -> None:
        hour = store.now() // HOUR
        one = Activity("hour", hour, "m:f", "hit", "", 3, 0.0, 1.5, 100)
        other = Activity("hour", hour, "m:f", "miss", "new arguments", 1, 2.0, 0.0, 50)
        store.record_activity(NAMESPACE, "a", [one, other])
        store.record_activity(NAMESPACE, "a", [replace(one, calls=4), other])
        store.record_activity(NAMESPACE, "b", [one])
        store.record_activity("other", "b", [one])
        store.record_activity(NAMESPACE, "b", [])
        store.record_activity(NAMESPACE, "b", [replace(other, hour=hour - 1, function="m:g", reason="expired")])
        both = replace(one, calls=7, seconds_saved=3.0, bytes=200)
        recent = [replace(row, span="all", hour=0) for row in (both, other)]
        assert sorted(map(str, store.activity(NAMESPACE, hour))) == sorted(map(str, recent))
        ever = [*recent, replace(recent[1], function="m:g", reason="expired")]
        assert sorted(map(str, store.activity(NAMESPACE))) == sorted(map(str, ever))
        assert store.activity(NAMESPACE, hour + 1) == []
        hours = [replace(row, function="", reason="") for row in (both, other, replace(other, hour=hour - 1))]
        assert sorted(map(str, store.activity_by_hour(NAMESPACE, hour - 1))) == sorted(map(str, hours))
        assert sorted(map(str, store.activity_by_hour(NAMESPACE, hour))) == sorted(map(str, hours[:2]))

    def test_old_figures_become_fewer_and_their_sums_stay(self, store: MetadataStore) -> None:
        now = store.now() // HOUR
        for age in (0, 2, 3, 300, 301, 12_000):
            for who in ("a", "b"):
                store.record_activity(NAMESPACE, who, [Activity("hour", now - age, "f", "hit", "", 1, 0.0, 0.5, 7)])
        store.record_activity(NAMESPACE, "c", [Activity("hour", now - 3, "g", "miss", "expired", 1, 2.0, 0.0, 0)])
        before = sorted(map(str, store.activity(NAMESPACE)))
        while store.fold_activity(NAMESPACE, 3):
            pass
        assert sorted(map(str, store.activity(NAMESPACE))) == before
        assert sum(row.calls for row in store.activity(NAMESPACE, 0)) == 13
        found = [(row.span, row.calls) for row in store.activity_by_hour(NAMESPACE, 0) if row.outcome == "hit"]
        assert [(span, sum(n for s, n in found if s == span)) for span in ("day", "hour", "month")] == [
            ("day", 4), ("hour", 6), ("month", 2),
        ]  # fmt: skip
        assert store.fold_activity(NAMESPACE, 3) == 0

    def test_figures_since_an_hour_are_the_same_when_they_are_added_up(self, store: MetadataStore) -> None:
        now = store.now() // HOUR
        # Each hour has a distinct share of `calls`, so that a sum shows which hours it includes.
        ages = {age: 1 << place for place, age in enumerate((0, 1, 5, 23, 24, 30, 47, 71, 150, 191))}
        for age, calls in ages.items():
            row = Activity("hour", now - age, f"f{age % 2}", "hit", "", calls, 0.0, 0.5, 7)
            store.record_activity(NAMESPACE, f"p{age % 3}", [row])
        for is_added_up in (False, True):
            while is_added_up and store.fold_activity(NAMESPACE, 100):
                pass
            for age in (*ages, 2, 29, 49, 192):
                expected = sum(calls for known, calls in ages.items() if known <= age)
                for found in (store.activity(NAMESPACE, now - age), store.activity_by_hour(NAMESPACE, now - age)):
                    assert sum(row.calls for row in found) == expected, (is_added_up, age)
                    assert sum(row.bytes for row in found) == 7 * sum(known <= age for known in ages)
        long_ago = Activity("hour", now - 500 * 24, "f0", "hit", "", 1 << 20, 0.0, 0.5, 7)
        store.record_activity(NAMESPACE, "p0", [long_ago])
        while store.fold_activity(NAMESPACE, 100):
            pass
        for found in (store.activity(NAMESPACE, 0), store.activity_by_hour(NAMESPACE, 0)):
            assert sum(row.calls for row in found) == sum(ages.values()) + (1 << 20)
        assert sum(row.calls for row in store.activity(NAMESPACE, now - 300 * 24)) == sum(ages.values())

    def test_the_functions_of_a_namespace_are_each_told_once(self, store: MetadataStore, put: Any) -> None:
        assert store.functions(NAMESPACE) == []
        put(*(entry(number, function=f"m{number % 3}:f") for number in range(9)), entry(9, function=""))
        put(entry(1, namespace="other", function="g"))
        assert store.functions(NAMESPACE) == ["", "m0:f", "m1:f", "m2:f"]

    def test_what_a_transaction_changes_is_added_to_the_totals(self, store: MetadataStore, put: Any) -> None:
        put(inline(1, b"abc"), inline(2, b"de"))
        put(inline(1, b"longer"), inline(3, b"f"), inline(3, b"gh"), inline(1, b"z", namespace="other"))
        assert store.totals(NAMESPACE) == Totals(3, 10)
        assert store.totals("other") == Totals(1, 1)
        store.delete(Where(NAMESPACE, keys=(key(1), key(9))))
        assert store.totals(NAMESPACE) == Totals(2, 4)
        assert store.recount(NAMESPACE, correct=False) == store.recount(NAMESPACE, correct=True) == (0, 0)
        store.delete(Where(NAMESPACE))
        assert store.totals(NAMESPACE) == Totals(0, 0)

    def test_rivals_leave_totals_that_a_count_finds(self, opened: OpenStore) -> None:
        stores = [opened() for _ in range(4)]

        def work(thread: int) -> None:
            store = stores[thread]
            session = store.open_session(SOMEBODY)
            for turn in range(8):
                chosen = [random.Random(100 * thread + turn + n).randrange(12) for n in range(1 + 3 * (turn % 2))]
                store.commit([inline(number, b"x" * (thread + turn)) for number in chosen], session)
                store.delete(Where(NAMESPACE, keys=tuple(map(key, chosen[:1]))), waits=turn % 3 > 0)

        _together(work, 4)
        found = stores[0].scan(Where(NAMESPACE))
        assert stores[0].totals(NAMESPACE) == Totals(len(found), sum(one.size for one in found))
        assert stores[0].recount(NAMESPACE, correct=False) == (0, 0)

    def test_a_quota_belongs_to_the_namespace(self, store: MetadataStore, opened: OpenStore, put: Any) -> None:
        assert store.holdings(NAMESPACE) == Holdings(0, 0, Quota(), 0)
        put(inline(1, b"abc"))
        quota = Quota(10**15, None, "cost")
        assert store.set_quota(NAMESPACE, quota)
        assert not store.set_quota(NAMESPACE, quota)
        other = opened()
        assert other.holdings(NAMESPACE) == Holdings(1, 3, quota, 0)
        assert other.holdings("other") == Holdings(0, 0, Quota(), 0)
        assert other.set_quota(NAMESPACE, Quota(None, 7))
        store.note_maintenance(NAMESPACE)
        store.note_maintenance("other")
        assert store.holdings(NAMESPACE).quota == Quota(None, 7)
        assert store.holdings(NAMESPACE).maintained_at > 0

    def test_a_sample_is_of_neighbours_and_goes_round_the_end(self, store: MetadataStore, put: Any) -> None:
        assert store.sample(NAMESPACE, key(1), 3) == []
        keys = [key(number) for number in range(6)]
        put(*(entry(number, created_at=100, size=number, compute_seconds=2.0) for number in range(6)))
        put(entry(1, namespace="other"))
        store.record_use(NAMESPACE, {keys[0]: (3, 150)})
        assert [one.key for one in store.sample(NAMESPACE, keys[1], 3)] == keys[1:4]
        for start in keys[3:5]:
            at = keys.index(start)
            assert [one.key for one in store.sample(NAMESPACE, start, 4)] == (keys + keys)[at : at + 4]
        whole = store.sample(NAMESPACE, keys[5], 100)
        assert [one.key for one in whole] == [keys[5], *keys[:5]]
        assert whole[1] == Candidate(keys[0], 0, 100, 2.0, 150, 3)
        assert whole[2].accessed_at == 100

    def test_the_newest_come_first_by_function_or_all(self, store: MetadataStore, put: Any) -> None:
        put(*(entry(number, created_at=100 + number // 2, function=f"m:{'fg'[number % 2]}") for number in range(10)))
        put(entry(1, namespace="other", created_at=999, function="m:f"))
        expected = sorted(store.scan(Where(NAMESPACE)), key=lambda one: (one.created_at, one.key), reverse=True)
        for where in (Where(NAMESPACE), Where(NAMESPACE, functions=("m:f",)), Where(NAMESPACE, created_before=103)):
            wanted = [one for one in expected if one in store.scan(where)]
            pages, before = [], None
            while page := store.newest(where, before=before, limit=2):
                pages += page
                before = (page[-1].created_at, page[-1].key)
            assert pages == wanted

    def test_a_deletion_may_be_bounded(self, store: MetadataStore, put: Any) -> None:
        put(*(inline(number, created_at=100 - number, function=f"m:{'fg'[number % 2]}") for number in range(10)))
        assert store.delete(Where(NAMESPACE, functions=("m:f",)), most=2).entries == 2
        assert store.delete(Where(NAMESPACE, functions=("m:f", "m:none"))).entries == 3
        assert store.delete(Where(NAMESPACE, functions=("m:f", "m:g"), created_before=95)).entries == 2
        assert store.delete(Where(NAMESPACE, created_before=100)).entries == 3
        put(*(inline(number, expires_at=number + 1) for number in range(5)), inline(9))
        assert store.delete(Where(NAMESPACE, expired=True), most=3, waits=False).entries == 3
        assert store.delete(Where(NAMESPACE, expired=True), most=3, waits=False).entries == 2
        assert [one.key for one in store.scan(Where(NAMESPACE))] == [key(9)]

    # hints to an entry

    @pytest.mark.parametrize("condition", [{"tag": "old"}, {"prefix": "old"}])
    def test_an_overwritten_entry_is_not_found_by_what_it_was(
        self, store: MetadataStore, put: Any, condition: dict[str, Any]
    ) -> None:
        old: dict[str, Any] = {"tags": ("both", "old"), "prefix": "old"}
        put(entry(1, **old), entry(2, **old), entry(3, **old))
        put(entry(1, tags=("both",), prefix="new"), entry(2))
        assert [one.key for one in store.scan(Where(NAMESPACE, **condition))] == [key(3)]
        assert [one.key for one in store.scan(Where(NAMESPACE, tag="both"))] == [key(1), key(3)]
        assert store.delete(Where(NAMESPACE, **condition)).entries == 1
        assert [one.key for one in store.scan(Where(NAMESPACE))] == [key(1), key(2)]
        assert [one.key for one in store.scan(Where(NAMESPACE, prefix="new"))] == [key(1)]

    def test_a_deleted_entry_leaves_no_tags_to_its_successor(self, store: MetadataStore, put: Any) -> None:
        put(entry(1, tags=("old",), prefix="old"))
        store.delete(Where(NAMESPACE))
        put(entry(1))
        assert store.scan(Where(NAMESPACE, tag="old")) == store.scan(Where(NAMESPACE, prefix="old")) == []

    def test_rivals_for_one_key_leave_it_to_be_found_by_the_tags_of_the_last(self, opened: OpenStore) -> None:
        stores = [opened() for _ in range(4)]

        def work(thread: int) -> None:
            session = stores[thread].open_session(SOMEBODY)
            for number in range(10):
                mine = {"tags": (f"by {thread}",), "prefix": f"p{number % 2}"} if number % 3 else {}
                stores[thread].commit([entry(1, **mine), entry(2, **mine)], session)

        _together(work, 4)
        for one in stores[0].scan(Where(NAMESPACE)):
            assert all(one in stores[0].scan(Where(NAMESPACE, tag=tag)) for tag in one.tags)
            assert one in stores[0].scan(Where(NAMESPACE, prefix=one.prefix))
        conditions: list[dict[str, Any]] = [{"tag": f"by {thread}"} for thread in range(4)]
        for condition in (*conditions, {"prefix": "p0"}, {"prefix": "p1"}):
            for one in stores[0].scan(Where(NAMESPACE, **condition)):
                assert condition.get("tag", one.tags[0]) in one.tags
                assert condition.get("prefix", one.prefix) == one.prefix

    def test_long_tags_and_prefixes_are_told_apart(self, store: MetadataStore, put: Any) -> None:
        same = "é" * 5000
        put(
            entry(1, tags=(same + "a", same + "b")),
            entry(2, tags=(same + "b",), prefix=same + "c"),
            entry(3, prefix=same),
        )
        cases: tuple[tuple[dict[str, Any], list[int]], ...] = (
            ({"tag": same + "a"}, [1]), ({"tag": same + "b"}, [1, 2]), ({"tag": same}, []),
            ({"prefix": same + "c"}, [2]), ({"prefix": same}, [3]),
        )  # fmt: skip
        for condition, expected in cases:
            assert [one.key for one in store.scan(Where(NAMESPACE, **condition))] == [key(n) for n in expected]

    # tombstones

    def test_tombstones_are_listed_by_prefix_in_order_and_in_pages(self, store: MetadataStore, put: Any) -> None:
        entries = [entry(number, key=bytes([number]) * 32) for number in (1, 2, 2, 2, 3)]
        entries = [replace(one, blob=blob_name(one.key)) for one in entries]
        put(*entries)
        store.delete(Where(NAMESPACE))
        names = sorted(str(one.blob) for one in entries)
        assert store.tombstones() == names
        assert store.tombstones(f"{NAMESPACE}/02/") == names[1:4]
        assert store.tombstones(f"{NAMESPACE}/02/", after=names[1], limit=1) == [names[2]]
        assert store.tombstones(names[0], limit=1) == [names[0]]
        assert store.tombstones("other/") == []

    def test_a_cleared_tombstone_is_forgotten(self, store: MetadataStore, put: Any) -> None:
        first, second = entry(1), entry(2)
        put(first, second)
        store.delete(Where(NAMESPACE))
        store.clear_tombstones([str(first.blob), "never/there"])
        store.clear_tombstones([])
        assert store.tombstones() == [second.blob]

    # the store itself

    def test_identity_stays_and_names_the_epochs_of_the_last_repairs(
        self, store: MetadataStore, opened: OpenStore
    ) -> None:
        first = store.identity()
        assert all((first.store_id, first.system, first.epoch))
        epochs = [secrets.token_hex(8) for _ in range(40)]
        for epoch in epochs:
            store.begin_epoch(epoch)
        now = opened().identity()
        assert replace(now, epoch=first.epoch) == first
        assert now.epoch.split(",")[:25] == epochs[:-26:-1]

    def test_the_clock_goes_forward(self, store: MetadataStore) -> None:
        assert store.now() <= store.now()

    def test_a_session_id_is_16_hexadecimal_digits(self, store: MetadataStore) -> None:
        sessions = {store.open_session(SOMEBODY) for _ in range(3)}
        assert len(sessions) == 3
        assert all(len(bytes.fromhex(session)) == 8 for session in sessions)

    def test_exclusive_blocks_may_be_nested(self, store: MetadataStore, put: Any) -> None:
        with store.exclusive(), store.exclusive():
            put(entry(1))
        assert store.find(NAMESPACE, key(1)) is not None

    def test_closing_twice_is_fine(self, store: MetadataStore, put: Any) -> None:
        put(entry(1))
        store.close()
        store.close()

    def test_threads_share_a_store(self, store: MetadataStore) -> None:
        session = store.open_session(SOMEBODY)

        def work(thread: int) -> None:
            for number in range(thread * 10, thread * 10 + 10):
                store.commit([inline(number)], session)
                assert store.find(NAMESPACE, key(number)) is not None

        _together(work, 8)
        assert store.totals(NAMESPACE).entries == 80

    def test_rivals_for_one_key_leave_a_tombstone_for_every_object_but_the_last(self, opened: OpenStore) -> None:
        stores = [opened() for _ in range(4)]
        names: list[str] = []

        def work(thread: int) -> None:
            store = stores[thread]
            session = store.open_session(SOMEBODY)
            for number in range(20):
                mine = [entry(number % 3), entry(7)]
                names.extend(str(one.blob) for one in mine)
                store.commit(mine if thread % 2 else mine[::-1], session)
                store.commit([entry(number % 3, blob=None, inline=b"")], session)

        _together(work, 4)
        named = {found.blob for found in stores[0].scan(Where(NAMESPACE))} - {None}
        assert set(names) - named == set(stores[0].tombstones(limit=1000))
        assert named <= set(names)

    def test_a_store_is_used_once_it_names_a_blob(self, store: MetadataStore) -> None:
        assert store.is_unused()
        store.commit([entry(1)], store.open_session(SOMEBODY))
        assert not store.is_unused()

    def test_a_repair_makes_a_store_used(self, store: MetadataStore) -> None:
        store.begin_epoch("0123456789abcdef")
        assert not store.is_unused()


class SessionStoreContract(MetadataStoreContract):
    """The guarantees of stores with many writers: sessions and compute leases."""

    def test_a_new_session_is_live_and_tells_its_process(self, store: MetadataStore) -> None:
        session = store.open_session(SOMEBODY)
        [found] = store.live_sessions()
        assert (found.id, found.process, found.lease_expired) == (session, SOMEBODY, False)
        assert store.renew_session(session)
        assert store.dead_sessions([session]) == set()

    @pytest.mark.parametrize("how", ["end_session", "fence"])
    def test_a_session_that_is_over_commits_nothing(self, store: MetadataStore, how: str) -> None:
        session = store.open_session(SOMEBODY)
        kept = entry(1)
        store.commit([kept], session)
        getattr(store, how)(session)
        for lost in ([entry(1)], [inline(2)], [entry(1), entry(3), inline(4)]):
            with pytest.raises(SessionLost):
                store.commit(lost, session)
        assert store.scan(Where(NAMESPACE)) == [kept]
        assert store.tombstones() == []
        assert store.live_sessions() == []
        assert store.dead_sessions([session]) == {session}
        assert not store.renew_session(session)

    def test_a_session_makes_a_store_used(self, store: MetadataStore) -> None:
        store.end_session(store.open_session(SOMEBODY))
        assert not store.is_unused()

    def test_an_unknown_session_that_was_condemned_is_dead_and_a_known_one_is_left_alone(
        self, store: MetadataStore
    ) -> None:
        unknown, live, ended = "0123456789abcdef", store.open_session(SOMEBODY), store.open_session(SOMEBODY)
        store.end_session(ended)
        assert store.condemn([]) == set()
        assert store.condemn([unknown, live, ended]) == {unknown}
        assert store.condemn([unknown]) == set()
        assert store.dead_sessions([unknown, live, ended]) == {unknown, ended}
        assert store.renew_session(live)
        with pytest.raises(SessionLost):
            store.commit([entry(1)], unknown)

    def test_an_unknown_session_commits_nothing_and_is_not_called_dead(self, store: MetadataStore) -> None:
        unknown = "0123456789abcdef"
        with pytest.raises(SessionLost):
            store.commit([entry(1)], unknown)
        assert store.find(NAMESPACE, key(1)) is None
        assert store.dead_sessions([unknown]) == set()
        assert store.dead_sessions([]) == set()
        assert not store.renew_session(unknown)

    def test_a_session_ends_only_once(self, store: MetadataStore) -> None:
        session = store.open_session(SOMEBODY)
        assert store.fence(session)
        assert store.fence(session)
        store.end_session(session)
        assert store.dead_sessions([session]) == {session}

    def test_other_sessions_go_on_when_one_is_fenced(self, store: MetadataStore) -> None:
        mine, other = (store.open_session(SOMEBODY) for _ in range(2))
        store.fence(other)
        store.commit([entry(1)], mine)
        assert [session.id for session in store.live_sessions()] == [mine]
        assert store.dead_sessions([mine, other]) == {other}

    def test_sessions_that_were_over_before_a_time_are_forgotten(self, store: MetadataStore) -> None:
        ended, fenced, live = (store.open_session(SOMEBODY) for _ in range(3))
        store.end_session(ended)
        store.fence(fenced)
        assert store.delete_sessions(3600 * MICROSECONDS) == 0
        assert store.delete_sessions(-3600 * MICROSECONDS) == 2
        assert store.dead_sessions([ended, fenced, live]) == set()
        assert [session.id for session in store.live_sessions()] == [live]

    def test_fencing_beside_commits_lets_each_commit_happen_whole_or_not_at_all(self, opened: OpenStore) -> None:
        writer, repairer = opened(), opened()
        for round_ in range(5):
            session = writer.open_session(SOMEBODY)
            acknowledged: list[int] = []
            begun = threading.Event()

            def write(session: str = session, mine: list[int] = acknowledged, begun: threading.Event = begun) -> None:
                with pytest.raises(SessionLost):
                    for number in range(100_000):
                        writer.commit([entry(2 * number), entry(2 * number + 1)], session)
                        mine.append(number)
                        begun.set()

            with ThreadPoolExecutor(1) as pool:
                writing = pool.submit(write)
                begun.wait()
                while not repairer.fence(session):
                    pass
                fenced = len(repairer.scan(Where(NAMESPACE), limit=1_000_000))
                writing.result()
            assert fenced == len(acknowledged) * 2, round_
            assert len(repairer.scan(Where(NAMESPACE), limit=1_000_000)) == fenced
            repairer.delete(Where(NAMESPACE))

    def test_rivals_whose_sessions_are_fenced_at_random_lose_no_object(self, opened: OpenStore) -> None:
        stores = [opened() for _ in range(3)]
        committed: list[str] = []
        done = threading.Event()

        def fence() -> None:
            while not done.is_set():
                for session in stores[0].live_sessions():
                    stores[0].fence(session.id)

        def write(store: MetadataStore) -> None:
            session = store.open_session(SOMEBODY)
            for number in range(25):
                mine = [entry(number % 2)]
                try:
                    store.commit(mine, session)
                    committed.append(str(mine[0].blob))
                except SessionLost:
                    session = store.open_session(SOMEBODY)

        with ThreadPoolExecutor(3) as pool:
            fencing = pool.submit(fence)
            for writing in [pool.submit(write, store) for store in stores[1:]]:
                writing.result()
            done.set()
            fencing.result()
        named = {found.blob for found in stores[0].scan(Where(NAMESPACE))}
        assert set(committed) - named == set(stores[0].tombstones(limit=1000))
        assert named <= set(committed)

    # compute leases

    def test_one_computes_and_the_others_wait(self, store: MetadataStore, opened: OpenStore) -> None:
        other = opened()
        assert store.take_compute_lease(NAMESPACE, key(1), "mine", 60)
        assert not other.take_compute_lease(NAMESPACE, key(1), "theirs", 60)
        assert other.take_compute_lease(NAMESPACE, key(2), "theirs", 60)
        assert other.compute_lease_holder(NAMESPACE, key(1)) == "mine"
        assert store.take_compute_lease(NAMESPACE, key(1), "mine", 60)

    def test_a_compute_lease_that_ended_is_free(self, store: MetadataStore) -> None:
        store.take_compute_lease(NAMESPACE, key(1), "mine", 60)
        store.end_compute_lease(NAMESPACE, key(1), "theirs")
        assert store.compute_lease_holder(NAMESPACE, key(1)) == "mine"
        store.end_compute_lease(NAMESPACE, key(1), "mine")
        store.end_compute_lease(NAMESPACE, key(1), "mine")
        assert store.compute_lease_holder(NAMESPACE, key(1)) is None
        assert store.take_compute_lease(NAMESPACE, key(1), "theirs", 60)

    def test_a_compute_lease_that_is_over_is_taken_over(self, store: MetadataStore) -> None:
        assert store.take_compute_lease(NAMESPACE, key(1), "dead", -1)
        assert store.compute_lease_holder(NAMESPACE, key(1)) is None
        assert store.take_compute_lease(NAMESPACE, key(1), "mine", 60)
        assert not store.take_compute_lease(NAMESPACE, key(1), "dead", 60)

    def test_of_many_who_take_a_compute_lease_at_once_one_gets_it(self, opened: OpenStore) -> None:
        stores = [opened() for _ in range(4)]
        for number in range(5):
            got: list[int] = []

            def take(thread: int, number: int = number, got: list[int] = got) -> None:
                if stores[thread].take_compute_lease(NAMESPACE, key(number), f"token {thread}", 60):
                    got.append(thread)

            _together(take, 4)
            assert len(got) == 1
            assert stores[0].compute_lease_holder(NAMESPACE, key(number)) == f"token {got[0]}"


def _together(work: Callable[[int], None], threads: int) -> None:
    start = threading.Barrier(threads)

    def begin(thread: int) -> None:
        start.wait()
        work(thread)

    with ThreadPoolExecutor(threads) as pool:
        results: Sequence[Any] = [pool.submit(begin, thread) for thread in range(threads)]
        for result in results:
            result.result()
