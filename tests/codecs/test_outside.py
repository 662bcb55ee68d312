"""Codecs of the user's, given to a cache."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cacheness import CodecError, ConfigError, UnifiedCache
from cacheness.codecs.outside import OutsideCodec
from cacheness.protocols import Buffer, Codec
from cacheness.testing.contracts.codecs import CodecContract


class Table(dict[str, Any]):
    """A kind of value that no built-in codec knows."""


@dataclass(frozen=True)
class TableCodec:
    name: str = "table-json"
    safe: bool = True

    def accepts(self, value: Any) -> bool:
        return type(value) is Table

    def encode(self, value: Any) -> list[Buffer]:
        return [b"table:", json.dumps(value).encode()]

    def decode(self, data: Buffer) -> Any:
        head, rest = bytes(data[:6]), bytes(data[6:])
        assert head == b"table:"
        return Table(json.loads(rest))


@dataclass(frozen=True)
class Doubles:
    """Takes arrays from the built-in codec, and hands out a view that is not of bytes."""

    name: str = "doubles"
    safe: bool = True

    def accepts(self, value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.dtype == np.float64 and value.ndim == 1

    def encode(self, value: Any) -> list[Buffer]:
        return [memoryview(value)]

    def decode(self, data: Buffer) -> Any:
        return np.frombuffer(data, dtype=np.float64)


TABLES = TableCodec()


class TestOutsideCodec(CodecContract):
    codec = OutsideCodec(TABLES)
    values = (Table(), Table(a=1), Table(text="x" * 1000))
    refused = ({"a": 1}, [1], None)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(tmp_path, codecs=[TABLES, Doubles()]) as opened:
        yield opened


def test_values_come_back_through_the_codec_that_accepts_them(cache: UnifiedCache) -> None:
    assert cache.put(Table(a=1), x=1)["codec"] == "table-json"
    assert cache.put(np.arange(20_000.0), x=2)["codec"].startswith("doubles")
    assert cache.put(np.arange(3), x=3)["codec"] == "numpy"
    assert cache.put({"a": 1}, x=4)["codec"] == "pickle"
    assert type(cache.get(x=1)) is Table
    assert cache.get(x=1) == {"a": 1}
    assert np.array_equal(cache.get(x=2), np.arange(20_000.0))
    assert cache.verify_integrity(deep=True).ok


def test_a_cache_without_the_codec_names_it(cache: UnifiedCache, tmp_path: Path) -> None:
    cache.put(Table(a=1), x=1)
    cache.put(2, x=2)
    with UnifiedCache(tmp_path) as other:
        with pytest.raises(CodecError, match=r"'table-json', which this cache does not have: open it with codecs="):
            other.get(x=1)
        assert other.get_many([other.key(x=1), other.key(x=2)]).keys() == {other.key(x=2).hex}
        assert other.verify_integrity(deep=True).ok, "the bytes are whole, whoever can read them"

        @other.cached
        def f(a: int) -> int:
            return a + 1

        assert f(1) == 2


def test_a_codec_is_named_where_only_text_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "codecs_of_ours.py").write_text(
        "class Text:\n"
        "    name, safe = 'text', True\n"
        "    def accepts(self, value): return type(value) is str\n"
        "    def encode(self, value): return [value.encode()]\n"
        "    def decode(self, data): return bytes(data).decode()\n"
        "TEXT = Text()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CACHENESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CACHENESS_CODECS", "codecs_of_ours:TEXT")
    with UnifiedCache.from_env() as cache:
        assert cache.put("é", x=1)["codec"] == "text"
        assert cache.get(x=1) == "é"
        assert pickle.loads(pickle.dumps(cache.config)).codecs[0].name == "text"


def test_equal_codecs_make_equal_configurations(cache: UnifiedCache) -> None:
    assert pickle.loads(pickle.dumps(cache.config)) == cache.config


class Unhashable(TableCodec):
    __hash__ = None  # type: ignore[assignment]


WRONG: dict[str, tuple[Any, str]] = {
    "a number": (3, "not a list of codecs"),
    "a class": ([TableCodec], r"is a class: give an instance, TableCodec\(\)"),
    "no codec": ([object()], "has no name, safe, accepts, encode, decode"),
    "a name that no row takes": ([TableCodec(name="Table JSON")], "small letters, digits and hyphens"),
    "the mark of compression": ([TableCodec(name="table+zstd")], "small letters, digits and hyphens"),
    "no word about safety": ([TableCodec(safe="yes")], "neither True nor False"),  # type: ignore[arg-type]
    "one name twice": ([TableCodec(), TableCodec()], "two codecs have one name"),
    "a built-in codec's name": ([TableCodec(name="numpy")], "'numpy' is the name of a built-in codec"),
    "no hash": ([Unhashable()], "unhashable"),
    "text without a colon": ("json", "does not name a codec: give module:name"),
    "a module that is not there": ("no_such_module_here:X", "cannot be imported"),
    "a name that is not there": ("json:NO_SUCH_NAME", "cannot be imported"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_codec_is_an_error_at_once(name: str, tmp_path: Path) -> None:
    codecs, words = WRONG[name]
    with pytest.raises(ConfigError, match=words):
        UnifiedCache(tmp_path, codecs=codecs)


@dataclass(frozen=True)
class Failing(TableCodec):
    where: str = ""

    def accepts(self, value: Any) -> bool:
        return super().accepts(value) and (self.where != "accepts" or 1 / 0 > 0)

    def encode(self, value: Any) -> list[Buffer]:
        if self.where == "encode":
            raise OSError("no room")
        return "text" if self.where == "text" else super().encode(value)  # type: ignore[return-value]

    def decode(self, data: Buffer) -> Any:
        return super().decode(data) if self.where != "decode" else {}["a"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("accepts", r"the codec 'table-json' cannot look at a Table: ZeroDivisionError"),
        ("encode", r"the codec 'table-json' cannot encode a Table: OSError: no room"),
        ("text", r"the codec 'table-json' cannot encode a Table: TypeError"),
        ("decode", r"the codec 'table-json' cannot decode .* bytes: KeyError"),
    ],
)
def test_what_a_codec_raises_is_an_error_of_ours(where: str, words: str, tmp_path: Path) -> None:
    with UnifiedCache(tmp_path, codecs=[Failing(where=where)]) as cache, pytest.raises(CodecError, match=words):
        cache.put(Table(a=1), x=1)
        cache.get(x=1)


def test_an_unsafe_codec_is_neither_asked_nor_read_with_safe_codecs(tmp_path: Path) -> None:
    unsafe = TableCodec(safe=False)
    with UnifiedCache(tmp_path, codecs=[unsafe]) as cache:
        assert cache.put(Table(a=1), x=1)["codec"] == "table-json"
    with UnifiedCache(tmp_path, codecs=[unsafe], safe_codecs=True) as cache:
        with pytest.raises(CodecError, match="safe_codecs=True does not read"):
            cache.get(x=1)
        with pytest.raises(CodecError, match="cannot be stored with safe_codecs=True"):
            cache.put(Table(a=1), x=2)


_conforms: type[Codec] = TableCodec
