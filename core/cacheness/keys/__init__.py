"""Keys: the values and the code that decide a result."""

import typing

from cacheness import lazy_modules
from cacheness.keys.closed import closed_digest
from cacheness.keys.code.function_code import FunctionCode, merged
from cacheness.keys.decode import decode
from cacheness.keys.encode import FORMAT, Digest, digest_of, encode, register
from cacheness.keys.inputs import Inputs
from cacheness.keys.key import RESERVED, Key, arguments_of, call_of, digest_of_argument, make_key
from cacheness.keys.opened_files import unseen
from cacheness.keys.outcome import Observed, Outcome, covers, names_of, not_as_left, still_left
from cacheness.keys.owners import add_user_code
from cacheness.keys.values.files import File
from cacheness.keys.values.unordered import unordered

if typing.TYPE_CHECKING:
    from cacheness.keys.code.fingerprint import (
        Chance,
        Fingerprint,
        Reached,
        fingerprint,
        group_of,
        may_call,
        name_of_function,
        reached_by,
    )
    from cacheness.keys.code.parameters import defaults_added, why_not_by_place
    from cacheness.keys.code.random_calls import register_random

__all__ = [
    "FORMAT",
    "RESERVED",
    "Chance",
    "Digest",
    "File",
    "Fingerprint",
    "FunctionCode",
    "Inputs",
    "Key",
    "Observed",
    "Outcome",
    "Reached",
    "add_user_code",
    "arguments_of",
    "call_of",
    "closed_digest",
    "covers",
    "decode",
    "defaults_added",
    "digest_of",
    "digest_of_argument",
    "encode",
    "fingerprint",
    "group_of",
    "make_key",
    "may_call",
    "merged",
    "name_of_function",
    "names_of",
    "not_as_left",
    "reached_by",
    "register",
    "register_random",
    "still_left",
    "unordered",
    "unseen",
    "why_not_by_place",
]

_OF_CODE = ("Chance", "Fingerprint", "Reached", "fingerprint", "group_of", "may_call", "name_of_function", "reached_by")

if not typing.TYPE_CHECKING:  # otherwise a type checker would accept any name here
    # What reads the code of functions is loaded with the first function: a key of plain arguments needs none of it.
    __getattr__ = lazy_modules.loaded_on_use(
        __name__,
        {
            **dict.fromkeys(_OF_CODE, "code.fingerprint"),
            **dict.fromkeys(("defaults_added", "why_not_by_place"), "code.parameters"),
            "register_random": "code.random_calls",
        },
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
