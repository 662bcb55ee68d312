"""The steps of the demo: four runs with one cache, a crash, and its repair."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.census import services
from examples.census.figures import Figures
from examples.census.report import console
from examples.census.sources import copy_files, installed

HERE = Path(__file__).parent
EDITED = "click"  #: the distribution of which one file is edited, in a copy
ADDED = "\n\ndef added_by_the_demo(x: int) -> int:\n    return 1 if x else 2\n"
HELPER = ("    return (functions + branches) / max(functions, 1)", "    return 1 + branches / max(functions, 1)")


class DemoFailed(Exception):
    """A step did not do what it should; the message names it."""


def run_demo(folder: Path, *, clustered: bool, only: Sequence[str] = (), keep: bool = False) -> None:
    """Run all steps. Raise DemoFailed if a step does not do what it should."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    terminal = console()
    with terminal.status("Starting the servers …"):
        services_running = contextlib.ExitStack()
        settings = services_running.enter_context(
            (services.cluster if clustered else services.embedded)(folder, ui=keep)
        )
    with services_running:
        demo = Demo(folder, settings, only, clustered, terminal)
        demo.introduce()
        first = demo.run("The first run", "--picture", str(demo.picture))
        demo.expect(first.parsed == first.files - first.loaded, "every file is parsed or loaded")
        again = demo.run("The same again, in a new process")
        demo.expect(again.parsed == again.made == 0, "a second run executes nothing")
        demo.edit_a_file()
        edited = demo.run(f"One file of {EDITED} edited, in a copy")
        demo.expect(edited.parsed == edited.made == 1, "one edited file is one file parsed and one table made")
        demo.edit_a_helper()
        helper = demo.run("One helper function edited: complexity(), which only the tables use", "--restart-workers")
        demo.expect(
            helper.parsed == 0 and helper.cached == 0,
            "an edited helper changes all tables and parses nothing",
        )
        demo.compare()
        demo.crash_and_repair()
        demo.write_page()
        demo.point_onwards()
        if keep:
            demo.keep()


@dataclass
class Demo:
    """The folder of a demo, its environment, and the figures of its runs."""

    folder: Path
    settings: Mapping[str, str]
    only: Sequence[str]
    clustered: bool
    console: Console
    runs: list[tuple[str, Figures]] = field(default_factory=list)
    _steps: int = 0

    @property
    def picture(self) -> Path:
        """Return the path of the picture."""
        return self.folder.with_suffix(".png")

    @property
    def page(self) -> Path:
        """Return the path of the page."""
        return self.folder.parent / "report.html"

    @property
    def _repair(self) -> Path:
        return self.folder / "repair.json"

    def _where(self) -> str:
        services_of = (
            "PostgreSQL, S3, a Prefect server and a Dask cluster of two processes"
            if self.clustered
            else "SQLite and files, a local Prefect server and two Dask workers"
        )
        return f"On {services_of}. Each run is a new process."

    def introduce(self) -> None:
        """Copy the files that will be edited, and print what runs where."""
        shutil.copytree(HERE, self.folder / "code/examples/census", ignore=shutil.ignore_patterns("__pycache__"))
        [source] = installed([EDITED])
        copy_files(source, self.folder / EDITED)
        self.console.rule("[bold]A census of the Python code installed here[/bold]", align="left")
        self.console.print(self._where())
        if self.only:
            self.console.print(f"It takes {len(self.only)} distributions; FULL=1 takes all.")

    def run(self, title: str, *options: str) -> Figures:
        """Run one census in a new process, with another hash seed."""
        self._head(title)
        figures = self.folder / f"run-{len(self.runs) + 1}.json"
        copy = f"{EDITED}={self.folder / EDITED}"
        ended = self._process("job", "--figures", str(figures), "--copy", copy, "--only", *self.only, *options)
        if ended:
            raise DemoFailed(f"the census ended with exit code {ended}")
        done = Figures(**json.loads(figures.read_text()))
        self.runs.append((title, done))
        self.console.print(
            f"   {done.seconds:.1f} s: {done.parsed:,} files parsed, {done.loaded:,} loaded; "
            f"{done.made:,} tables made, {done.cached:,} taken from the cache; {_size(done.bytes)} stored."
        )
        return done

    def edit_a_file(self) -> None:
        """Add a function to one source file."""
        with open(self.folder / EDITED / EDITED / "core.py", "a") as file:
            file.write(ADDED)

    def edit_a_helper(self) -> None:
        """Rewrite a formula; the code counts in the key, though the values stay the same."""
        file = self.folder / "code/examples/census/tables.py"
        before = file.read_text()
        self.expect(before.count(HELPER[0]) == 1, "the helper is in the file")
        file.write_text(before.replace(*HELPER))

    def compare(self) -> None:
        """Print the figures of all runs."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("run")
        for column in ("seconds", "files parsed", "files loaded", "tables made", "tables cached", "stored"):
            table.add_column(column, justify="right")
        for number, (_, done) in enumerate(self.runs, 1):
            counts = (done.parsed, done.loaded, done.made, done.cached)
            table.add_row(f"{number}", f"{done.seconds:.1f}", *(f"{n:,}" for n in counts), _size(done.bytes))
        first, again = (done.seconds for _, done in self.runs[:2])
        self.console.print("\n[bold]What the cache did[/bold]")
        self.console.print(table)
        self.console.print(f"The second run took 1/{first / again:.0f} of the first.")

    def crash_and_repair(self) -> None:
        """Kill a writer, show what it left, and let the repair flow remove it."""
        self._head("A writer is killed between blob and row")
        ended = self._process("crash")
        self.expect(ended == -signal.SIGKILL, "the writer dies by SIGKILL")
        self.expect(self._process("repair", str(self._repair)) == 0, "the repair flow leaves a clean store")

    def write_page(self) -> None:
        """Write one page about the demo."""
        runs = [{"title": title} | asdict(done) for title, done in self.runs]
        summary = self.folder / "summary.json"
        repair = json.loads(self._repair.read_text())
        summary.write_text(json.dumps({"where": self._where(), "runs": runs, "repair": repair}))
        ended = self._process("page", str(summary), str(self.picture), str(self.page))
        self.expect(ended == 0, "the page is written")

    def point_onwards(self) -> None:
        """Print where to read more."""
        rows = [("the picture", _near(self.picture)), ("the flow", "examples/census/flow.py")]
        if not self.clustered:
            rows.append(("the cache", f".venv/bin/cacheness list --cache-dir {_near(self.folder / 'cache')}"))
        rows += [
            ("why a result was a hit", "docs/explanation/keys.md"),
            ("Dask, Prefect", "docs/reference/dask.md, docs/reference/prefect.md"),
            ("which stores to choose", "docs/how-to/backends.md"),
        ]
        self.console.print("\n[bold]Where to look next[/bold]")
        for what, where in rows:
            self.console.print(f"   {what:<24} {where}", soft_wrap=True)
        self.console.print(f"\nAll of it on one page: {self.page.as_uri()}", soft_wrap=True)

    def keep(self) -> None:
        """Keep the servers and the scheduled repair running until Ctrl-C."""
        url = self.settings["PREFECT_API_URL"].removesuffix("/api")
        with services.nightly(self.folder, self.settings), contextlib.suppress(KeyboardInterrupt):
            self.console.print(f"\nPrefect's UI is at {url}, with the nightly repair. Ctrl-C ends both.")
            signal.pause()

    def expect(self, holds: bool, condition: str) -> None:
        """Raise DemoFailed if a condition does not hold."""
        if not holds:
            raise DemoFailed(f"this did not hold: {condition}")

    def _head(self, title: str) -> None:
        self._steps += 1
        self.console.print(f"\n[bold]{self._steps}  {title}[/bold]")

    def _process(self, module: str, *options: str) -> int:
        environment = {
            **os.environ, **self.settings,
            "PYTHONPATH": str(self.folder / "code"), "PYTHONHASHSEED": str(self._steps),
        }  # fmt: skip
        command = [sys.executable, "-m", f"examples.census.{module}", *options]
        # In a new session, so that Ctrl-C reaches the run first, not its workers.
        process = subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        finally:
            services.end_group(process)


def _near(path: Path) -> str:
    """Return a path relative to the working directory, if it is below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"
