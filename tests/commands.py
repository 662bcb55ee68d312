"""Commands that run one after the other in one process of their own: to start one takes half a second."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

#: Each from `main` on. After what each one writes, both outputs have its exit code between two zeros.
PROGRAM = r"""
import json, sys
from cacheness.cli import main

for words in json.loads(sys.argv[1]):
    sys.argv = ["cacheness", *words]
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    for output in (sys.stdout, sys.stderr):
        output.flush()
        output.buffer.write(f"\0{code}\0".encode())
        output.flush()
"""


class Ended(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str


def program(commands: Iterable[Iterable[object]]) -> list[str]:
    """The command line of a process that runs all of them."""
    words = [[str(word) for word in command] for command in commands]
    return [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(words)]


def parts_of(output: str) -> list[str]:
    """What each command wrote."""
    return output.split("\0")[:-1:2]


def one_after_the_other(
    commands: Iterable[Iterable[object]], *, encoding: str = "utf-8", **options: Any
) -> list[Ended]:
    """Run them; what came of each. A command that ends in a traceback ends them all, and is an error here."""
    done = subprocess.run(
        program(commands), stdin=subprocess.DEVNULL, capture_output=True, timeout=110, check=False, **options
    )
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert done.returncode == 0, out + err
    codes = map(int, out.split("\0")[1::2])
    return [Ended(*found) for found in zip(codes, parts_of(out), parts_of(err), strict=True)]
