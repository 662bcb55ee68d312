"""Who wrote this, and is it whole: the digest of an entry's bytes and the signature of its row."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hmac import compare_digest
from pathlib import Path
from typing import Any, Final

from cacheness.errors import ConfigError, CorruptEntry, ForgedEntry
from cacheness.hashing import hasher_for
from cacheness.protocols import Buffer
from cacheness.records import Entry, Equivalence

LEAST_KEY_BYTES: Final = 16
_LARGEST_KEY_FILE: Final = 4096
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_HOW_TO_MAKE_ONE: Final = 'Make a key with: python -c "import secrets; print(secrets.token_hex(32))"'

_DOMAIN: Final = b"cacheness entry 2\0"
#: size, raw_size, created_at, expires_at, compute_seconds, which are not None, and sixteen lengths.
_NUMBERS: Final = struct.Struct("<4qdB16Q")
_EQUAL: Final = b"cacheness equivalence 2\0"
#: created_at, until, and eight lengths.
_EQUAL_NUMBERS: Final = struct.Struct("<2q8Q")
_BAD_ROW: Final = (struct.error, TypeError, AttributeError, UnicodeEncodeError)


class Keyring:
    """Signs entries with its first key and verifies those that any of its keys signed."""

    __slots__ = ("_first", "_keys")

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        for key_id, secret in keys.items():
            _check_key(key_id, secret)
        self._first = next(iter(keys), "")
        # A key is also known by an id derived from it, so that a bare key may be given a name later.
        secrets_by_id = {_derived_id(secret): secret for secret in keys.values()} | dict(keys)
        # Keyed once and copied for each row: `hmac.digest` would set up the key again, which takes twice as long.
        self._keys = {key_id: hmac.new(secret, digestmod="sha256") for key_id, secret in secrets_by_id.items()}

    @classmethod
    def parse(cls, text: str, *, also: str | None = None) -> Keyring:
        """Read "secret" or "id:secret,id2:secret2". The first key signs, all of them and `also` verify."""
        keys: dict[str, bytes] = {}
        for number, item in enumerate(text.split(","), 1):
            key_id, colon, secret = item.strip().partition(":")
            if not colon:
                key_id, secret = _derived_id(key_id.encode()), key_id
            if key_id in keys:
                raise ConfigError(f"signing key number {number} repeats an id. Give each key an id of its own")
            keys[key_id] = secret.encode()
        if also is not None and also.encode() not in keys.values():
            keys[_derived_id(also.encode())] = also.encode()
        return cls(keys)

    @classmethod
    def unsigned(cls) -> Keyring:
        """Signs nothing and accepts every row: for stores to which nobody else can write."""
        return cls({})

    def __repr__(self) -> str:
        return f"Keyring({', '.join(sorted(self._keys)) or 'unsigned'})"

    def sign(self, entry: Entry, **changes: Any) -> Entry:
        """The entry with these fields changed, signed by the first key."""
        unsigned = replace(entry, **changes, key_id=self._first, mac=b"")
        if not self._keys:
            return unsigned
        return replace(unsigned, mac=_mac(self._keys[self._first], unsigned))

    def verify(self, entry: Entry) -> None:
        """Raise ForgedEntry unless one of our keys signed exactly this row.

        Without keys every row is accepted whose columns are of the right types.
        """
        if not self._keys:
            _require_types(entry)
            return
        keyed = self._keys.get(entry.key_id)
        if keyed is None:
            raise _forged(entry, f"by the key {entry.key_id!r}, unknown here" if entry.key_id else "by nobody")
        try:
            genuine = compare_digest(_mac(keyed, entry), entry.mac)
        except _BAD_ROW:
            raise _forged(entry, "as a row whose columns had other types") from None
        if not genuine:
            raise _forged(entry, "with other contents, or by somebody else")

    def sign_equivalence(self, equivalence: Equivalence) -> Equivalence:
        """The equivalence, signed by the first key."""
        unsigned = replace(equivalence, key_id=self._first, mac=b"")
        if not self._keys:
            return unsigned
        return replace(unsigned, mac=_mac_of(self._keys[self._first], _equivalence_header(unsigned)))

    def is_genuine_equivalence(self, equivalence: Equivalence) -> bool:
        """Return True when one of our keys signed exactly this row; without keys, when its columns have their types."""
        try:
            signed = _equivalence_header(equivalence)
            if not self._keys:
                return True
            keyed = self._keys.get(equivalence.key_id)
            return keyed is not None and compare_digest(_mac_of(keyed, signed), equivalence.mac)
        except _BAD_ROW:
            return False


def _equivalence_header(equivalence: Equivalence) -> bytes:
    """Every signed field, such that two equivalences share it only if all these fields are equal."""
    texts = (
        equivalence.namespace.encode(),
        equivalence.new,
        equivalence.old,
        equivalence.store.encode(),
        equivalence.parameters.encode(),
        equivalence.evidence.encode(),
        equivalence.by.encode(),
        equivalence.key_id.encode(),
    )
    numbers = _EQUAL_NUMBERS.pack(equivalence.created_at, equivalence.until, *map(len, texts))
    return b"".join((_EQUAL, numbers, *texts))


def header(entry: Entry) -> bytes:
    """Every signed field, such that two entries share a header only if all these fields are equal.

    Numbers and lengths come first, in fixed places, and the texts follow without separators.
    """
    blob, value, fn, alias, link, outputs = (
        entry.blob, entry.value, entry.fn, entry.alias, entry.link, entry.outputs,
    )  # fmt: skip
    texts = (
        entry.namespace.encode(),
        entry.key,
        b"" if blob is None else blob.encode(),
        entry.digest,
        entry.codec.encode(),
        entry.function.encode(),
        entry.prefix.encode(),
        entry.args,
        entry.components.encode(),
        b"" if value is None else value,
        b"" if fn is None else fn,
        b"" if alias is None else alias,
        b"" if link is None else link,
        b"" if outputs is None else outputs.encode(),
        _tags(entry.tags),
        entry.provenance.encode(),
    )
    expires, seconds = entry.expires_at, entry.compute_seconds
    given = (blob is not None) | (expires is not None) << 1 | (seconds is not None) << 2
    given |= (value is not None) << 3 | (fn is not None) << 4 | (alias is not None) << 5
    given |= (link is not None) << 6 | (outputs is not None) << 7
    numbers = _NUMBERS.pack(
        entry.size,
        entry.raw_size,
        entry.created_at,
        0 if expires is None else expires,
        0.0 if seconds is None else seconds,
        given,
        *map(len, texts),
    )
    return b"".join((_DOMAIN, numbers, *texts, entry.key_id.encode()))


def digest_buffers(buffers: Sequence[Buffer]) -> bytes:
    """Return the BLAKE3 digest of the buffers, one after the other."""
    hasher = hasher_for(sum(map(len, buffers)))
    for buffer in buffers:
        hasher.update(buffer)
    return hasher.digest()


def verify_bytes(entry: Entry, data: Buffer) -> None:
    """Raise CorruptEntry unless these are the bytes that the entry was signed for."""
    if len(data) != entry.size:
        raise CorruptEntry(f"entry {entry.cache_key} has {len(data)} bytes where {entry.size} were written")
    if not compare_digest(digest_buffers([data]), entry.digest):
        raise CorruptEntry(f"the bytes of entry {entry.cache_key} are not the ones that were written")


def load_or_create_key_file(path: Path, *, may_create: bool) -> str:
    """The key in this file, for `Keyring.parse`; a fresh one, readable by its owner only, if there is no file.

    Processes that come at once agree on one key. `may_create=False` says that signed entries
    exist: a new key would make all of them worthless, so a missing file is an error then.
    """
    try:
        if not path.exists() and may_create:
            _create_key_file(path)
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        raise ConfigError(
            f"the signing key {path} is missing, but entries signed with it exist. Put the file back, pass the"
            " same key as signing_key=, or delete the whole cache directory to begin again"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise ConfigError(f"the signing key {path} cannot be used: {reason}") from error
    return text


def own_key(path: Path) -> str | None:
    """The key in this file, where it is surely one that this user or root has put there; None otherwise.

    For a directory that is opened with another key. Who may write to the directory could add a key file,
    and sign with it what this process would unpickle; a file that others may write proves nothing either.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
                return None
            text = file.read(_LARGEST_KEY_FILE).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if len(text) >= LEAST_KEY_BYTES and "," not in text and ":" not in text else None


def _create_key_file(path: Path) -> None:
    # Written aside and linked into place: a reader finds no file or a whole one, and the first link wins.
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        os.unlink(aside)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check_key(key_id: str, secret: bytes) -> None:
    if not _KEY_ID.fullmatch(key_id):
        raise ConfigError(
            "a signing key has an id that cannot be used: 1 to 32 letters, digits, dots, hyphens and underscores."
            " Several keys are written id:key,id2:key2, so a key holds neither comma nor colon"
        )
    if len(secret) < LEAST_KEY_BYTES:
        raise ConfigError(
            f"a signing key has {len(secret)} bytes; at least {LEAST_KEY_BYTES} are needed. {_HOW_TO_MAKE_ONE}"
        )


def _mac(keyed: hmac.HMAC, entry: Entry) -> bytes:
    return _mac_of(keyed, header(entry))


def _mac_of(keyed: hmac.HMAC, signed: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(signed)
    return mac.digest()


def _require_types(entry: Entry) -> None:
    try:
        header(entry)
    except _BAD_ROW:
        raise _forged(entry, "as a row whose columns had other types") from None


def _derived_id(secret: bytes) -> str:
    return hmac.digest(secret, b"cacheness key id", "sha256").hex()[:12]


def _tags(tags: tuple[str, ...]) -> bytes:
    return b"".join(b"%d:%b" % (len(tag), tag) for tag in [text.encode() for text in tags])


def _forged(entry: Entry, how: str) -> ForgedEntry:
    return ForgedEntry(f"Entry {entry.cache_key} was signed {how}. It is not used.")
