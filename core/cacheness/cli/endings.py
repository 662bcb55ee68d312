"""Exit codes of a command, and two exceptions that end it early."""

from __future__ import annotations

from typing import Final

FOUND: Final = 1  #: issues, entries that were not copied, a call that would miss, an answer that was no
MISUSE: Final = 2  #: a wrong command
COULD_NOT: Final = 3
INTERRUPTED: Final = 130  #: by Ctrl-C
UNREAD: Final = 141  #: the reader of the output has closed it


class Misuse(Exception):
    """The command line is wrong."""


class CouldNot(Exception):
    """The command failed."""


class Declined(Exception):
    """The answer to a question was no."""


class StoppedByUser(Exception):
    """Ctrl-C, with what had been done until then."""
