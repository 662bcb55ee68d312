"""The arguments of one call of a cached function, and the values of the references among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cacheness.memoize.signature import Binder
from cacheness.references import Differs, loaded


class CallArguments(NamedTuple):
    """The arguments of a call, and whether it returns a reference."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_lazy: bool = False
    given: CallArguments | None = None  #: the same without defaults that were added


def with_values(call: CallArguments, binder: Binder | None = None) -> tuple[CallArguments, bool]:
    """Return a call with the values of its references, and whether one may differ from the value in the key.

    With a binder, references in defaults are loaded too.
    """
    is_unsure = False
    while True:
        try:
            args, kwargs, is_open = loaded(call.args, call.kwargs)
            given = CallArguments(args, kwargs)
            whole = None if binder is None else binder.with_defaults(args, kwargs)
            if whole is None:
                return given, is_unsure or is_open
            args, kwargs, is_open_default = loaded(*whole)
            return CallArguments(args, kwargs, given=given), is_unsure or is_open or is_open_default
        except Differs:
            is_unsure = True
