from __future__ import annotations

import base64
import gc
import os
import pickle
import stat
import threading
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheness import Config, UnifiedCache, factory
from cacheness.errors import ConfigError, CorruptEntry, ForgedEntry
from cacheness.records import Entry, Equivalence, made_of
from cacheness.results.signing import Keyring, digest_buffers, header, load_or_create_key_file, verify_bytes
from cacheness.results.signing_keys import HmacKey, PrivateKey, derived_id, new_private_key, read_signing_keys
from tests.forked import ended, fork

OLD, NEW = "an old key of enough length", "a new key of enough length"

ENTRY = Entry(
    namespace="default",
    key=bytes(32),
    blob="default/00/x",
    inline=None,
    size=5,
    raw_size=9,
    digest=digest_buffers([b"bytes"]),
    codec="numpy+zstd",
    created_at=1_700_000_000_000_000,
    expires_at=None,
    compute_seconds=None,
    function="helpers.clean",
    prefix="p",
    args=b"args",
    components="{}",
    value=None,
    fn=None,
    alias=None,
    link=None,
    outputs=None,
    tags=("a", "b"),
    provenance="{}",
    key_id="",
    mac=b"",
)

#: For each field, values that all differ from the entry's own and from one another.
OTHERS: dict[str, list[Any]] = {
    "namespace": ["defaul", "", "default\0"],
    "key": [bytes(31) + b"\1", bytes(33), b""],
    "blob": [None, "", "default/00/y"],
    "size": [4, 0, -1, "5", 5.0, None],
    "raw_size": [8, 1 << 40, "9", None],
    "digest": [bytes(32), b"", None],
    "codec": ["numpy", "pickle", ""],
    "created_at": [0, 1_700_000_000_000_001, None],
    "expires_at": [0, 1, -1],
    "compute_seconds": [0.0, 0, 1.5, float("nan")],
    "function": ["", "helpers.clea", None],
    "prefix": ["", "pp", None],
    "args": [b"", b"argsx", "args", None],
    "components": ["", "{}{}", None],
    "value": [b"", bytes(32), bytes(31), "value"],
    "fn": [b"", bytes(32), bytes(31), "fn"],
    "alias": [b"", bytes(32), bytes(31), "alias"],
    "link": [b"", bytes(32), bytes(31), "link"],
    "outputs": ["", "[]", b"[]"],
    "tags": [(), ("a",), ("ab",), ("a", "b", ""), ("a1:b",), None],
    "provenance": ["", "{} ", None],
    "key_id": ["", "new", "nobody", None],
    "mac": [b"", bytes(32), bytes(31), "", "mac", None],
}
COVERED_BY_THE_DIGEST = {"inline"}


def test_every_field_is_either_signed_or_named_here_as_not_signed() -> None:
    assert OTHERS.keys() | COVERED_BY_THE_DIGEST == {field.name for field in fields(Entry)}


def test_an_entry_made_of_its_fields_is_like_any_other() -> None:
    made = made_of(getattr(ENTRY, f.name) for f in fields(Entry))
    assert type(made) is Entry
    assert made == ENTRY
    assert hash(made) == hash(ENTRY)
    assert pickle.loads(pickle.dumps(made)) == replace(made) == ENTRY
    with pytest.raises(FrozenInstanceError):
        made.size = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        made_of([1])


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_changed_field_is_a_forgery(name: str) -> None:
    keyring = Keyring.parse(f"old:{OLD},new:{NEW}")
    signed = keyring.sign(ENTRY)
    keyring.verify(signed)
    for other in OTHERS[name]:
        with pytest.raises(ForgedEntry):
            keyring.verify(replace(signed, **{name: other}))


EQUIVALENCE = Equivalence(
    namespace="default",
    new=bytes(32),
    old=b"\1" * 32,
    store="a store",
    parameters="{}",
    evidence='{"equal":200}',
    created_at=5,
    until=1_800_000_000_000_003,
    by="anna@here",
    key_id="",
    mac=b"",
)
OTHER_EQUIVALENCES: dict[str, list[Any]] = {
    "namespace": ["defaul", "", None],
    "new": [b"\1" * 32, bytes(31), "new", None],
    "old": [bytes(32), b"", None],
    "store": ["", "a store ", None],
    "parameters": ["", '{"n":{"was":"x"}}', None],
    "evidence": ["{}", '{"equal":2000}', None],
    "created_at": [4, 0, "5", None],
    "until": [0, 1_900_000_000_000_000, None],
    "by": ["", "anna@her", None],
    "key_id": ["", "new", "nobody", None],
    "mac": [b"", bytes(32), "mac", None],
}


def test_a_changed_field_of_an_equivalence_is_a_forgery() -> None:
    assert OTHER_EQUIVALENCES.keys() == {field.name for field in fields(Equivalence)}
    keyring = Keyring.parse(f"old:{OLD},new:{NEW}")
    signed = keyring.sign_equivalence(EQUIVALENCE)
    assert keyring.is_genuine_equivalence(signed)
    assert not Keyring.parse(f"old:{NEW}").is_genuine_equivalence(signed)
    for name, others in OTHER_EQUIVALENCES.items():
        for other in others:
            assert not keyring.is_genuine_equivalence(replace(signed, **{name: other})), (name, other)
    moved = replace(signed, evidence=signed.evidence + signed.by, by="")
    assert not keyring.is_genuine_equivalence(moved)
    assert Keyring.unsigned().is_genuine_equivalence(Keyring.unsigned().sign_equivalence(EQUIVALENCE))
    assert not Keyring.unsigned().is_genuine_equivalence(replace(EQUIVALENCE, until="soon"))  # type: ignore[arg-type]


def test_inline_bytes_are_covered_by_length_and_digest() -> None:
    inline = Keyring.parse(OLD).sign(replace(ENTRY, blob=None, inline=b"bytes"))
    verify_bytes(inline, b"bytes")
    for wrong in (b"byte", b"bytes!", b"", b"bytez"):
        with pytest.raises(CorruptEntry):
            verify_bytes(inline, wrong)


def test_every_flipped_bit_of_a_signature_is_noticed() -> None:
    keyring = Keyring.parse(OLD)
    signed = keyring.sign(ENTRY)
    for bit in range(8 * len(signed.mac)):
        mac = bytearray(signed.mac)
        mac[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ForgedEntry):
            keyring.verify(replace(signed, mac=bytes(mac)))


def test_a_stripped_signature_is_a_forgery() -> None:
    keyring = Keyring.parse(OLD)
    with pytest.raises(ForgedEntry, match="nobody"):
        keyring.verify(replace(keyring.sign(ENTRY), key_id="", mac=b""))
    with pytest.raises(ForgedEntry):
        keyring.verify(Keyring.unsigned().sign(ENTRY))


def test_a_row_signed_by_one_key_cannot_pass_as_signed_by_another() -> None:
    keyring = Keyring.parse(f"new:{NEW},old:{OLD}")
    by_old = Keyring.parse(f"old:{OLD}").sign(ENTRY)
    keyring.verify(by_old)
    with pytest.raises(ForgedEntry):
        keyring.verify(replace(by_old, key_id="new"))
    with pytest.raises(ForgedEntry):
        Keyring.parse(f"new:{NEW}").verify(by_old)


def test_after_a_rotation_the_first_key_signs_and_old_rows_still_verify() -> None:
    rotated = Keyring.parse(f"2026:{NEW}, 2025:{OLD}")
    rotated.verify(Keyring.parse(f"2025:{OLD}").sign(ENTRY))
    assert rotated.sign(ENTRY).key_id == "2026"


def test_a_key_without_an_id_may_be_rotated_too() -> None:
    signed = Keyring.parse(OLD).sign(ENTRY)
    Keyring.parse(f"{NEW},{OLD}").verify(signed)
    Keyring.parse(f"new:{NEW},old:{OLD}").verify(signed)


def test_without_a_key_signed_and_unsigned_rows_are_read() -> None:
    keyring = Keyring.unsigned()
    keyring.verify(keyring.sign(ENTRY))
    keyring.verify(Keyring.parse(OLD).sign(ENTRY))
    resigned = keyring.sign(Keyring.parse(OLD).sign(ENTRY))
    assert (resigned.key_id, resigned.mac) == ("", b"")


# keys that verify and cannot sign


def writer(name: str = "ci") -> tuple[str, str]:
    """A private key and its public one, as they are written."""
    private = new_private_key(name)
    key = read_signing_keys(private)[name]
    assert isinstance(key, PrivateKey)
    return private, key.text(name)


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_reader_with_a_public_key_notices_every_changed_field(name: str) -> None:
    private, public = writer()
    other, _ = writer("new")
    signed = Keyring.parse(private).sign(ENTRY)
    reader = Keyring.parse(None, trust=public)
    reader.verify(signed)
    for value in OTHERS[name]:
        with pytest.raises(ForgedEntry):
            reader.verify(replace(signed, **{name: value}))
    reader.verify(signed)  # what was refused in between changed nothing
    with pytest.raises(ForgedEntry):
        reader.verify(Keyring.parse(other).sign(ENTRY))


def test_a_changed_field_of_an_equivalence_is_seen_with_a_public_key() -> None:
    private, public = writer()
    reader, signed = Keyring.parse(None, trust=public), Keyring.parse(private).sign_equivalence(EQUIVALENCE)
    assert reader.is_genuine_equivalence(signed)
    for name, others in OTHER_EQUIVALENCES.items():
        for other in others:
            assert not reader.is_genuine_equivalence(replace(signed, **{name: other})), (name, other)


def test_every_flipped_bit_of_an_ed25519_signature_is_noticed() -> None:
    private, public = writer()
    signed, reader = Keyring.parse(private).sign(ENTRY), Keyring.parse(None, trust=public)
    for bit in range(8 * len(signed.mac)):
        mac = bytearray(signed.mac)
        mac[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ForgedEntry):
            reader.verify(replace(signed, mac=bytes(mac)))
    for length in (0, 32, 63):
        with pytest.raises(ForgedEntry):
            reader.verify(replace(signed, mac=signed.mac[:length]))


def test_the_text_of_a_public_key_is_no_secret_for_an_hmac() -> None:
    _, public = writer()
    raw = public.rpartition(":")[2]
    reader = Keyring.parse(None, trust=public)
    for secret in (public, raw, base64.urlsafe_b64decode(raw + "=").hex()):
        forged = Keyring({"ci": HmacKey(secret.encode())}).sign(ENTRY)
        for mac in (forged.mac, forged.mac * 2):
            with pytest.raises(ForgedEntry):
                reader.verify(replace(forged, mac=mac))


def test_a_reader_can_sign_nothing() -> None:
    _, public = writer()
    reader = Keyring.parse(None, trust=public)
    for sign in (lambda: reader.sign(ENTRY), lambda: reader.sign_equivalence(EQUIVALENCE)):
        with pytest.raises(ConfigError, match="no key to sign with"):
            sign()
    with pytest.raises(ForgedEntry):
        reader.verify(ENTRY)


def test_nothing_that_a_reader_holds_can_sign(tmp_path: Path) -> None:
    private, public = writer()
    with UnifiedCache(tmp_path, signing_key=private) as cache:
        cache.put("kept", a=1)
    with UnifiedCache(tmp_path, trust=public, mode="read") as reader:
        assert reader.get(a=1) == "kept"
        seen: set[int] = set()
        left: list[Any] = [reader._store.keyring]
        while left:
            one = left.pop()
            if id(one) not in seen and not isinstance(one, type | ModuleType):
                seen.add(id(one))
                assert not hasattr(one, "sign") or isinstance(one, Keyring), one
                left += gc.get_referents(one)
        assert len(seen) > 5
        copied = pickle.dumps(reader)
    raw = private.rpartition(":")[2]
    assert raw.encode() not in copied
    assert base64.urlsafe_b64decode(raw + "=") not in copied


def test_with_trusted_keys_rows_of_the_shared_secret_are_read_only_where_it_is_named() -> None:
    private, public = writer()
    by_hmac = Keyring.parse(f"team:{OLD}").sign(ENTRY)
    with pytest.raises(ForgedEntry):
        Keyring.parse(f"{private},team:{OLD}", trust=public).verify(by_hmac)
    Keyring.parse(f"{private},team:{OLD}", trust=f"{public}, hmac:team").verify(by_hmac)
    bare = Keyring.parse(OLD).sign(ENTRY)
    Keyring.parse(OLD, trust=f"hmac:{bare.key_id}").verify(bare)
    with pytest.raises(ConfigError, match="add hmac:team"):  # else it could not read what it stores
        Keyring.parse(f"team:{OLD}", trust=public)
    with pytest.raises(ConfigError, match="no key for HMAC"):
        Keyring.parse(private, trust="hmac:team")
    with pytest.raises(ConfigError, match="no key for HMAC"):
        Keyring.parse(private, trust="hmac:ci")


def test_a_writer_reads_its_own_rows_whatever_else_it_trusts() -> None:
    private, public = writer("ci")
    other_private, other_public = writer("laptop")
    keyring = Keyring.parse(private, trust=other_public)
    keyring.verify(keyring.sign(ENTRY))
    keyring.verify(Keyring.parse(other_private).sign(ENTRY))
    assert keyring.sign(ENTRY).key_id == "ci"
    assert keyring.ids == ["ci", "laptop"]
    with pytest.raises(ConfigError, match="Give it another name"):
        Keyring.parse(writer("ci")[0], trust=public)


def test_a_compromised_name_is_dropped_whole_and_a_new_one_goes_on() -> None:
    old, old_public = writer("ci-1")
    new, new_public = writer("ci-2")
    before, after = Keyring.parse(old).sign(ENTRY), Keyring.parse(new).sign(ENTRY)
    both = Keyring.parse(None, trust=f"{old_public},{new_public}")
    both.verify(before)
    both.verify(after)
    dropped = Keyring.parse(None, trust=new_public)
    dropped.verify(after)
    with pytest.raises(ForgedEntry, match="ci-1"):
        dropped.verify(before)
    with pytest.raises(ForgedEntry):
        dropped.verify(replace(before, key_id="ci-2"))


def test_remembered_rows_stay_few_and_stay_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cacheness.results.signing_keys._MOST_REMEMBERED", 3)
    private, public = writer()
    signer, reader = Keyring.parse(private), Keyring.parse(None, trust=public)
    rows = [signer.sign(replace(ENTRY, created_at=at)) for at in range(10)]
    for row in rows * 2:
        reader.verify(row)
        with pytest.raises(ForgedEntry):
            reader.verify(replace(row, created_at=-1))


@pytest.mark.parametrize(
    ("keys", "trust", "words"),
    [
        ("ed25519:ci:short", None, "43 characters"),
        ("ed25519:ci", None, "43 characters"),
        ("ed25519:bad id:x", None, "1 to 32 letters"),
        ("hmac:a secret of enough length", None, "none of"),
        ("PUBLIC", None, "cannot sign"),
        ("PRIVATE,PRIVATE", None, "repeats an id"),
        (None, "PRIVATE", "only its writer"),
        (None, "PUBLIC,PUBLIC", "repeats the name"),
        (None, "ed25519-pub:ci:AAAA", "43 characters"),
        (None, "", "no known kind"),
        (None, "\n# PUBLIC\r\n", "no known kind"),  # nothing is left
        (None, "PUBLIC # ours", "43 characters"),
        ("old:a secret of enough length\nnew:another of enough length", None, "line break"),
        ("-----BEGIN KEY-----\r\nenough\r\n-----END KEY-----", None, "line break"),
        (None, "a secret of enough length", "no known kind"),
    ],
)
def test_a_key_that_cannot_be_used_says_why_and_shows_nothing(keys: str | None, trust: str | None, words: str) -> None:
    private, public = writer()
    given = [text and text.replace("PRIVATE", private).replace("PUBLIC", public) for text in (keys, trust)]
    with pytest.raises(ConfigError, match=words) as caught:
        Keyring.parse(given[0], trust=given[1])
    assert private.rpartition(":")[2] not in str(caught.value)
    assert "enough" not in str(caught.value)


@pytest.mark.parametrize(
    "form", ["{0}\n{1}\n", "{0}\r\n{1}\r\n", "# CI\n {0} ,\n\n  # of Anna, and ed25519-pub:x:y\n{1}", "\ufeff{0},{1},"]
)
def test_a_file_of_trusted_keys_may_have_a_key_in_each_line(tmp_path: Path, form: str) -> None:
    (ci, public), (anna, other) = writer(), writer("anna")
    (tmp_path / "trust").write_bytes(form.format(public, other).encode())
    config = Config.from_env({"CACHENESS_TRUST_FILE": str(tmp_path / "trust")})
    reader = Keyring.parse(None, trust=config.trust)
    for private in (ci, anna):
        reader.verify(Keyring.parse(private).sign(ENTRY))
    assert reader.ids == ["anna", "ci"]


@pytest.mark.parametrize("mode", ["read", "offline"])
@pytest.mark.parametrize(
    ("signing", "trust"),
    [
        ("CI", "PUBLIC"),
        ("CI", "ANNA"),
        (f"CI,team:{OLD}", "ANNA"),
        (f"CI,team:{OLD}", "hmac:team,ANNA"),
        (f"team:{OLD},CI", "hmac:team"),
        (f"{OLD},CI", f"hmac:{derived_id(OLD.encode())}"),
    ],
)
def test_who_only_reads_keeps_and_sends_no_private_key(tmp_path: Path, signing: str, trust: str, mode: Any) -> None:
    (ci, public), (anna, other) = writer(), writer("anna")
    signing = signing.replace("CI", ci)
    trust = trust.replace("PUBLIC", public).replace("ANNA", other)
    with UnifiedCache(tmp_path, signing_key=signing, trust=trust) as cache:
        cache.put(1, a=1)
        full = cache._store.keyring
    with UnifiedCache(tmp_path, signing_key=signing, trust=trust, mode=mode) as reader:
        assert reader.get(a=1) == 1
        assert ci.rpartition(":")[2].encode() not in pickle.dumps(reader)
        less = reader._store.keyring
        assert less.ids == full.ids
        for row in (Keyring.parse(key).sign(ENTRY) for key in (ci, anna, f"team:{OLD}", OLD)):
            assert _verifies(less, row) == _verifies(full, row)


def test_a_shared_cache_without_trust_keeps_and_sends_no_private_key_either() -> None:
    ci, public = writer()
    config = Config(metadata_backend="postgresql://there/db", blob_store="s3://bucket", signing_key=f"{ci},team:{OLD}")
    less = factory.fit_to_send(config.but(mode="read"))
    assert (less.signing_key, less.trust) == (f"team:{OLD}", ",".join(["hmac:team", *_derived(OLD), public]))
    assert factory.fit_to_send(config) == config
    assert factory.fit_to_send(config.but(mode="off")).signing_key == config.signing_key


def _derived(secret: str) -> list[str]:
    return [f"hmac:{derived_id(secret.encode())}"]


def _verifies(keyring: Keyring, row: Any) -> bool:
    try:
        keyring.verify(row)
    except ForgedEntry:
        return False
    return True


def test_a_reader_must_be_told_that_it_only_reads(tmp_path: Path) -> None:
    private, public = writer()
    with UnifiedCache(tmp_path, signing_key=private) as cache:
        cache.put("kept", a=1)
    with pytest.raises(ConfigError, match="mode='read'"), UnifiedCache(tmp_path, trust=public) as cache:
        cache.get(a=1)
    with UnifiedCache(tmp_path, trust=public, mode="read") as reader:
        assert reader.get(a=1) == "kept"
    with UnifiedCache(tmp_path, trust=writer()[1], mode="read") as stranger:
        assert stranger.get(a=1) is None


def test_signing_twice_gives_the_same_signature() -> None:
    keyring = Keyring.parse(OLD)
    assert keyring.sign(keyring.sign(ENTRY)) == keyring.sign(ENTRY)


def test_secrets_show_neither_in_repr_nor_in_errors() -> None:
    keyring = Keyring.parse(f"new:{NEW},old:{OLD}")
    assert "enough" not in repr(keyring)
    assert "new" in repr(keyring)
    for wrong in ("tiny", f"a:{OLD},a:{NEW}", f"bad id:{OLD}", "", f"{OLD},", f"x:{OLD}:{NEW}, y:tiny"):
        with pytest.raises(ConfigError) as caught:
            Keyring.parse(wrong)
        assert "enough" not in str(caught.value)
        assert "tiny" not in str(caught.value)


def test_a_short_key_is_refused_with_the_command_that_makes_a_good_one() -> None:
    with pytest.raises(ConfigError, match=r"secrets\.token_hex"):
        Keyring.parse("a" * 15)
    Keyring.parse("a" * 16)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
BYTES = st.binary(max_size=4)
INTEGER = st.integers(-(2**63), 2**63 - 1)
SIGNED: dict[str, st.SearchStrategy[Any]] = {
    "namespace": TEXT,
    "key": BYTES,
    "blob": st.none() | TEXT,
    "size": INTEGER,
    "raw_size": INTEGER,
    "digest": BYTES,
    "codec": TEXT,
    "created_at": INTEGER,
    "expires_at": st.none() | INTEGER,
    "compute_seconds": st.none() | st.floats(allow_nan=False),
    "function": TEXT,
    "prefix": TEXT,
    "args": BYTES,
    "components": TEXT,
    "value": st.none() | BYTES,
    "fn": st.none() | BYTES,
    "alias": st.none() | BYTES,
    "link": st.none() | BYTES,
    "outputs": st.none() | TEXT,
    "tags": st.lists(TEXT, max_size=3).map(tuple),
    "provenance": TEXT,
    "key_id": TEXT,
}


def test_the_injectivity_test_covers_every_signed_field() -> None:
    assert SIGNED.keys() == OTHERS.keys() - {"mac"}


@pytest.mark.slow
@given(st.fixed_dictionaries(SIGNED), st.data())
def test_headers_agree_only_when_every_signed_field_agrees(one: dict[str, Any], data: st.DataObject) -> None:
    changed = data.draw(st.sets(st.sampled_from(sorted(SIGNED)), max_size=2))
    other = one | {name: data.draw(SIGNED[name]) for name in changed}
    assert (header(replace(ENTRY, **one)) == header(replace(ENTRY, **other))) == (one == other)


@given(st.lists(st.text("ab:1", max_size=3), max_size=4), st.lists(st.text("ab:1", max_size=3), max_size=4))
def test_tags_cannot_be_split_or_joined_unnoticed(one: list[str], other: list[str]) -> None:
    headers = [header(replace(ENTRY, tags=tuple(tags))) for tags in (one, other)]
    assert (headers[0] == headers[1]) == (one == other)


@pytest.mark.parametrize(
    ("left", "right"),
    [("function", "prefix"), ("components", "value"), ("value", "fn"), ("link", "outputs"), ("namespace", "codec")],
)
def test_text_cannot_move_between_neighbouring_fields(left: str, right: str) -> None:
    kinds = [bytes if name in ("value", "fn", "link") else str for name in (left, right)]
    headers = set()
    for cut in range(4):
        one, other = (
            kind(b"abc"[part]) if kind is bytes else "abc"[part]
            for kind, part in zip(kinds, (slice(cut), slice(cut, None)), strict=True)
        )
        headers.add(header(replace(ENTRY, **{left: one, right: other})))
    assert len(headers) == 4


def test_the_digest_is_that_of_the_parts_joined_whatever_their_number() -> None:
    whole = os.urandom(9 << 20)
    parts = [whole[:7], memoryview(whole)[7 : 5 << 20], bytearray(whole[5 << 20 :]), b""]
    assert digest_buffers(parts) == digest_buffers([whole])
    assert digest_buffers([]) == digest_buffers([b""])


def test_a_forked_child_can_digest_after_its_parent_did() -> None:
    data = bytes(16 << 20)
    expected = digest_buffers([data])
    here, there = os.pipe()
    child = fork(lambda: os.write(there, digest_buffers([data])))
    assert ended(child) == 0
    assert os.read(here, 100) == expected
    os.close(here)
    os.close(there)


def test_a_key_file_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    first = load_or_create_key_file(path, may_create=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key_file(path, may_create=True) == first
    assert load_or_create_key_file(path, may_create=False) == first
    assert [file.name for file in tmp_path.iterdir()] == ["signing.key"]
    Keyring.parse(first)


def test_threads_that_make_a_key_file_at_once_agree(tmp_path: Path) -> None:
    start, keys = threading.Barrier(8), []

    def open_cache() -> None:
        start.wait()
        keys.append(load_or_create_key_file(tmp_path / "signing.key", may_create=True))

    threads = [threading.Thread(target=open_cache) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_key_file_beside_entries_is_an_error_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Put the file back"):
        load_or_create_key_file(tmp_path / "signing.key", may_create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_key_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "directory").mkdir()
    for name in ("binary", "directory", "missing/signing.key"):
        with pytest.raises(ConfigError):
            load_or_create_key_file(tmp_path / name, may_create=True)
