"""What the futures of a distributed client stand for, so that graphs built on them have fingerprints."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any
from weakref import WeakKeyDictionary

_lock = threading.Lock()
_terms: WeakKeyDictionary[Any, dict[Any, bytes]] = WeakKeyDictionary()


def held_by(client: Any) -> dict[Any, bytes | None]:
    """The keys that a client has futures for, each with its term; None where nobody knows it.

    Scattered data and futures from elsewhere are unknown: the same key says nothing of their content.
    """
    if client is None:
        return {}
    with _lock:
        terms = _terms.get(client, {})
        return {key: terms.get(key) for key in list(client.futures)}


def remember(client: Any, keys: Collection[Any], terms: Mapping[Any, bytes], held: Collection[Any]) -> None:
    """Note what was submitted under these keys. A key that was held before keeps its old meaning."""
    if client is None:
        return
    with _lock:
        known = _terms.setdefault(client, {})
        for key in [key for key in known if key not in client.futures]:
            del known[key]
        known.update({key: terms[key] for key in keys if key in terms and key not in held})
