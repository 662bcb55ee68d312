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
from cacheness.config import _READ, FROM_FILES
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


def test_a_url_of_sqlite_is_told_that_a_cache_is_a_directory() -> None:
    with pytest.raises(ConfigError, match="cache_dir"):
        UnifiedCache(metadata_backend="sqlite:////data/x.db")


def test_options_of_a_decorator_take_text_with_units(tmp_path: Path) -> None:
    with UnifiedCache(tmp_path) as cache:
        work = cache.cached(ttl="1 day")(abs)
        assert work(-3) == 3
        (entry,) = cache.iter_entries()
        assert entry.expires_at is not None
        assert entry.expires_at - entry.created_at == 86400 * 1_000_000
        with pytest.raises(ValueError, match="not a duration"):
            cache.cached(ttl="soon")


def test_every_parameter_is_read_or_is_one_of_a_few_that_are_checked_as_they_are() -> None:
    assert Config.__dataclass_fields__.keys() - _READ == {"blob_store", "mode", "eviction", "on_error", "incomplete"}


def test_whole_numbers_come_in_every_spelling() -> None:
    config = Config(max_bytes=10e9, max_entries=np.int64(1000))  # type: ignore[arg-type]
    assert (config.max_bytes, config.max_entries) == (10_000_000_000, 1000)
    assert type(config.max_bytes) is type(config.max_entries) is int


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("1b", 1), ("2 bytes", 2), ("1MB", 10**6), ("1mib", 1 << 20)])
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
    assert "hush" not in repr(config.but(metadata_backend="postgresql://user:hush@[host/db"))
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
