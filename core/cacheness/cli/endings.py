"""How a command ends: its exit code, and the two ways to end it before its end."""

from __future__ import annotations

from typing import Final

FOUND: Final = 1  #: issues, entries that were not copied, a call that would miss
MISUSE: Final = 2  #: a command that cannot be meant so
COULD_NOT: Final = 3
INTERRUPTED: Final = 130  #: by Ctrl-C
UNREAD: Final = 141  #: who read the output has closed it


class Misuse(Exception):
    """What was typed cannot be meant so."""


class CouldNot(Exception):
    """What was asked for cannot be done."""


class StoppedByUser(Exception):
    """Ctrl-C, with what had been done until then."""
