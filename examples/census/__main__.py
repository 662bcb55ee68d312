"""Run `make demo` and `make demo-cluster`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from cacheness import CachenessError
from examples.census.demo import DemoFailed, run_demo
from examples.census.sources import needed_by

#: The default census: these distributions and what they require, about half of all installed files.
TAKEN = ("distributed", "matplotlib", "pandas", "scipy", "sqlalchemy", "xarray")


def main() -> int:
    """Run the demo. Return 0 if every step did what it should."""
    parser = argparse.ArgumentParser(prog="python -m examples.census", description=__doc__)
    parser.add_argument("--cluster", action="store_true", help="on PostgreSQL, S3 and a Dask cluster")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", nargs="*", default=[], metavar="NAME", help="a census of these distributions only")
    which.add_argument("--full", action="store_true", help="a census of every distribution that is installed here")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="folder for all files")
    parser.add_argument("--keep", action="store_true", help="at the end, keep the servers until Ctrl-C")
    options = parser.parse_args()
    # Servers and workers run in other process sessions; the exit handlers end them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    only = options.only or ([] if options.full else sorted(needed_by(*TAKEN)))
    folder = options.out.resolve() / ("census-cluster" if options.cluster else "census")
    try:
        run_demo(folder, clustered=options.cluster, only=only, keep=options.keep)
    except (DemoFailed, CachenessError, RuntimeError) as error:
        print(f"\nThe demo stopped: {error}. The logs of its servers are in {folder}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
