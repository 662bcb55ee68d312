"""Describe a function's parameters, for callers that pass arguments by position: names, order and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from blake3 import blake3

from cacheness.errors import CachenessError
from cacheness.keys.encode import encode

#: Hexadecimal digits per parameter.
_EACH: Final = 8
#: Prefix if the parameters are known, also of a function without any.
_KNOWN: Final = "p"
_KINDS: Final = {
    inspect.Parameter.POSITIONAL_ONLY: "/",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "",
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.KEYWORD_ONLY: "-",
    inspect.Parameter.VAR_KEYWORD: "**",
}


def parameters_of(function: Callable[..., Any]) -> str:
    """Return a digest of a function's parameters, in order; "" if they are unknown.

    Args:
        function: the function.
    """
    found = _parameters(function)
    return "".join([_KNOWN, *map(_digits_of, found)]) if found is not None and all(map(_is_told, found)) else ""


def why_not_by_place(then: str, function: Callable[..., Any]) -> str:
    """Return why a call with the same positional arguments may have a different meaning now; "" if it cannot.

    Args:
        then: the result of `parameters_of` for the earlier code.
        function: the function, today.
    """
    now = _parameters(function)
    if not then or now is None or not all(map(_is_told, now)):
        return "what its parameters were is not known"
    count = len(then) // _EACH
    kept, added = now[:count], now[count:]
    takes_more = any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in (*kept, *added))
    is_same = "".join([_KNOWN, *map(_digits_of, kept)]) == then
    if is_same and (not added or (not takes_more and all(one.default is not one.empty for one in added))):
        return ""
    return "its parameters are no longer the same, in the same order and with the same defaults"


def defaults_added(then: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters that were appended since, with their defaults.

    Args:
        then: the result of `parameters_of` for the earlier code.
        function: the function, today.
    """
    return {one.name: one.default for one in (_parameters(function) or ())[len(then) // _EACH :]}


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # compiled, without a signature
        return None


def _is_told(one: inspect.Parameter) -> bool:
    try:
        encode(one.default if one.default is not one.empty else None)
    except (CachenessError, RecursionError):  # its default is the function itself
        return False
    return True


def _digits_of(one: inspect.Parameter) -> str:
    default = encode(one.default) if one.default is not one.empty else b""
    return blake3(encode((_KINDS[one.kind], one.name, default))).hexdigest()[:_EACH]
