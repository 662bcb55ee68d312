"""Keys that sign rows, and keys that verify them.

The algorithm belongs to the key, and is never read from a row. Otherwise an attacker could make the
ring use the text of a public key as an HMAC secret, and anyone can sign with that.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import importlib
import os
import re
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Final, Protocol

from blake3 import blake3

from cacheness import forks
from cacheness.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from nacl.signing import VerifyKey

LEAST_KEY_BYTES: Final = 16
HOW_TO_MAKE_ONE: Final = 'Make a key with: python -c "import secrets; print(secrets.token_hex(32))"'
#: Prefixes of Ed25519 keys in text: kind:name:32 bytes in base64.
PRIVATE, PUBLIC, SHARED = "ed25519", "ed25519-pub", "hmac"
_KINDS: Final = (PRIVATE, PUBLIC, SHARED)
_NAME: Final = r"[A-Za-z0-9_.-]{1,32}"
_RAW: Final = r"[A-Za-z0-9_-]{43}"
_SIGNATURE_BYTES: Final = 64
#: Verified rows that a process remembers; about 150 bytes each.
_MOST_REMEMBERED: Final = 65_536


class VerifyingKey(Protocol):
    """Verifies signatures."""

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Return True when this key made the signature of these bytes. Raises TypeError if it is not bytes."""
        ...


class SigningKey(VerifyingKey, Protocol):
    """Signs, and verifies its signatures."""

    def sign(self, signed: bytes) -> bytes:
        """Return the signature of these bytes."""
        ...


class HmacKey:
    """HMAC-SHA256: a key that verifies can sign, too."""

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < LEAST_KEY_BYTES:
            raise ConfigError(
                f"a signing key has {len(secret)} bytes; at least {LEAST_KEY_BYTES} are needed. {HOW_TO_MAKE_ONE}"
            )
        # Set up once and copied for each row: `hmac.digest` would set up the key again, which takes twice as long.
        self._keyed = hmac.new(secret, digestmod="sha256")

    def sign(self, signed: bytes) -> bytes:
        """Return the signature of these bytes."""
        mac = self._keyed.copy()
        mac.update(signed)
        return mac.digest()

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Return True when this key made the signature of these bytes."""
        mac = self._keyed.copy()
        mac.update(signed)
        return compare_digest(mac.digest(), signature)


class PublicKey:
    """Ed25519 (RFC 8032): verifies signatures of a private key, and cannot sign."""

    def __init__(self, key: VerifyKey) -> None:
        self._key = key
        self._refusal = _import("nacl.exceptions").BadSignatureError
        # Verifying a signature takes about thirty times as long as an HMAC, and a row is read many times.
        self._verified: set[bytes] = set()

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Return True when the private key made the signature of these bytes; remembered within the process."""
        if len(signature) != _SIGNATURE_BYTES:
            return False
        row = blake3(signature + signed).digest()
        if row in self._verified:
            return True
        try:
            self._key.verify(signed, signature)
        except self._refusal:
            return False
        if len(self._verified) >= _MOST_REMEMBERED:
            self._verified.clear()
        self._verified.add(row)
        return True

    def text(self, name: str) -> str:
        """Return the key, as written in `trust`."""
        return f"{PUBLIC}:{name}:{_encoded(bytes(self._key))}"


class PrivateKey(PublicKey):
    """Ed25519: signs."""

    def __init__(self, seed: bytes) -> None:
        self._private = _import("nacl.signing").SigningKey(seed)
        super().__init__(self._private.verify_key)

    def sign(self, signed: bytes) -> bytes:
        """Return the signature of these bytes."""
        return bytes(self._private.sign(signed).signature)


def new_private_key(name: str) -> str:
    """Return a new private key, as written in `signing_key`."""
    check_name(name)
    return f"{PRIVATE}:{name}:{_encoded(os.urandom(32))}"


def read_signing_keys(text: str) -> dict[str, SigningKey]:
    """Read "secret", "id:secret,id2:secret2" or "ed25519:name:key": keys by id, the one that signs first.

    A secret without an id gets one derived from it. No error message contains a secret.
    """
    if len(text.strip().splitlines()) > 1:  # otherwise the lines would become one wrong secret
        raise ConfigError("signing_key contains a line break: write several keys on one line, with commas between them")
    keys: dict[str, SigningKey] = {}
    for number, item in enumerate(text.split(","), 1):
        key_id, key = _read_signing_key(item.strip())
        if key_id in keys:
            raise ConfigError(f"signing key number {number} repeats an id. Give each key a different id")
        keys[key_id] = key
    # A secret is also accepted under its derived id, so that it may be given a name later.
    for item in text.split(","):
        name, colon, secret = item.strip().partition(":")
        if colon and name not in _KINDS:
            keys.setdefault(derived_id(secret.encode()), keys[name])
    return keys


def read_trusted_keys(text: str, own: dict[str, SigningKey]) -> dict[str, VerifyingKey]:
    """Read "ed25519-pub:name:key,hmac:id": the keys whose rows are accepted, by id. Our private keys are included.

    Line breaks separate keys as commas do, and lines that begin with # are skipped, for files with one key per line.

    Args:
        text: the setting `trust`.
        own: our signing keys; those for HMAC are trusted only if `hmac:id` names them.
    """
    keys: dict[str, VerifyingKey] = {}
    for number, item in enumerate(trusted_items(text) or [text], 1):
        kind, _, rest = item.partition(":")
        name, key = _read_trusted_key(kind, rest, number, own)
        if name in keys:
            raise ConfigError(f"trusted key number {number} repeats the name {name!r}. Give each key a different name")
        keys[name] = key
    for name, key in own.items():
        if isinstance(key, PrivateKey) and name in keys and not _are_equal(keys[name], key):
            raise ConfigError(
                f"the signing key {name!r} is not the one that is trusted by this name. Give it another name"
            )
        if isinstance(key, PrivateKey) or any(key is trusted for trusted in keys.values()):
            keys.setdefault(name, key)
    return keys


def trusted_items(text: str) -> list[str]:
    """Return the keys in `trust` one by one."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [item.strip() for line in lines for item in line.split(",") if item.strip()]


def without_private_keys(signing: str, trust: str | None) -> tuple[str | None, str | None]:
    """Return `signing_key` and `trust` for a reader: it accepts the same rows, and has no private key."""
    own = read_signing_keys(signing)
    if not any(isinstance(key, PrivateKey) for key in own.values()):
        return signing, trust
    shared = {f"{SHARED}:{name}": key for name, key in own.items() if isinstance(key, HmacKey)}
    trusted = list(shared) if trust is None else trusted_items(trust)
    needed = [key for name, key in shared.items() if name in trusted]
    items = [item for item in map(str.strip, signing.split(",")) if not item.startswith(f"{PRIVATE}:")]
    left = [item for item in items if any(own[_id_of(item)] is key for key in needed)]
    public = [item for item in public_keys_of(signing) if item not in trusted]
    return ",".join(left) or None, ",".join([*trusted, *public])


def public_keys_of(text: str) -> list[str]:
    """Return the public keys of the private keys in `signing_key`, as written in `trust`."""
    keys = read_signing_keys(text) if text else {}
    return [key.text(name) for name, key in keys.items() if isinstance(key, PrivateKey)]


def check_name(name: str) -> None:
    """Raise ConfigError for text that cannot be the name or id of a key."""
    if not re.fullmatch(_NAME, name) or name in _KINDS:
        raise ConfigError(
            "a signing key has an id that cannot be used: 1 to 32 letters, digits, dots, hyphens and underscores, and"
            f" none of {', '.join(_KINDS)}. Several keys are written id:key,id2:key2, so a key has neither comma nor"
            " colon"
        )


def derived_id(secret: bytes) -> str:
    """Return the id of an HMAC secret without a name."""
    return hmac.digest(secret, b"cacheness key id", "sha256").hex()[:12]


def _id_of(item: str) -> str:
    name, colon, _ = item.partition(":")
    return name if colon else derived_id(name.encode())


def _read_signing_key(item: str) -> tuple[str, SigningKey]:
    key_id, colon, secret = item.partition(":")
    if not colon:
        return derived_id(key_id.encode()), HmacKey(key_id.encode())
    if key_id == PUBLIC:
        raise ConfigError("signing_key contains a public key, which cannot sign: public keys are for trust=")
    if key_id != PRIVATE:
        check_name(key_id)
        return key_id, HmacKey(secret.encode())
    name, _, encoded = secret.partition(":")
    check_name(name)
    return name, PrivateKey(_decoded(encoded, "signing_key", f"{PRIVATE}:NAME:KEY"))


def _read_trusted_key(kind: str, rest: str, number: int, own: dict[str, SigningKey]) -> tuple[str, VerifyingKey]:
    if kind == SHARED:
        if not isinstance(own.get(rest), HmacKey):
            raise ConfigError(f"trust names hmac:{rest:.40}, and signing_key contains no key for HMAC with this id")
        return rest, own[rest]
    if kind == PRIVATE:
        raise ConfigError(
            "trust contains a private key, which only its writer may have: public keys begin ed25519-pub:"
        )
    if kind != PUBLIC:
        raise ConfigError(f"trusted key number {number} is of no known kind: write {PUBLIC}:NAME:KEY or {SHARED}:ID")
    name, _, encoded = rest.partition(":")
    check_name(name)
    raw = _decoded(encoded, "trust", f"{PUBLIC}:NAME:KEY")
    return name, PublicKey(_import("nacl.signing").VerifyKey(raw))


def _are_equal(one: VerifyingKey, other: PublicKey) -> bool:
    return isinstance(one, PublicKey) and one.text("") == other.text("")


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(text: str, where: str, form: str) -> bytes:
    if not re.fullmatch(_RAW, text):
        raise ConfigError(
            f"{where} contains a key that cannot be read: it is written {form}, with 43 characters of base64"
        )
    try:
        return base64.urlsafe_b64decode(text + "=")
    except binascii.Error:
        raise ConfigError(f"{where} contains a key that cannot be read") from None


def _import(module: str) -> Any:
    with forks.no_fork():  # a child forked during a thread's import could never import that module
        try:
            return importlib.import_module(module)
        except ImportError as error:
            raise MissingExtra.of(error, "nacl", "ed25519", "a key of the kind ed25519") from error
