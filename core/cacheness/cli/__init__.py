"""The command line: inspect a cache, delete from it, repair it, copy it, migrate its database.

Exit codes: 0, 1 when something was found (issues, entries that were not copied) or the answer to a question was
no, 2 for a command that cannot be meant so, 3 when it could not be done, 130 after Ctrl-C, 141 when who read the
output has closed it.
"""

from __future__ import annotations

import sys

from cacheness.cli.endings import INTERRUPTED


def main() -> None:
    """Run a command; Ctrl-C, also during imports, ends it without a traceback."""
    try:
        # Imported here, because imports take most of the time of a short command.
        from cacheness.cli.commands import run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
