"""What caching() and install() are given: checked at once, with words; a path or a URL opens a cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import jsonschema
import pytest
import yaml
from workloads import inc

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness.errors import CachenessError, ConfigError
from cacheness_dask.policy import Policy

pytestmark = pytest.mark.timeout(120)

WRONG = {
    "which": ["output", "", 1, ["all"], True],
    "max_value_bytes": ["1 gigabite", "", "GB", "-1GB", -1, 0, 1.5, math.inf, True, "nan", [1]],
    "incomplete": ["ignore", "", 1, True],
    "check_inputs": [-0.1, 1.1, math.nan, "101%", True],
    "check": [-0.1, 1.1, math.nan, "101%", True],
    "mode": ["readonly", "", 1],
    "queue_bytes": ["much", -1, 2.5, False],
}
#: Looked at before anything is done with it.
CLIENT = SimpleNamespace(scheduler_info=dict)
CASES = [(name, value) for name, values in WRONG.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda case: repr(case))
def test_a_wrong_option_is_an_error_that_names_it(cache: UnifiedCache, name: str, value: Any) -> None:
    uses: list[Callable[..., object]] = [cd.caching, lambda cache, **options: cd.install(CLIENT, cache, **options)]
    for use in uses:
        with pytest.raises(ConfigError, match=name) as raised:
            use(cache, **{name: value})
        assert repr(value) in str(raised.value)


@pytest.mark.parametrize("text", ["1GB", "1 GB", "1000MB", "1e9", 1_000_000_000])
def test_sizes_may_be_text(text: int | str) -> None:
    assert Policy.checked("auto", text, "0") == Policy(max_value_bytes=10**9, queue_bytes=0)


def test_the_limit_that_was_given_as_text_holds(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync", max_value_bytes="1kiB") as run:
        for size in (100, 100_000):
            dask.delayed(bytes)(size).compute()
    assert [record.stored for record in run.history] == [1, 0]


def test_options_are_read_like_parameters_of_a_cache(cache: UnifiedCache) -> None:
    policy = Policy.checked("ALL", 1e9, "64 MiB", check="5%", check_inputs="0.5")  # type: ignore[arg-type]
    assert (policy.which, policy.max_value_bytes, policy.queue_bytes) == ("all", 10**9, 64 << 20)
    assert (policy.check, policy.check_inputs) == (0.05, 0.5)
    for scheduler in ("sync", "Threads", "processes", "distributed", None):
        cd.caching(cache, scheduler=scheduler)
    with pytest.raises(ConfigError, match="'thread' is not known"):
        cd.caching(cache, scheduler="thread")


def test_what_is_not_given_is_as_dask_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = {
        "cache": str(tmp_path / "c"),
        "which": "marked",
        "max-value-bytes": "1kiB",
        "check": 0.5,
        "mode": "read",
    }
    with dask.config.set({f"cacheness.{name}": value for name, value in configured.items()}):
        block = cd.caching(scheduler="sync")
        assert repr(block) == f"<caching with {str(tmp_path / 'c')!r}>"
        place, policy, _, mode = block._made_of
        assert (place, mode) == (configured["cache"], "read")
        assert policy == Policy.checked("marked", 1024, 64 << 20, check=0.5)
        assert cd.caching(tmp_path, which="all", mode="off")._made_of[1].which == "all"
    with dask.config.set({"cacheness.which": "output"}), pytest.raises(ConfigError, match="which cannot be used"):
        cd.caching(tmp_path)
    with dask.config.set({"cacheness.mode": False}):  # YAML: `mode: off`
        assert cd.caching(tmp_path)._made_of[3] == "off"
    monkeypatch.setenv("DASK_CACHENESS__QUEUE_BYTES", "1 MB")
    with dask.config.set(dask.config.collect(paths=[])):
        assert cd.caching(tmp_path)._made_of[1].queue_bytes == 10**6
    monkeypatch.setenv("CACHENESS_CACHE_DIR", str(tmp_path / "from the environment"))
    with cd.caching() as run:
        assert run.cache.config.cache_dir == str(tmp_path / "from the environment")


@pytest.mark.parametrize(
    ("configured", "words"),
    [
        (
            {"cacheness.queue-byte": "1 MB"},
            "cacheness.queue-byte, which .* mean 'queue-bytes'.* Known: cacheness.cache, ",
        ),
        ({"cacheness.max_bytes": "1 MB"}, "cacheness.max_bytes, which is unknown"),
        ({"cacheness": {"colour": None}}, "cacheness.colour, which is unknown. Known"),
        ({"cacheness": "folder"}, "cacheness: 'folder', which names no key. Known"),
    ],
)
def test_a_key_that_is_not_known_is_an_error_that_lists_all(
    tmp_path: Path, configured: dict[str, Any], words: str
) -> None:
    with dask.config.set(configured):
        for use in (cd.caching, cd.Cache, lambda place: cd.install(CLIENT, place)):
            with pytest.raises(ConfigError, match=words):
                use(tmp_path)
    with dask.config.set({"cacheness.queue_bytes": "1 MB"}), dask.config.set(cacheness={"check_inputs": 1}):
        assert cd.caching(tmp_path)._made_of[1].check_inputs == 1
    with dask.config.set(cacheness=None):
        assert cd.caching(tmp_path)._made_of[1] == Policy()


def test_the_keys_have_a_schema_and_defaults_that_are_those_of_a_policy() -> None:
    texts = (Path(cd.__file__).with_name(name).read_text() for name in ("cacheness.yaml", "cacheness-schema.yaml"))
    defaults, schema = map(yaml.safe_load, texts)
    jsonschema.validate(defaults, schema)
    keys = defaults["cacheness"]
    assert keys.keys() == schema["properties"]["cacheness"]["properties"].keys()
    options = {name.replace("-", "_"): value for name, value in keys.items() if name not in ("cache", "mode")}
    assert Policy.checked(**options) == Policy()


def test_a_registered_cache_serves_every_thread_until_it_is_unregistered(cache: UnifiedCache, tmp_path: Path) -> None:
    def compute() -> int:
        return int(dask.delayed(inc)(1).compute(scheduler="sync"))

    registered = cd.Cache(cache, which="all")
    run = registered.register()
    with ThreadPoolExecutor(1) as pool:
        assert [pool.submit(compute).result() for _ in range(2)] == [2, 2]
        with cd.caching(tmp_path / "other", scheduler="sync") as inner:
            assert compute() == 2
        with cd.nocache():
            assert compute() == 2
        with pytest.raises(RuntimeError, match="entered already"):
            registered.register()
        registered.unregister()
        assert pool.submit(compute).result() == 2
    assert [(record.hits, record.misses) for record in run.history] == [(0, 1), (1, 0)]
    assert [record.misses for record in inner.history] == [1]
    with cd.Cache(cache) as again:
        compute()
    assert [record.hits for record in again.history] == [1]
    compute()
    assert len(again.history) == 1


def test_none_is_no_cache() -> None:
    with cd.caching(None, scheduler="sync") as run:
        assert dask.delayed(inc)(1).compute() == 2
    assert run.history == []


@pytest.mark.parametrize("wrong", [1, dict, {}, b"./cache", ["cache"]], ids=repr)
def test_what_is_no_cache_is_an_error(wrong: Any) -> None:
    for use in (cd.caching, lambda cache: cd.install(CLIENT, cache)):
        with pytest.raises(ConfigError, match="the path of a directory"):
            use(wrong)


def test_install_says_which_argument_is_the_client(cache: UnifiedCache) -> None:
    with pytest.raises(ConfigError, match=r"install\(client, cache\)"):
        cd.install(cache, cache)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_opens_a_cache_for_the_block(tmp_path: Path, kind: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with cd.caching(kind("results"), scheduler="sync") as run:
            assert dask.delayed(inc)(1).compute() == 2
        with pytest.raises(CachenessError, match="closed"):
            run.cache.get(x=1)
        assert run.history[0].stored == run.history[0].misses  # counted before it was closed
    assert run.history[0].hits == 1
    with UnifiedCache(cache_dir=tmp_path / "results") as cache:
        assert len(cache.list_entries()) == 1
    assert [row.status for row in cd.explain(dask.delayed(inc)(1), kind("results"))] == ["hit"]
    picture = cd.visualize(dask.delayed(inc)(1), "picture.svg", kind("results"))
    assert "inc" in picture.svg


def test_a_cache_that_was_given_open_stays_open(cache: UnifiedCache) -> None:
    with cd.caching(cache):
        pass
    cd.explain(dask.delayed(inc)(1), cache)
    assert cache.get(x=1) is None


def test_a_url_takes_the_rest_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHENESS_BLOB_STORE", "memory://blobs")
    monkeypatch.setenv("CACHENESS_ALLOW_UNSIGNED", "1")
    monkeypatch.setenv("CACHENESS_CONNECT_TIMEOUT", "0.2")
    url = "postgresql://nobody@127.0.0.1:1/none"
    with pytest.warns(cd.CacheUnavailable), cd.caching(url, scheduler="sync") as run:
        assert dask.delayed(inc)(1).compute() == 2
    assert (run.cache.config.metadata_backend, run.cache.config.blob_store) == (url, "memory://blobs")


def test_a_url_of_no_database_says_which_there_are() -> None:
    for use in (cd.caching, lambda cache: cd.install(CLIENT, cache)):
        with pytest.raises(ConfigError, match="postgresql://"):
            use("mongodb://host/db")
