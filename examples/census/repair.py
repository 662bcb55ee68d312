"""Find what a crash left, and remove it with the repair flow."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from cacheness import UnifiedCache
from cacheness_prefect import integrity_repair
from examples.census.flow import storage
from examples.census.report import console


def main() -> int:
    """Check, repair, check again. Return 0 if there was one orphan, and is none now."""
    terminal = console()
    with UnifiedCache.from_env() as cache:
        found = cache.verify_integrity()
        terminal.print(f"   len(cache.verify_integrity()) is {len(found)}:")
        for issue in found:
            terminal.print(f"   {issue.kind}, {issue.size:,} bytes: {_short(issue.subject)}")
        integrity_repair(storage(cache.config), mode="repair")
        left = cache.verify_integrity()
        terminal.print(f"   After the repair flow it is {len(left)}.")
    issues = [{"kind": issue.kind, "size": issue.size, "subject": _short(issue.subject)} for issue in found]
    Path(sys.argv[1]).write_text(json.dumps({"found": issues, "left": len(left)}))
    return 0 if [issue.kind for issue in found] == ["orphaned"] and not left else 1


def _short(name: str) -> str:
    """Return a blob's name without the middle of long components."""
    return re.sub(r"([0-9a-f]{8})[0-9a-f]{8,}", r"\1…", name)


if __name__ == "__main__":
    sys.exit(main())
