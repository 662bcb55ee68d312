"""A fresh process that imports, opens and takes one hit, against one that imports sqlite3."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.bench import Bench, Row, compare, main
from cacheness import UnifiedCache

HIT = "from cacheness import UnifiedCache; cache = UnifiedCache(cache_dir={!r}); assert cache.get(x=1) == 2"
MUST_NOT_IMPORT = (
    *(
        "alembic",
        "sqlalchemy",
        "dask",
        "fsspec",
        "numpy",
        "obstore",
        "pandas",
        "polars",
        "prefect",
        "psycopg",
        "pyarrow",
    ),
    *("rich", "s3fs", "stamina", "typer", "zstandard"),
)


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    folder = str(bench.folder / "ours")
    with UnifiedCache(cache_dir=folder) as cache:
        cache.put(2, x=1)
    # As after an installation: bytecode is there for both, even where this environment forbids to write it.
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(bench.folder / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}

    def python(code: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    hit = HIT.format(folder)
    times = bench.race({"ours": lambda: python(hit), "sqlite3": lambda: python("import sqlite3")}, rounds=20, once=True)
    yield compare("fresh process: import, open, one hit", times["ours"], "import sqlite3", times["sqlite3"], at_most=4)
    heavy = python(f"{hit}; import sys; print(*(name for name in {MUST_NOT_IMPORT!r} if name in sys.modules))").split()
    yield Row("fresh process: heavy libraries imported", len(heavy), at_most=0, unit="", note=", ".join(heavy))


if __name__ == "__main__":
    main(measure, __doc__)
