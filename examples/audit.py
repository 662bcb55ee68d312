# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Find a result that its key does not determine, by computing a share of hits again.

python examples/audit.py [folder]
"""

from __future__ import annotations

import os
import sys
import tempfile

from cacheness import UnifiedCache

RATES = "exchange-rates"  # without a suffix, this text does not count as the name of a file


def main(folder: str) -> None:
    """Compute a price until the audit finds that a rate has changed; then settle the dispute."""
    os.chdir(folder)
    cache = UnifiedCache("cache")

    @cache.cached(check=0.05)  # one hit in twenty is computed again
    def price(euros: int) -> float:
        with open(RATES) as file:
            return euros * float(file.read())

    with open(RATES, "w") as file:
        file.write("1.10")
    print("stored:", price(100))
    with open(RATES, "w") as file:
        file.write("1.25")
    print("served, stale:", cache.get(price.key(100)))  # which checks nothing
    for number in range(1, 41):
        found = price(100)
        if cache.disputes():
            print(f"call {number}, checked: {found}")
            break
    (dispute,) = cache.disputes()
    print("why:", dispute.detail)
    print("served until then:", cache.get(dispute.key, default="nothing"))
    cache.settle(dispute.key, keep="new")
    print("after the decision:", price(100))
    cache.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
