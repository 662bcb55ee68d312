"""Serve the repair flow on its schedule until Ctrl-C."""

from __future__ import annotations

from prefect import serve

from cacheness import Config
from cacheness_prefect import repair_deployment
from examples.census.flow import storage

if __name__ == "__main__":
    serve(repair_deployment(storage(Config.from_env())), print_starting_message=False)
