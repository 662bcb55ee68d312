"""Run the whole matrix: python -m tests.keys.matrix [WORD…] runs the carriers whose names hold a word."""

from __future__ import annotations

import collections
import pathlib
import sys
import tempfile

from rich.progress import track

from tests.keys.matrix.carriers import CARRIERS
from tests.keys.matrix.cells import cells, open_matrix


def main(words: list[str]) -> int:
    """Print every cell that is not as it must be, then the counts."""
    chosen = [carrier for carrier in CARRIERS if not words or any(word in carrier.name for word in words)]
    wanted = list(cells(chosen))
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, open_matrix(pathlib.Path(folder)) as matrix:
        for cell in track(wanted, "keys", transient=True):
            verdict = matrix.verdict(cell)
            counts[verdict.word] += 1
            if not verdict.right:
                print(f"{verdict.word}: {cell}: {verdict.detail}")
    carriers = len({cell.carrier.name for cell in wanted})
    print(f"{carriers} carriers of {len(CARRIERS)}, {len(wanted)} cells: {dict(counts)}")
    return int(any(word not in {"seen", "listed as a limit", "steady"} for word in counts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
