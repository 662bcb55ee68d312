"""A process that runs the census once, like a scheduled job. Workers that import this module start no run."""

from __future__ import annotations

import os
import signal


def _stop_at_once(*_: object) -> None:
    from rich.console import Console

    # Prefect would wait a minute for running tasks. The cache stays intact without that.
    Console(stderr=True).show_cursor()
    os._exit(130)


if __name__ == "__main__":
    from examples.census.run import main

    signal.signal(signal.SIGINT, _stop_at_once)
    main()
