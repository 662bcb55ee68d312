"""Verify entries: the digest of an entry's bytes and the signature of its row."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from hmac import compare_digest
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeVar

from cacheness import platform
from cacheness.errors import ConfigError, CorruptEntry, ForgedEntry
from cacheness.hashing import hasher_for
from cacheness.protocols import Buffer
from cacheness.records import Entry, Equivalence, made_of
from cacheness.results.signing_keys import (
    LEAST_KEY_BYTES,
    SHARED,
    HmacKey,
    SigningKey,
    VerifyingKey,
    derived_id,
    read_signing_keys,
    read_trusted_keys,
)

_LARGEST_KEY_FILE: Final = 4096

R = TypeVar("R", Entry, Equivalence)

_FIELDS: Final = tuple(f.name for f in fields(Entry))
_values_of: Final = attrgetter(*_FIELDS)

_DOMAIN: Final = b"cacheness entry 2\0"
#: size, raw_size, created_at, expires_at, compute_seconds, which are not None, and sixteen lengths.
_NUMBERS: Final = struct.Struct("<4qdB16Q")
_EQUAL: Final = b"cacheness equivalence 2\0"
#: created_at, until, and eight lengths.
_EQUAL_NUMBERS: Final = struct.Struct("<2q8Q")
_BAD_ROW: Final = (struct.error, TypeError, AttributeError, UnicodeEncodeError)


class Keyring:
    """Signs rows with its first key and verifies rows that any of its keys signed."""

    __slots__ = ("_is_unsigned", "_keys", "_signer", "signs_as")

    def __init__(self, signing: Mapping[str, SigningKey], trusted: Mapping[str, VerifyingKey] | None = None) -> None:
        """Hold keys by their ids: signing keys, of which the first signs, and keys whose rows are accepted.

        Without trusted keys, the signing keys are trusted. Without any key, every row is accepted and none is signed.
        """
        self.signs_as = next(iter(signing), "")
        self._signer = next(iter(signing.values()), None)
        self._keys = dict(signing if trusted is None else trusted)
        self._is_unsigned = not self._keys
        if self._signer is not None and self.signs_as not in self._keys:
            raise ConfigError(
                f"trust does not hold the key that signs here, so that what is stored could not be read: add"
                f" {SHARED}:{self.signs_as}"
            )

    @classmethod
    def parse(cls, text: str | None, *, also: str | None = None, trust: str | None = None) -> Keyring:
        """Read "secret", "id:secret,id2:secret2" or "ed25519:name:key". The first key signs, and all verify.

        Args:
            text: the signing keys; None for a reader, which signs nothing.
            also: one more secret, that verifies.
            trust: the only keys that verify: "ed25519-pub:name:key,hmac:id".
        """
        signing = {} if text is None else read_signing_keys(text)
        if trust is not None:
            return cls(signing, read_trusted_keys(trust, signing))
        if also is not None:
            signing.setdefault(derived_id(also.encode()), HmacKey(also.encode()))
        return cls(signing)

    @classmethod
    def unsigned(cls) -> Keyring:
        """Return a keyring that signs nothing and accepts every row: for stores to which only this user can write."""
        return cls({})

    @property
    def ids(self) -> list[str]:
        """Return the ids of the keys that verify, including ids derived from secrets."""
        return sorted(self._keys)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(sorted(self._keys)) or 'unsigned'})"

    def sign(self, entry: Entry, **changes: Any) -> Entry:
        """Return the entry with these fields changed, signed by the first key."""
        changes |= {"key_id": self.signs_as, "mac": b""}
        return self._signed(made_of(map(changes.get, _FIELDS, _values_of(entry))), header)

    def verify(self, entry: Entry) -> None:
        """Raise ForgedEntry unless one of our keys signed exactly this row.

        Without keys, a row is accepted if its columns have the right types.
        """
        if self._is_unsigned:
            _require_types(entry)
            return
        key = self._keys.get(entry.key_id)
        if key is None:
            raise _forged(entry, f"by the key {entry.key_id!r}, unknown here" if entry.key_id else "by nobody")
        try:
            genuine = key.verifies(header(entry), entry.mac)
        except _BAD_ROW:
            raise _forged(entry, "as a row whose columns had other types") from None
        if not genuine:
            raise _forged(entry, "with other contents, or by another key holder")

    def sign_equivalence(self, equivalence: Equivalence) -> Equivalence:
        """Return the equivalence, signed by the first key."""
        return self._signed(replace(equivalence, key_id=self.signs_as, mac=b""), _equivalence_header)

    def is_genuine_equivalence(self, equivalence: Equivalence) -> bool:
        """Return True when one of our keys signed exactly this row.

        Without keys, return True when its columns have the right types.
        """
        try:
            signed = _equivalence_header(equivalence)
            if self._is_unsigned:
                return True
            key = self._keys.get(equivalence.key_id)
            return key is not None and key.verifies(signed, equivalence.mac)
        except _BAD_ROW:
            return False

    def _signed(self, row: R, header_of: Callable[[R], bytes]) -> R:
        """Return a new row with its signature."""
        if self._signer is not None:
            # Changes the copy in place, because only its caller has it.
            object.__setattr__(row, "mac", self._signer.sign(header_of(row)))
            return row
        if not self._is_unsigned:
            raise ConfigError("there is no key to sign with: this cache only reads what others sign")
        return row


def _equivalence_header(equivalence: Equivalence) -> bytes:
    """Return all signed fields as bytes; two equivalences share them only if all these fields are equal."""
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
    """Return all signed fields as bytes; two entries share a header only if all these fields are equal.

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
        b"" if entry.tags == () else _tags(entry.tags),
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
    if not compare_digest(hasher_for(len(data)).update(data).digest(), entry.digest):
        raise CorruptEntry(f"the bytes of entry {entry.cache_key} are not the ones that were written")


def load_or_create_key_file(path: Path, *, may_create: bool) -> str:
    """Return the key in this file, for `Keyring.parse`; create one, readable by its owner only, if there is no file.

    Processes that start at once agree on one key. `may_create=False` means that signed entries
    exist: with a new key all of them would be useless, so a missing file is an error then.
    """
    try:
        if not path.exists() and may_create:
            _create_key_file(path)
        text = path.read_bytes().decode("ascii").strip()
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
    """Return the key in this file if only this user or root can have put it there; otherwise None.

    For a directory that is opened with another key. A user who can write to the directory could add
    a key file, and sign with it bytes that this process would unpickle; a file that others can
    write proves nothing either.
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
    # Written to a temporary file and linked into place: a reader finds no file or a whole one, and the first link wins.
    aside = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(os.urandom(32).hex() + "\n")
            file.flush()
            platform.sync(file.fileno())
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        os.unlink(aside)
    platform.sync_directory(path.parent)


def _require_types(entry: Entry) -> None:
    try:
        header(entry)
    except _BAD_ROW:
        raise _forged(entry, "as a row whose columns had other types") from None


def _tags(tags: tuple[str, ...]) -> bytes:
    return b"".join(b"%d:%b" % (len(tag), tag) for tag in [text.encode() for text in tags])


def _forged(entry: Entry, how: str) -> ForgedEntry:
    return ForgedEntry(f"the row of entry {entry.cache_key} was signed {how}")
