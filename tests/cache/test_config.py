"""What a configuration takes: numbers, text with units and paths, alike from parameters and from the environment."""

from __future__ import annotations

import traceback
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cacheness import Config, ConfigError, UnifiedCache
from cacheness.blobs.memory import MemoryBlobStore
from cacheness.config import FROM_FILES, redacted
from cacheness.memoize import CachedOptions
from cacheness.options import READ as READERS
from cacheness.units import bytes_of, seconds_of

READ: dict[str, tuple[str, Any, Any]] = {
    "decimal size": ("max_bytes", "10GB", 10_000_000_000),
    "binary size": ("max_bytes", "1.5 GiB", 3 << 29),
    "size without a unit": ("inline_max_bytes", " 4096 ", 4096),
    "small unit": ("inline_max_bytes", "16k", 16_000),
    "hours": ("ttl", "1h", 3600.0),
    "days in words": ("ttl", "2 days", 172_800.0),
    "several units": ("ttl", "1h 30m", 5400.0),
    "seconds without a unit": ("ttl", "90", 90.0),
    "milliseconds": ("connect_timeout", "250ms", 0.25),
    "whole number": ("max_entries", "12", 12),
    "flag": ("allow_unsigned", "false", False),
    "driver of SQLAlchemy": ("metadata_backend", "postgresql+asyncpg://u@h/d", "postgresql://u@h/d"),
    "driver named of a short scheme": ("metadata_backend", "postgres+psycopg2://u@h/d?x=1", "postgresql://u@h/d?x=1"),
    "capitals": ("metadata_backend", "SQLite", "sqlite"),
    "a choice in capitals": ("mode", " READ ", "read"),
    "a number with an exponent": ("max_entries", "1e6", 1_000_000),
    "a percentage": ("check", "5%", 0.05),
    "a directory for blobs": ("blob_store", "/data/my blobs", "file:///data/my%20blobs"),
    "a URL with a line's end": ("blob_store", "s3://bucket/p\n", "s3://bucket/p"),
    "home": ("cache_dir", "~/results", str(Path.home() / "results")),
}


@pytest.mark.parametrize("name", READ)
def test_text_is_read_alike_from_parameters_and_from_the_environment(name: str) -> None:
    parameter, text, expected = READ[name]
    assert getattr(Config(**{parameter: text}), parameter) == expected
    assert getattr(Config.from_env({f"CACHENESS_{parameter.upper()}": text}), parameter) == expected


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_variable_is_one_that_is_not_set(text: str) -> None:
    assert Config.from_env({"CACHENESS_CACHE_DIR": text, "CACHENESS_TTL": text}) == Config()


WRONG: dict[str, tuple[str, Any, str]] = {
    "no size": ("max_bytes", "ten", "'ten' is not a size"),
    "size in hours": ("max_bytes", "10h", "not a size"),
    "half a byte": ("max_bytes", 0.5, "0.5 is not a size"),
    "no duration": ("ttl", "soon", "'soon' is not a duration"),
    "duration in bytes": ("ttl", "10GB", "not a duration"),
    "several numbers and no unit": ("ttl", "1 2", "not a duration"),
    "a flag for a duration": ("ttl", True, "not a duration"),
    "for ever": ("lease", float("inf"), "calendar"),
    "nothing where something is needed": ("lease", None, "None is not a duration"),
    "no directory": ("cache_dir", None, "leave it out"),
    "a number for text": ("namespace", 5, "5 is not text"),
    "neither true nor false": ("shared_path", "maybe", "neither True nor False"),
    "part of an entry": ("max_entries", 1.5, "not a whole number"),
    "no metadata store": ("metadata_backend", 5, "5 is not a metadata store"),
    "the class of a store": ("blob_store", MemoryBlobStore, "is not a blob store"),
    "another database": ("metadata_backend", "mysql://u@h/d", "'sqlite', 'json', or 'postgresql"),
    "no URL": ("blob_store", "bucket", "'bucket' is not a URL"),
    "no quota": ("max_bytes", 0, "greater than 0, or left out"),
    "less than nothing": ("busy_timeout", "-1", "not a duration"),
    "more than all": ("check", "120%", "not a share"),
    "no mode": ("mode", "readonly", "one of off, offline, read"),
    "nobody's names": ("eviction", None, "one of lru, cost"),
    "secret that is no text": ("signing_key", 12345, "signing_key"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_names_its_parameter_and_what_is_wrong(name: str) -> None:
    parameter, value, words = WRONG[name]
    with pytest.raises(ConfigError, match=words) as caught:
        Config(**{parameter: value})
    assert parameter in str(caught.value)
    assert "12345" not in str(caught.value)


def test_a_cache_opens_by_the_path_of_its_directory_alone(tmp_path: Path) -> None:
    for place in (tmp_path / "a", str(tmp_path / "b")):
        with UnifiedCache(place, ttl=timedelta(hours=1)) as cache:
            cache.put(1, x=1, ttl="1 day")
            assert cache.delete_matching(older_than="1h") == 0
            assert Path(cache.config.cache_dir).is_dir()
    for wrong, words in (((3,), "neither a Config"), (("postgresql://u@h/d",), "metadata_backend=")):
        with pytest.raises((TypeError, ConfigError), match=words):
            UnifiedCache(*wrong)
    with pytest.raises(TypeError, match="twice"):
        UnifiedCache("a", cache_dir="b")


@pytest.mark.parametrize(("url", "directory"), [("sqlite:////data/x.db", "/data"), ("sqlite:///x.db", ".")])
def test_a_url_of_sqlite_is_told_which_directory_to_give(url: str, directory: str) -> None:
    for call in (Config, UnifiedCache):
        with pytest.raises(ConfigError, match=f"{url}.*cache_dir='{directory}'"):
            call(metadata_backend=url)
    with pytest.raises(ConfigError, match=f"cache_dir='{directory}'"):
        UnifiedCache(url)


def test_none_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with UnifiedCache(None) as cache:
        calls: list[int] = []
        work = cache.cached(version="1")(calls.append)
        work(1), work(1)
        assert calls == [1, 1]
        assert cache.get(x=1, default="none") == "none"
    assert list(tmp_path.iterdir()) == []


def test_what_can_work_nowhere_is_said_before_a_server_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no scheme that fsspec supports"):
        UnifiedCache(metadata_backend="postgresql://u@127.0.0.1:1/d", blob_store="sthree://b/x", signing_key="k" * 32)


@pytest.mark.parametrize(
    "url", ["memory://", "sqlite:////data/x.db", "file:///a", "s3://bucket/p", "C:\\data", "postgresql:///d"]
)
def test_a_url_without_secrets_is_shown_as_it_was_written(url: str) -> None:
    assert redacted(url) == url


def test_options_of_a_decorator_take_text_with_units(tmp_path: Path) -> None:
    with UnifiedCache(tmp_path) as cache:
        work = cache.cached(ttl="1 day")(abs)
        assert work(-3) == 3
        (entry,) = cache.iter_entries()
        assert entry.expires_at is not None
        assert entry.expires_at - entry.created_at == 86400 * 1_000_000


WRONG_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "no duration": ({"ttl": "soon"}, "'soon' is not a duration"),
    "expired when stored": ({"ttl": 0}, "greater than 0"),
    "no time to wait": ({"wait": None}, "None is not a duration"),
    "a number for text": ({"version": 2}, "2 is not text"),
    "nothing for text": ({"prefix": None}, "None is not text"),
    "text that no store takes": ({"version": "a\0"}, "NUL"),
    "a name alone": ({"ignore": "client"}, r"is a string; give a list: \['client'\]"),
    "no list": ({"tags": 5}, "5 is not a list"),
    "a number in a list": ({"tags": [1]}, "1 is not text"),
    "neither true nor false": ({"single_flight": "no, thanks"}, "neither True nor False"),
    "no share": ({"check": "often"}, "not a share"),
    "no function": ({"same": 5}, "not a plain function"),
    "no calls": ({"accept": 0}, "at least 1"),
    "no choice": ({"incomplete": "x"}, "one of warn, serve, refuse"),
}


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_a_wrong_option_of_a_decorator_is_an_error_where_it_is_written(name: str, tmp_path: Path) -> None:
    given, words = WRONG_OPTIONS[name]
    with UnifiedCache(tmp_path) as cache:
        with pytest.raises(ConfigError, match=words):
            cache.cached(**given)
        with pytest.raises(ConfigError, match=words):
            cache.cached(abs, **given)


def test_options_of_a_decorator_are_read_like_parameters(tmp_path: Path) -> None:
    with UnifiedCache(tmp_path) as cache:
        options = cache.cached(ttl="1 day", wait=timedelta(minutes=1), check="5%", single_flight="no")(abs).options
    assert (options.ttl, options.wait, options.check, options.single_flight) == (86400.0, 60.0, 0.05, False)


def test_every_option_of_a_decorator_is_in_the_table_of_options() -> None:
    assert READERS.keys() >= CachedOptions.__annotations__.keys()


def test_whole_numbers_come_in_every_spelling() -> None:
    config = Config(max_bytes=10e9, max_entries=np.int64(1000))  # type: ignore[arg-type]
    assert (config.max_bytes, config.max_entries) == (10_000_000_000, 1000)
    assert type(config.max_bytes) is type(config.max_entries) is int


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("1b", 1), ("1e3 kB", 10**6), ("2 bytes", 2), ("1MB", 10**6), ("1mib", 1 << 20)]
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (3, 3.0),
        (-0.5, -0.5),
        (np.int64(7), 7.0),
        (np.float32(0.5), 0.5),
        (Fraction(1, 2), 0.5),
        ("1.5 min", 90.0),
        ("1e3us", 0.001),
        ("1 week, 1 s", 604801.0),
    ],
)
def test_durations(given: Any, seconds: float) -> None:
    assert seconds_of(given) == seconds


# secrets

SECRET_VALUES = {
    "metadata_backend": "postgresql://user:hush-1@host/db?sslpassword=hush-2",
    "blob_store": "s3://bucket/prefix?secret_access_key=hush-3",
    "signing_key": "new:hush-4-0123456789abcdef",
    "trust": "hmac:new",
}


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    environ = {}
    for name, value in SECRET_VALUES.items():
        (tmp_path / name).write_text(f"{value}\n")
        environ[f"CACHENESS_{name.upper()}_FILE"] = str(tmp_path / name)
    assert Config.from_env(environ) == Config(**SECRET_VALUES)
    assert set(SECRET_VALUES) == set(FROM_FILES)


@pytest.mark.parametrize("name", FROM_FILES)
def test_a_file_that_cannot_be_a_secret_is_named_and_not_quoted(name: str, tmp_path: Path) -> None:
    variable, path = f"CACHENESS_{name.upper()}_FILE", tmp_path / "secret"
    contents = {b"": "is empty", b" \n": "is empty", b"hush\xff": "not a text file", b"hush" * 20_000: "more than"}
    for content, words in contents.items():
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=words) as caught:
            Config.from_env({variable: str(path)})
        assert variable in str(caught.value)
        assert "hush" not in repr(caught.value.__cause__) + repr(caught.value)
    for place, words in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=words):
            Config.from_env({variable: str(place)})
    path.write_text("text")
    with pytest.raises(ConfigError, match="set twice"):
        Config.from_env({variable: str(path), variable.removesuffix("_FILE"): "text"})


@pytest.mark.parametrize("name", sorted(Config.__dataclass_fields__.keys() - set(FROM_FILES)))
def test_only_secrets_come_from_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    with pytest.raises(ConfigError, match="is not a setting"):
        Config.from_env({f"CACHENESS_{name.upper()}_FILE": str(tmp_path / "file")})


def test_no_secret_shows_in_a_repr_or_an_error(tmp_path: Path) -> None:
    config = Config(**SECRET_VALUES)
    with pytest.raises(ConfigError, match="Invalid") as refused:
        config.but(metadata_backend="postgresql://user:hush@[host/db")
    assert "hush" not in str(refused.value)
    assert "hush" not in repr(config.but(blob_store="s3://user:hush@[host/b"))
    assert "hush" not in repr(config.but(trust="ed25519:ci:hush, ed25519-pub:b:hush,hush"))
    with UnifiedCache(config.but(mode="off")) as cache:
        shown = [repr(config), str(config), f"{config!r:.500}", repr(cache), repr(cache.cached(abs))]
    for wrong in (
        {"metadata_backend": "mysql://user:hush-1@host/db"},
        {"blob_store": "s4://key:hush-2@bucket?x=hush-3"},
        {"metadata_backend": SECRET_VALUES["metadata_backend"]},
        {"signing_key": "hush"},
        {"signing_key": "a:hush,a:hush-5"},
        {"trust": "ed25519:hush-6:hush", "mode": "read"},
        {"trust": "ed25519:name:hush", "mode": "read"},
        {"trust": "hush", "mode": "read"},
        {"signing_key": "ed25519:name:hush"},
    ):
        with pytest.raises(ConfigError) as caught:
            UnifiedCache(tmp_path, **wrong)
        shown.append("".join(traceback.format_exception(caught.value)))
    assert not [text for text in shown if "hush" in text]
    assert "bucket/prefix" in shown[0]
    assert "user:***@host" in shown[0]


@pytest.mark.parametrize("options", [{}, {"signing_key": "k" * 40}, {"metadata_backend": "json"}])
def test_a_directory_that_the_cache_makes_is_marked_as_one_and_no_other(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    (tmp_path / "project").mkdir()
    for name, is_marked in (("new/cache", True), ("project", False)):
        with UnifiedCache(tmp_path / name, **options) as cache:
            cache.put(1, x=1)
        tag = tmp_path / name / "CACHEDIR.TAG"
        assert tag.exists() == is_marked
        assert not is_marked or tag.read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
