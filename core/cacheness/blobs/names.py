"""Define which names a blob may have, in every store."""

from __future__ import annotations

import re
from typing import Final

from cacheness.errors import ConfigError

#: Suffix of a file that is still being written.
UNFINISHED: Final = ".part"
LONGEST: Final = 512

_SEGMENT: Final = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,200}"
_NAME: Final = rf"{_SEGMENT}(?:/{_SEGMENT})*"


def checked(name: str) -> str:
    """Return the name if it is a relative path of plain segments; otherwise raise ConfigError.

    Wider than `entry.OBJECT_NAME`, because the marker is a blob too. Narrow enough to mean the same
    on every file system and in every bucket: no `..`, no NUL, and no letters that a file system
    normalises. Case folding does no harm, because keys are lower case.
    """
    if len(name) > LONGEST or not re.fullmatch(_NAME, name) or name.endswith(UNFINISHED):
        raise ConfigError(
            f"a blob cannot be called {name[:100]!r}: segments of letters, digits, '.', '_' and '-' joined by '/',"
            f" none of them '.' or '..', at most {LONGEST} characters, not ending in {UNFINISHED!r}"
        )
    return name
