"""What a crash left behind, and the repair flow that removes it."""

from __future__ import annotations

import sys

from rich.console import Console

from cacheness import UnifiedCache
from cacheness_prefect import integrity_repair
from examples.census.flow import storage


def main() -> int:
    """Check, repair, check again. Returns the number of issues that are left."""
    console = Console(width=100, highlight=False)
    with UnifiedCache.from_env() as cache:
        found = cache.verify_integrity()
        console.print(f"   len(cache.verify_integrity()) is {len(found)}")
        for issue in found:
            console.print(f"   {issue.kind}: {issue.subject}", overflow="fold")
        integrity_repair(storage(cache.config), mode="repair")
        left = cache.verify_integrity()
        console.print(f"   after the repair flow it is {len(left)}")
    return len(left)


if __name__ == "__main__":
    sys.exit(main())
