# /// script
# requires-python = ">=3.11"
# dependencies = ["prefect>=3.8.8"]
# ///
"""
Run the repair flow: damage a store, check it, repair it, check it.

`cacheness_prefect.repair_deployment` puts the same flow on a schedule.

python examples/prefect_repair.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from cacheness_prefect import CachenessStorage, integrity_repair

store = CachenessStorage(cache_dir=sys.argv[1] if len(sys.argv) > 1 else ".cacheness", inline_max_bytes=0)


def main() -> None:
    """Store the numbers from one to ten, delete a blob, and repair."""
    with store.open().write_batch():
        for number in range(1, 11):
            store.open().put(f"the number {number}", number=number)
    next(Path(str(store.cache_dir)).glob("blobs/default/*/*.*.*")).unlink()
    print("check: ", integrity_repair(store, "check", tasks=4))
    print("repair:", integrity_repair(store, "repair", tasks=4))
    print("check: ", integrity_repair(store, "check", tasks=4))


if __name__ == "__main__":
    main()
