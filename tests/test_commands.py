"""Each command on both kinds of store: on SQLite as a process of its own, on servers all of them in one process.

What commands do in full is in test_cli.py.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import typer.main

from cacheness.cli.commands import app
from cacheness.testing import servers
from tests.commands import Ended, one_after_the_other
from tests.conftest import SIGNING_KEY

pytestmark = pytest.mark.slow

PIPELINE = """
def double(x):
    return 2 * x

def edited(x):
    return x + 1

def rewritten(x):
    return x - 1
"""
#: What the commands meet: one function makes other results, another equal ones.
EDITED = PIPELINE.replace("x + 1", "x + 2").replace("return x - 1", "less = x - 1\n    return less")
#: Fills the store under the earlier code.
FILL = """
import joblib
import pipeline
from cacheness import UnifiedCache
from cacheness.config import Config

with UnifiedCache.from_env() as cache:
    double, edited, rewritten = map(cache.cached, (pipeline.double, pipeline.edited, pipeline.rewritten))
    for x in (1, 2, 1):
        double(x)
    for x in range(30):
        edited(x), rewritten(x)
    cache.put(b"raw" * 50_000, source="sensor", tags=["night"])
    cache.put(1, old=1, tags=["gone"])
    cache.put(1, expired=1, ttl=0.001)
    disputed = cache.put(1, disputed=1)
    cache.dispute(disputed, None, None, "1 is stored, 2 was computed")
    print(double.key(1).hex, disputed.cache_key)
with UnifiedCache(Config.from_env().but(namespace="scratch")) as cache:
    cache.put(1, x=1)
joblib.Memory("memory", verbose=0).cache(pipeline.double)(7)
"""
COMMANDS = {
    "list --tag night": (0, "source='sensor'"),
    "show {key} --value": (0, "pipeline:double"),
    "explain pipeline:edited --arg x=1": (1, "code of `pipeline.edited` changed"),
    "report --by function": (0, "pipeline:double\t3\t1\t2\t"),
    "report --html report.html": (0, ""),
    "top --by size --limit 1": (0, "source='sensor'"),
    "stats": (0, "1 hit, "),
    "delete --tag gone --yes": (0, "1 entry deleted"),
    "evict": (0, "1 entry deleted"),
    "clear --namespace scratch --yes": (0, "1 entry deleted"),
    "verify --deep": (0, "No issues found"),
    "audit pipeline:double": (0, "pipeline:double  "),
    "disputes": (1, "1 is stored, 2 was computed"),
    "disputes {disputed} --keep old": (0, "1 dispute settled"),
    "plan pipeline --json": (1, '"state": "changed"'),
    "accept pipeline:rewritten --sample 20": (0, "20 equal calls"),
    "lineage {key}": (0, "pipeline:double"),
    "copy {source} copied": (0, "entries copied, 0 were there already, 0 unreadable"),
    "import joblib memory pipeline:double": (0, "1 taken over, 0 were there already"),
    "migrate": (0, "already"),
    "adopt --yes": (0, "owns the blob store"),
    "keys new ci": (0, "ed25519"),
    "keys trust {trusted}": (0, "ed25519-pub:ci:"),
    "keys list": (0, "\tsigns\t"),
    "keys sign --dry-run": (0, "entries would be signed again"),
    "doctor --json": (0, '"part": "writing"'),
}
SERVED = "ui"
TRUSTED = f"ed25519-pub:ci:{'A' * 43}"


class Store(NamedTuple):
    """A filled store: the folder that commands run in, the variables that name it, and what they ask for."""

    folder: Path
    environment: dict[str, str]
    names: dict[str, str]

    def words(self, text: str) -> list[str]:
        return shlex.split(text.format_map(self.names))

    def command(self, text: str) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "cacheness", *self.words(text)]

    def run(self, text: str) -> Ended:
        """A command as a process of its own."""
        done = subprocess.run(
            self.command(text),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def run_all(self) -> dict[str, Ended]:
        """All commands in one process."""
        ended = one_after_the_other(map(self.words, COMMANDS), cwd=self.folder, env=self.environment)
        return dict(zip(COMMANDS, ended, strict=True))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("sqlite+local", marks=pytest.mark.xdist_group("commands on sqlite")),
        pytest.param("postgresql+s3", marks=[pytest.mark.xdist_group("commands on servers"), pytest.mark.external]),
    ],
)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("commands")
    if request.param == "sqlite+local":
        yield filled(folder, {"CACHENESS_CACHE_DIR": str(folder / "cache")}, str(folder / "cache"))
        return
    with (
        servers.fresh_database(request.getfixturevalue("postgres_server")) as url,
        servers.fresh_prefix(request.getfixturevalue("s3_server")) as blobs,
    ):
        named = {
            "CACHENESS_METADATA_BACKEND": url,
            "CACHENESS_BLOB_STORE": blobs,
            "CACHENESS_SIGNING_KEY": SIGNING_KEY,
            "CACHENESS_CACHE_DIR": str(folder / "unused"),
        }
        yield filled(folder, named, url)


def filled(folder: Path, named: dict[str, str], source: str) -> Store:
    environment = {**os.environ, **named, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    (folder / "pipeline.py").write_text(PIPELINE)
    command = [sys.executable, "-c", FILL]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    key, disputed = done.stdout.split()
    (folder / "pipeline.py").write_text(EDITED)
    return Store(folder, environment, {"key": key, "disputed": disputed, "source": source, "trusted": TRUSTED})


@pytest.fixture(scope="module")
def ended(store: Store) -> Callable[[str], Ended]:
    """What came of a command."""
    return (
        store.run if store.environment["CACHENESS_CACHE_DIR"] == store.names["source"] else store.run_all().__getitem__
    )


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command(store: Store, ended: Callable[[str], Ended], text: str) -> None:
    code, words = COMMANDS[text]
    done = ended(text)
    assert done.code == code, done.err + done.out
    assert words in done.out + done.err
    assert "Traceback" not in done.err
    if "--html" in text:
        assert "pipeline:double" in (store.folder / "report.html").read_text()


def test_ui_serves_a_page_until_ctrl_c(store: Store) -> None:
    with subprocess.Popen(
        store.command(SERVED),
        cwd=store.folder,
        env=store.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as served:
        try:
            assert served.stdout is not None
            assert served.stderr is not None
            url = served.stdout.readline().strip()
            with httpx.Client(follow_redirects=True, timeout=60) as client:
                assert "pipeline:double" in client.get(url).text
            served.send_signal(signal.SIGINT)
            assert served.wait(60) in (0, 130)
            assert "Traceback" not in served.stderr.read()
        finally:
            served.kill()


def test_no_command_was_left_out() -> None:
    commands: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    keys = commands.pop("keys")
    names = {*commands, *(f"keys {name}" for name in keys.commands)}
    tried = {text.partition(" -")[0] for text in (*COMMANDS, SERVED)}
    assert {name for name in names if not any(f"{text} ".startswith(f"{name} ") for text in tried)} == set()
