"""A writer that is killed between the blob and the row, as by a power failure."""

from __future__ import annotations

import os

from cacheness import Config
from cacheness.testing.faults import At, kill, stepwise


def main() -> None:
    """Put a value too large for the row; the process ends when its blob is durable."""
    cache = stepwise(Config.from_env(), At("blobs.write", "after", kill))
    cache.put(os.urandom(1 << 20), prefix="a writer that dies")


if __name__ == "__main__":
    main()
