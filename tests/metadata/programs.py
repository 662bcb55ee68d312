"""Small programs that tests run in processes of their own, to be killed, stopped or starved of disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

#: How to open the embedded stores by name, in a program.
OPEN = """
import os, sys, time
from pathlib import Path
from cacheness.deadlines import Limits
from cacheness.records import Where
from cacheness.errors import *
from cacheness.metadata.journal.store import JournalStore
from cacheness.metadata.sqlite import SqliteStore
from cacheness.testing.contracts.metadata import NAMESPACE, SOMEBODY, entry, inline, key
kind, folder = sys.argv[1], Path(sys.argv[2])
store = {"sqlite": SqliteStore, "json": JournalStore}[kind](folder / f"metadata.{kind}", limits=Limits(busy=10.0))
"""


def start(program: str, kind: str, folder: Path, *before: str) -> subprocess.Popen[str]:
    """Run a program that finds `store` open; `before` is a command to run it under."""
    command = [*before, sys.executable, "-c", OPEN + program, kind, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def output(program: str, kind: str, folder: Path, *before: str) -> list[str]:
    """What a program prints, by lines, when it is done."""
    with start(program, kind, folder, *before) as process:
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    return told.splitlines()


def says(process: subprocess.Popen[str], word: str) -> None:
    """Wait until a program says something."""
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word


def in_namespace(*commands: Any) -> tuple[str, ...]:
    """A command that runs another one where these mounts are made, which needs no rights."""
    return ("unshare", "-Urm", "sh", "-ec", "; ".join([*map(str, commands), 'exec "$@"']), "sh")
