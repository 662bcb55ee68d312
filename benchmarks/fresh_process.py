"""A fresh process that imports, opens and takes one hit, against one that imports SQLAlchemy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.bench import Bench, Row, compare, main
from cacheness import UnifiedCache

HIT = "from cacheness import UnifiedCache; cache = UnifiedCache(cache_dir={!r}); assert cache.get(x=1) == 2"
MUST_NOT_IMPORT = "alembic", "pyarrow", "pandas", "s3fs", "fsspec", "obstore", "psycopg", "dask", "prefect", "numpy"


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    folder = str(bench.folder / "ours")
    with UnifiedCache(cache_dir=folder) as cache:
        cache.put(2, x=1)
    hit = HIT.format(folder)
    heavy = f"; import sys; print(*(name for name in {MUST_NOT_IMPORT!r} if name in sys.modules))"
    imported = subprocess.run([sys.executable, "-c", hit + heavy], check=True, capture_output=True, text=True).stdout
    times = bench.race(
        {
            "ours": lambda: subprocess.run([sys.executable, "-c", hit], check=True),
            "sqlalchemy": lambda: subprocess.run([sys.executable, "-c", "import sqlalchemy"], check=True),
        },
        rounds=10,
        once=True,
    )
    yield compare(
        "import, open, one hit",
        times["ours"],
        "import sqlalchemy",
        times["sqlalchemy"],
        at_most=1.5,
        note=f"imports {imported.strip()}" if imported.strip() else "",
    )


if __name__ == "__main__":
    main(measure, __doc__)
