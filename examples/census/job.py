"""A process that runs the census once, as a scheduled job would. Its workers import this module, but not a run."""

from __future__ import annotations

import os
import signal


def _stop_at_once(*_: object) -> None:
    from rich.console import Console

    # Prefect would wait for the tasks under way, which takes a minute. The cache is made for worse.
    Console(stderr=True).show_cursor()
    os._exit(130)


if __name__ == "__main__":
    from examples.census.run import main

    signal.signal(signal.SIGINT, _stop_at_once)
    main()
