"""The plug-in of pytest: in a session of its own, as a user's project has it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cacheness import UnifiedCache, pytest_plugin
from cacheness.modes import MODES
from cacheness.pytest_plugin import cacheness_cache, cacheness_calls  # noqa: F401 - fixtures
from cacheness.testing.calls import HeardCalls

ROOT = Path(__file__).parent.parent.parent


def double(x: int) -> int:
    return 2 * x


def test_a_hit_and_a_miss_with_its_reason_are_asserted(cacheness_cache: UnifiedCache, cacheness_calls) -> None:  # noqa: F811
    cached = cacheness_cache.cached(double)
    with cacheness_calls() as calls:
        cached(1), cached(1), cached(2)
    assert len(calls) == 3
    calls.assert_hit(cached, times=1)
    calls.assert_hit("double")
    calls.assert_miss(double, because="new arguments", times=1)
    calls.assert_miss(f"{__name__}:double", times=2)
    with pytest.raises(AssertionError, match=r"wanted 2 hit of double, and there were 1 among:(\n  .*double: .*){3}$"):
        calls.assert_hit(cached, times=2)
    with pytest.raises(AssertionError, match=r"wanted at least one miss because 'expired' of double, and there were 0"):
        calls.assert_miss(cached, because="expired")
    with pytest.raises(AssertionError, match="no calls"):
        calls.assert_hit("another")
    with cacheness_calls(cacheness_cache) as more:
        cacheness_cache.get(x=1)
    more.assert_miss(times=1)
    assert repr(more) == "HeardCalls(['miss'])"
    assert len(calls) == 3


def test_the_cache_of_a_test_is_gone_after_it(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    made = cacheness_cache.__wrapped__ if hasattr(cacheness_cache, "__wrapped__") else None
    if made is None:  # pytest 8.4 and newer
        made = cacheness_cache._get_wrapped_function()
    generator = made()
    cache = next(generator)
    assert cache.put(os.urandom(100_000), x=1).blob
    assert next(generator, None) is None
    assert not cache.is_open
    assert not Path(cache.config.cache_dir).exists()


def test_pytest_finds_it_and_its_modes_are_ours() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"cacheness": pytest_plugin.__name__}
    assert pytest_plugin._MODES == MODES
    assert HeardCalls([]).of() == []


PROJECT = {
    "conftest.py": """
import sys

def pytest_sessionstart(session):
    ours = sorted(name for name in sys.modules if name.startswith("cacheness"))
    assert ours == ["cacheness", "cacheness.pytest_plugin"], ours
""",
    "pipeline.py": """
from cacheness import UnifiedCache

cache = UnifiedCache("cache")
calls = []

@cache.cached(version="1")
def work(x):
    calls.append(x)
    return x
""",
    "test_one.py": """
import os
import pytest
import pipeline

@pytest.fixture(autouse=True)
def forget():
    pipeline.calls.clear()

def work_twice():
    pipeline.work(1), pipeline.work(1)
    return pipeline.calls

def test_with():
    assert work_twice() == [1]

@pytest.mark.nocache
def test_without():
    assert work_twice() == [1, 1]
    assert os.environ["CACHENESS_MODE"] == pipeline.cache.config.mode == "off"

def test_with_again():
    assert work_twice() == []
    assert "CACHENESS_MODE" not in os.environ

def test_mode(cacheness_cache):
    assert cacheness_cache.config.mode == pipeline.cache.config.mode == os.environ["CACHENESS_MODE"]
""",
}


@pytest.mark.slow
def test_a_project_has_its_marker_its_option_and_no_import_before_it_is_used(tmp_path: Path) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "cacheness.pytest_plugin", "--strict-markers", "-q", "test_one.py"]

    def run(*options: str) -> str:
        ran = subprocess.run(
            [*command, *options], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    assert "3 passed, 1 deselected" in run("-W", "error", "-k", "not mode")
    assert "1 passed" in run("-k", "test_mode", "--cacheness-mode", "read")
