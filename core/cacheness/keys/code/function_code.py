"""Keep a readable description of the code that made results, once per fingerprint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, Final

from blake3 import blake3

from cacheness.keys.encode import encode_code as encode
from cacheness.lazy_dataclass import dataclass


@dataclass(frozen=True)
class FunctionCode:
    """The code that made results: a row of `functions`.

    An entry's signed row contains its digest, which verifies it.
    """

    name: str  #: module:qualified name
    module: str  #: before the colon in the name
    components: str  #: what `data` holds, as canonical JSON

    @cached_property
    def digest(self) -> bytes:
        """Return 32 bytes: the digest of all other fields."""
        return blake3(encode(("functions", self.name, self.module, self.components))).digest()

    @cached_property
    def data(self) -> Mapping[str, Any]:
        """What decides the results.

        Returns:
            fingerprint: the digest that counts in keys. code, values: short digests of the
                functions and globals that are reached, by name. versions: of libraries. unfollowed:
                what is not visible; incomplete: the part of it that can decide a result. Empty if
                the components are no JSON object.
        """
        try:
            found = json.loads(self.components)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def as_dict(self) -> dict[str, Any]:
        """Return the readable description of the code."""
        data = self.data
        return {
            "fingerprint": data.get("fingerprint", ""),
            "reached": sorted(data.get("code", ())),
            "versions": dict(data.get("versions", {})),
            "not_followed": list(data.get("unfollowed", ())),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return (FunctionCode, (self.name, self.module, self.components))


_NONE: Final[Mapping[str, str]] = {}
#: Names of components and arguments that are remembered.
_NAMES: Final = 1024
#: `json.dumps` would make an encoder for each key.
as_json: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical(parts: Mapping[str, Any], texts: Mapping[str, str] = _NONE) -> str:
    """Return components as canonical JSON, which every store accepts; empty ones are left out.

    Args:
        parts: components.
        texts: further ones, as canonical JSON.
    """
    found = {**texts, **{name: as_json(part) for name, part in parts.items() if part}}
    return joined(found).encode(errors="replace").decode()


def joined(texts: Mapping[str, str]) -> str:
    """Return the canonical JSON of a mapping whose values are canonical JSON."""
    return f"{{{','.join([_name_as_json(name) + texts[name] for name in sorted(texts)])}}}"


@lru_cache(maxsize=_NAMES, typed=True)
def _name_as_json(name: str) -> str:
    return as_json({name: 0})[1:-2]


def merged(components: str, code: FunctionCode | None) -> dict[str, Any]:
    """Return all components of a key.

    Args:
        components: those in its entry, which describe the arguments.
        code: the code that made the entry.
    """
    own = json.loads(components)
    known = {} if code is None else code.data
    lists = {name: [*known.get(name, ()), *own.get(name, ())] for name in ("unfollowed", "incomplete")}
    return {**known, **own, **{name: lines for name, lines in lists.items() if lines}}
