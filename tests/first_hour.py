"""A newcomer's hour: what the tutorials say, in order, in an empty folder and an environment of its own.

make first-hour PYTHON=/path/to/python3.13

What needs servers of the reader's own is printed as such. Dependencies are the newest ones.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
TUTORIALS = ("function", "dask", "prefect")
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: What goes on until Ctrl-C: it is started, and ended at the end of the tutorial.
LASTING = re.compile(r"prefect server start|cacheness ui|serve_repair\.py")
#: Addresses that stand for the reader's own.
YOURS = re.compile(r"user@host|s3://bucket|…")
PATIENCE = 180.0  #: seconds that a server may take


@dataclass
class Hour:
    """The newcomer's folders, and what was typed so far."""

    clone: Path
    work: Path
    environment: dict[str, str]
    running: ExitStack
    program: list[str] = field(default_factory=list)
    is_new: bool = False  #: the program has grown since it ran

    def read(self, page: Path) -> None:
        """Do what a tutorial says."""
        for kind, text in BLOCK.findall(page.read_text()):
            if kind == "console":
                for line in text.splitlines():
                    self.type(line)
            elif named := re.match(r"# (\w+\.py)\n", text):
                (self.work / named[1]).write_text(text)
            else:
                self.program.append(text)
                self.is_new = True
        self.run_program()

    def run_program(self) -> None:
        """Run the file that the blocks make, twice."""
        if self.is_new:
            (self.work / "mine.py").write_text("".join(self.program))
            self.is_new = False
            for _ in range(2):
                self.run("python mine.py", self.work)

    def type(self, line: str) -> None:
        """One line into the terminal that the text means."""
        if re.match(r"python3 -m venv|\.venv/bin/", line):
            self.run(line, self.clone)
            return
        self.run_program()
        if YOURS.search(line) or line.startswith("export "):
            print(f"-- needs servers of your own: {line}", flush=True)
        elif LASTING.search(line):
            print(f"$ {line} &", flush=True)
            self.running.enter_context(lasting(line, self.work, self.environment))
        else:
            self.run(line, self.work)

    def run(self, line: str, folder: Path) -> None:
        """Run a command, which has to succeed."""
        print(f"$ {line}", flush=True)
        subprocess.run(["bash", "-c", line], cwd=folder, env=self.environment, check=True)


@contextmanager
def lasting(line: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A command that goes on, from when it has said something."""
    log = folder / f"{re.sub(r'[^a-z]+', '-', line)[:20]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not (answers(log.read_text()) or "is being served" in log.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{line} did not come up: {log.read_text()}")
            time.sleep(0.2)
        yield
        if process.poll() is not None:
            raise SystemExit(f"{line} ended by itself: {log.read_text()}")
    finally:
        process.terminate()
        process.wait()


def answers(log: str) -> bool:
    """Whether the server at the address that a log names takes connections."""
    if not (found := re.search(r"http://([\d.]+):(\d+)", log)):
        return False
    with socket.socket() as probe:
        return probe.connect_ex((found[1], int(found[2]))) == 0


def main(tutorials: list[str]) -> None:
    """Read the tutorials in a new folder."""
    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        folder = Path(name)
        clone, shims, home = folder / "clone", folder / "shims", folder / "home"
        for made in (shims, home):
            made.mkdir()
        (shims / "python3").symlink_to(sys.executable)
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        path = os.pathsep.join([str(clone / ".venv/bin"), str(shims), os.environ["PATH"]])
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CACHENESS_", "PREFECT_", "VIRTUAL_ENV"))
        }
        quiet = {
            "PATH": path,
            "PREFECT_HOME": str(home),
            "PIP_QUIET": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "DO_NOT_TRACK": "1",
            "PYTHONUNBUFFERED": "1",
        }
        for tutorial in tutorials or TUTORIALS:
            print(f"\n# {tutorial}", flush=True)
            (work := folder / tutorial).mkdir()
            with ExitStack() as running:
                Hour(clone, work, kept | quiet, running).read(ROOT / f"docs/tutorials/{tutorial}.md")
    print("\nEvery step did what it says.")


if __name__ == "__main__":
    main(sys.argv[1:])
