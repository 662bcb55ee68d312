"""Read the values of arguments that are given as text in a shell."""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal, DecimalException
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from cacheness.cli.endings import Misuse
from cacheness.cli.screen import short

#: How a type is made from text that is not a literal of it. The first that fits a class is used.
_FROM_TEXT: Final[Mapping[type, Callable[[Any, str], Any]]] = {
    Enum: lambda kind, text: next((one for one in kind if text in {one.name, str(one.value)}), None) or kind(text),
    str: lambda _, text: text,
    PurePath: lambda kind, text: kind(text),
    datetime: lambda kind, text: kind.fromisoformat(text),
    date: lambda kind, text: kind.fromisoformat(text),
    time: lambda kind, text: kind.fromisoformat(text),
    Decimal: lambda kind, text: kind(text),
    Fraction: lambda kind, text: kind(text),
    UUID: lambda kind, text: kind(text),
}


def named_text(given: str) -> tuple[str, str]:
    """Return the name and the text of NAME=VALUE. Raises Misuse."""
    name, equals, text = given.partition("=")
    if not equals or not name.isidentifier():
        raise Misuse(f"--arg {short(given, 80)} is not NAME=VALUE")
    return name, text


def values_of(texts: Mapping[str, str], function: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a call: of the type that the function's annotation names, a Python literal, or text.

    Args:
        texts: the arguments as text, by name.
        function: the function, whose annotations are read.

    Raises:
        Misuse: a text cannot be made what the annotation names.
    """
    annotations: Mapping[str, Any] = {}
    with suppress(Exception):  # an annotation may be any expression, or name what exists for type checkers only
        annotations = typing.get_type_hints(inspect.unwrap(function))
    return {name: _value_of(name, text, annotations.get(name)) for name, text in texts.items()}


def _value_of(name: str, text: str, annotation: Any) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds = [kind for kind in (typing.get_args(annotation) if is_union else (annotation,)) if isinstance(kind, type)]
    if any(isinstance(value, kind) for kind in kinds):
        return value
    refused = ""
    for kind in kinds:
        made_by = next((make for known, make in _FROM_TEXT.items() if issubclass(kind, known)), None)
        if made_by is None:
            continue
        try:
            return made_by(kind, text)
        except (ValueError, DecimalException, ZeroDivisionError) as error:
            refused = f"--arg {name}={short(text, 80)} is no {kind.__name__}: {error}"
    if refused:
        raise Misuse(refused)
    return value
