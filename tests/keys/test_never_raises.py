"""Making a key raises nothing that the call itself would not, and a call is bound as Python binds it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cacheness import UnhashableArgument, UnifiedCache
from cacheness.keys import fingerprint


class Licence(Exception):
    def __str__(self) -> str:
        raise ValueError("no text either")


class Raises:
    limit = 2

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise self.error


ERRORS = [
    Licence(),
    AssertionError("not here"),
    SystemExit(2),
    RecursionError("too deep"),
    StopIteration(),
    KeyError("k"),
]


@pytest.fixture
def cache(tmp_path: Path) -> UnifiedCache:
    return UnifiedCache(cache_dir=tmp_path / "cache", on_error="raise")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_closure_that_raises_counts_by_its_type_and_is_listed(cache: UnifiedCache, error: BaseException) -> None:
    client = Raises(error)

    @cache.cached
    def f(x: int) -> int:
        return x + client.limit

    assert f(1) == 3
    assert any("client" in line for line in f.explain(1).unfollowed)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_argument_that_raises_is_named_in_the_error(cache: UnifiedCache, error: BaseException) -> None:
    with pytest.raises(UnhashableArgument, match=r"args\.x\[0\]: .*Raises"):
        cache.put(1, x=[Raises(error)])


def test_an_interrupt_is_passed_on(cache: UnifiedCache) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache.key(x=Raises(KeyboardInterrupt()))


@pytest.mark.parametrize(
    "text", ["raise SystemExit('no')", "assert 0, 'only there'", "class E(Exception): pass\nraise E", "1 / 0", "("]
)
def test_a_module_that_cannot_be_imported_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: UnifiedCache, text: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "elsewhere_only.py").write_text(text)

    @cache.cached
    def f(x: int) -> int:
        if x < 0:
            import elsewhere_only  # type: ignore[import-not-found]

            return int(elsewhere_only.sign)
        return x

    assert f(4) == 4
    assert any("import of elsewhere_only failed" in line for line in f.explain(4).unfollowed)


def test_a_module_that_is_put_right_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "comes_later.py"
    module.write_text("raise RuntimeError('not yet')")

    def f() -> int:
        import comes_later  # type: ignore[import-not-found]

        return int(comes_later.VALUE)

    before = fingerprint(f)
    module.write_text("VALUE = 'a longer text than before'")
    after = fingerprint(f)
    assert before.digest != after.digest
    assert before.unfollowed
    assert not after.unfollowed


def passing(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda fn: functools.wraps(fn)(make(fn))


def area(width: int, height: int = 1, *, unit: str = "m") -> tuple[Any, ...]:
    return (width, height, unit)


DECORATED: dict[str, Any] = {
    "keyword default": passing(lambda fn: lambda width, height=3, *, unit="km": fn(width, height, unit=unit))(area),
    "counts arguments": passing(lambda fn: lambda *args, **kw: (len(args), fn(*args, **kw)))(area),
    "fills a keyword": passing(lambda fn: lambda *args, **kw: fn(*args, **{"unit": "cm", **kw}))(area),
    "gives the first": passing(lambda fn: lambda height: fn(9, height))(area),
    "renames": passing(lambda fn: lambda breadth, h=2: fn(breadth, height=h))(area),
}
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((2,), {}),
    ((2, 1), {}),
    ((2,), {"height": 1}),
    ((2,), {"unit": "m"}),
    ((2,), {"unit": "cm"}),
    ((2,), {"h": 1}),
]


@pytest.mark.parametrize("name", DECORATED)
def test_a_decorated_function_answers_as_it_does_without_a_cache(cache: UnifiedCache, name: str) -> None:
    fn = DECORATED[name]
    cached = cache.cached(fn)
    for args, kwargs in [*CALLS, *reversed(CALLS)]:
        try:
            right = fn(*args, **kwargs)
        except TypeError:
            with pytest.raises(TypeError):
                cached(*args, **kwargs)
        else:
            assert cached(*args, **kwargs) == right


def test_a_signature_that_is_only_claimed_does_not_bind(cache: UnifiedCache) -> None:
    import inspect

    def takes(x: int, scale: int = 5) -> int:
        return x * scale

    takes.__signature__ = inspect.signature(lambda x, scale=1: 0)  # type: ignore[attr-defined]
    cached = cache.cached(takes)
    assert (cached(2, 1), cached(2)) == (2, 10)


def test_what_is_ignored_is_found_through_a_decorator(cache: UnifiedCache) -> None:
    def fetch(day: int, client: object, size: int = 1) -> tuple[int, int]:
        return (day, size)

    fn = passing(lambda fn: lambda *args, **kw: fn(*args, **kw))(fetch)
    cached = cache.cached(ignore=("client",))(fn)
    assert cached.key(1, object(), 2) == cached.key(1, object(), 2)
    assert cached.key(1, object(), 2) != cached.key(1, object(), 3)
    assert cached.key(1, client=object()) == cached.key(1, client=object())
    with pytest.raises(TypeError, match="no such parameter"):
        cache.cached(ignore=("nothing",))(fn)


def test_a_function_with_a_memory_is_bound_by_its_own_names(cache: UnifiedCache) -> None:
    cached = cache.cached(functools.lru_cache(area))
    assert cached.key(2) == cached.key(width=2, height=1)
