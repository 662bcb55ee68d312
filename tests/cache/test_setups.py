"""The set-ups of docs/how-to/sharing.md, each run by processes that have nothing but the page's configuration files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from cacheness.cli.keys import app as keys
from cacheness.testing.proxy import Proxy
from tests.cache.test_modes import DENIED

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs/how-to/sharing.md").read_text()
FILES = dict(re.findall(r"^```ini\n# ([\w.]+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))

READERS_PAGE = (Path(__file__).parents[2] / "docs/how-to/only-ci-writes.md").read_text()
[STATEMENTS] = re.findall(r"^```sql\n(.*?)^```", READERS_PAGE, re.MULTILINE | re.DOTALL)

#: A job that says of each call whether it was computed.
JOB = """
import random
import sys
import cacheness

cache = cacheness.UnifiedCache.from_env()
computed = []

@cache.cached
def table(n):
    computed.append(n)
    return random.Random(n).randbytes(100_000)

for n in map(int, sys.argv[1].split(",")):
    assert table(n) == random.Random(n).randbytes(100_000)
try:
    cache.put(1, by_hand=1)
    wrote = "wrote"
except cacheness.ModeRefused:
    wrote = "refused"
cache._store.uses.flush()
near = cache.stats().get("near", {})
print(computed, wrote, near.get("far_reads", "-"), near.get("near_reads", "-"))
"""


def run(name: str, numbers: str, home: Path, told: str = "", **there: str) -> str:
    """Run the job with one of the page's files; `there` says what stands for the page's addresses.

    Nothing is warned of but what is `told`.
    """
    (home / "job.py").write_text(JOB)
    settings = dict(line.split("=", 1) for line in FILES[name].splitlines() if line)
    assert not there.keys() - set(settings.values()), "the page names other places"
    environment = {key: there.get(value, value) for key, value in settings.items()}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CACHENESS_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "job.py", numbers],
        cwd=home,
        env={**inherited, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if not told or told not in line], done.stderr
    return done.stdout.strip()


def new_key(name: str, path: Path) -> str:
    """Make a private key in a file as the page says; the public one."""
    from typer.testing import CliRunner

    done = CliRunner().invoke(keys, ["new", name, "--to", str(path)])
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


@contextmanager
def reader_of(database: str) -> Iterator[str]:
    """The URL of the database for a role that may only select, made as the page says."""
    parts = urlsplit(database)
    name = parts.path.lstrip("/")
    role = f"reader_{name}"
    here = {"reader": role, "cache": f'"{name}"', "ci": f'"{parts.username}"'}
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(re.sub(r"\b(reader|cache|ci)\b", lambda found: here[found[0]], STATEMENTS).encode())
        try:
            yield parts._replace(netloc=f"{role}:password@{parts.netloc.rpartition('@')[2]}").geturl()
        finally:
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())


def test_the_page_has_a_file_for_each_machine() -> None:
    assert FILES.keys() == {"laptop.env", "ci.env", "reader.env", "worker.env"}


def test_one_laptop(tmp_path: Path) -> None:
    assert run("laptop.env", "1,2,1", tmp_path) == "[1, 2] wrote - -"
    assert run("laptop.env", "1,3", tmp_path) == "[3] wrote - -"
    assert (tmp_path / ".cache/our-project/signing.key").exists()


def test_ci_writes_and_laptops_read(tmp_path: Path, postgres_url: str, s3_url: str) -> None:
    trust = tmp_path / "trust"
    trust.write_text(new_key("ci", tmp_path / "ci.key"))
    new_key("stranger", tmp_path / "stranger.key")

    def writer(key: str) -> dict[str, str]:
        return {
            "postgresql://ci:password@db/cache": postgres_url,
            "s3://results/our-project": s3_url,
            "/run/secrets/ci.key": str(tmp_path / key),
        }

    assert run("ci.env", "1", tmp_path, **writer("ci.key")) == "[1] wrote - -"
    with reader_of(postgres_url) as database, Proxy.before(s3_url) as bucket:
        for right in (b"PUT /", b"DELETE /", b"POST /", b"list-type=2", b"?uploads"):
            bucket.answer(right, 403, DENIED)
        reader = {
            "postgresql://reader:password@db/cache": database,
            "s3://results/our-project": bucket.url,
            "/etc/cacheness/trust": str(trust),
        }
        assert run("reader.env", "1,2", tmp_path, **reader) == "[2] refused - -"
        # Whoever else may write to both stores is not read.
        assert run("ci.env", "1,2", tmp_path, "by the key 'ci'", **writer("stranger.key")) == "[1, 2] wrote - -"
        assert run("reader.env", "1,2", tmp_path, "by the key 'stranger'", **reader) == "[1, 2] refused - -"


def test_a_fleet_with_a_near_tier(tmp_path: Path, postgres_url: str, s3_url: str) -> None:
    trust = tmp_path / "trust"
    trust.write_text(new_key("ci", tmp_path / "ci.key"))
    new_key("fleet", tmp_path / "fleet.key")
    by_ci = {
        "postgresql://ci:password@db/cache": postgres_url,
        "s3://results/our-project": s3_url,
        "/run/secrets/ci.key": str(tmp_path / "ci.key"),
    }
    assert run("ci.env", "1", tmp_path, **by_ci) == "[1] wrote - -"
    worker = {
        "postgresql://fleet:password@pooler/cache": postgres_url,
        "s3://results/our-project": s3_url,
        "/run/secrets/fleet.key": str(tmp_path / "fleet.key"),
        "/etc/cacheness/trust": str(trust),
        "/var/cache/cacheness": str(tmp_path / "near"),
    }
    # One download of what CI wrote; what the worker writes itself is near from the start.
    assert run("worker.env", "1,2", tmp_path, **worker) == "[2] wrote 1 0"
    assert run("worker.env", "1,2", tmp_path, **worker) == "[] wrote 0 2"
