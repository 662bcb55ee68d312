"""The demo runs to its end on a few distributions, and does what it says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from examples.census.demo import Demo
from examples.census.report import console
from examples.census.services import embedded
from tests.prefect.server import UNUSED_SERVICES

ROOT = Path(__file__).parent.parent.parent
FEW = ["click", "toml", "tblib", "stamina"]
STRAY = re.compile(r"Traceback|WARNING|ERROR|Exception|Error:|Deprecat", re.IGNORECASE)


def told(tmp_path: Path, prefect_database: Path, *options: str) -> list[str]:
    """Run the demo; its words, without progress bars."""
    settings = frugal(tmp_path, prefect_database)
    command = [sys.executable, "-m", "examples.census", "--out", str(tmp_path), "--only", *FEW, *options]
    ended = subprocess.run(command, check=False, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True)
    words = ended.stdout + ended.stderr
    assert ended.returncode == 0, words
    assert not STRAY.search(words), words
    return ended.stdout.splitlines()


def frugal(tmp_path: Path, prefect_database: Path) -> dict[str, str]:
    """Settings of a Prefect server that does no more than it needs."""
    database = shutil.copy(prefect_database, tmp_path / "prefect.db")
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in (*UNUSED_SERVICES, "SCHEDULER")},
    }


def figures(folder: Path) -> list[dict[str, float]]:
    return [json.loads((folder / f"run-{number}.json").read_text()) for number in (1, 2, 3, 4)]


def check(words: list[str], folder: Path) -> None:
    first, again, edited, helper = figures(folder)
    assert first["distributions"] == len(FEW)
    assert first["files"] == first["parsed"] + first["loaded"] > 30
    assert (first["made"], first["cached"]) == (len(FEW), 0)
    # Each run is a process with another hash seed, so that all keys agree whatever the seed.
    assert (again["parsed"], again["loaded"], again["made"], again["cached"]) == (0, 0, 0, len(FEW))
    assert (edited["parsed"], edited["made"], edited["cached"]) == (1, 1, len(FEW) - 1)
    assert (helper["parsed"], helper["made"], helper["cached"]) == (0, len(FEW), 0)
    assert again["entries"] == again["bytes"] == 0
    assert any("len(cache.verify_integrity()) is 1" in line for line in words)
    assert any("After the repair flow it is 0" in line for line in words)
    assert folder.with_suffix(".png").stat().st_size > 20_000
    assert words[-1] == f"All of it on one page: {(folder.parent / 'report.html').as_uri()}"
    check_page((folder.parent / "report.html").read_text())


def check_page(html: str) -> None:
    assert html.count('class="served"') == html.count('class="ran"') == 4
    assert re.search(r"in the run [\w-]+ of the flow census", html)
    assert "examples.census.tables.complexity" in html
    assert "orphaned" in html
    assert "finds 0." in html
    assert re.search(r"<b>[\d,]+ seconds</b>", html)
    assert re.findall(r"(?:src|href)=\"(?!data:)", html) == []


@pytest.mark.timeout(600)
@pytest.mark.xdist_group("demo")
def test_a_run_and_a_repair_on_one_machine(
    tmp_path: Path, prefect_database: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in frugal(tmp_path, prefect_database).items():
        monkeypatch.setenv(name, value)
    (folder := tmp_path / "census").mkdir()
    with embedded(folder) as settings:
        demo = Demo(folder, settings, FEW, False, console())
        demo.introduce()
        done = demo.run("The first run")
        demo.crash_and_repair()
    assert (done.parsed + done.loaded, done.made) == (done.files, len(FEW))
    words = "".join(capfd.readouterr())
    assert "After the repair flow it is 0" in words
    assert not STRAY.search(words), words


@pytest.mark.external
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("demo")
def test_the_demo_does_what_it_says(tmp_path: Path, prefect_database: Path) -> None:
    check(told(tmp_path, prefect_database, "--cluster"), tmp_path / "census-cluster")


def test_a_step_that_breaks_its_promise_stops_the_demo(tmp_path: Path) -> None:
    code = "import sys; sys.argv[1:] = ['--out', sys.argv[1]]; import examples.census.services as s\n"
    code += "def broken(folder, ui): raise RuntimeError('prefect did not start. It said:\\nno port')\n"
    code += "s.embedded = broken\nfrom examples.census.__main__ import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "prefect did not start" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_demo_that_is_told_to_end_leaves_no_process(tmp_path: Path) -> None:
    code = """
import contextlib, os, signal, sys
import examples.census.services as s
from examples.census.demo import Demo

SLEEP = "import time; time.sleep(600)"
SERVER = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); {SLEEP}"

@contextlib.contextmanager
def one_server(folder, ui):
    with s._running(["-c", SERVER], folder / "server.log", {}):
        yield dict(os.environ)

def waits(demo):
    print("ready", flush=True)
    signal.pause()

s.embedded, Demo.introduce = one_server, waits
sys.argv[1:] = ["--out", sys.argv[1]]
from examples.census.__main__ import main
sys.exit(main())
"""
    mark = {"CENSUS_OF_THIS_TEST": str(tmp_path)}
    demo = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env=os.environ | mark, stdout=subprocess.PIPE, text=True
    )
    with demo:
        assert demo.stdout is not None
        assert demo.stdout.readline() == "ready\n"
        assert len(marked(mark)) >= 2
        demo.terminate()
        assert demo.wait(timeout=60) == 130
    assert marked(mark) == []


def marked(mark: dict[str, str]) -> list[int]:
    """The processes that have a variable."""
    [(name, value)] = mark.items()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(name) == value:
                found.append(process.pid)
    return found
