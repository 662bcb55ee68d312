"""The command that imports results from joblib.Memory or diskcache, for named functions."""

from __future__ import annotations

import importlib
import inspect
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypedDict

import typer

from cacheness.cli.children import NotImportable, imported, in_a_child, one_named, tell
from cacheness.cli.endings import FOUND, CouldNot, Misuse
from cacheness.cli.options import AsJson, Place, about_a_cache
from cacheness.cli.screen import print_json, say
from cacheness.lazy_dataclass import dataclass
from cacheness.printable import printable

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache

TOLD_EVERY: Final = 20  #: calls
Source = Literal["joblib", "diskcache", "prefect"]
_PREFECT: Final = (
    "Prefect's own results cannot be imported: they are found by keys that Prefect makes of arguments, and the"
    " arguments are not kept. Give the tasks a policy of cacheness_prefect, and let the next run compute"
)


class _ImportOptions(TypedDict):
    source: Source
    folder: str
    functions: list[str]
    check: int


@dataclass(frozen=True, slots=True)
class FoundCall:
    """A call whose result the other cache has, or why its arguments are unknown."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    load: Callable[[], Any]
    seconds: float | None = None  #: of its computation, if the other cache has them
    ttl: float | None = None  #: seconds until it expires
    why_not: str = ""


@about_a_cache
def take_over(
    source: Annotated[Source, typer.Argument(help="What made the results: joblib, diskcache or prefect.")],
    folder: Annotated[str, typer.Argument(help="What was given to Memory, Cache or FanoutCache.")],
    functions: Annotated[list[str] | None, typer.Argument(help="Functions that made them: pipeline:clean.")] = None,
    *,
    place: Place,
    check: Annotated[int, typer.Option(help="So many calls of each function are made again, and must be equal.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Import results from joblib.Memory or diskcache, under the keys that calls have today.

    It unpickles the contents of the folder, and imports only the named modules, in a separate
    process. Results count as those of today's code: nothing of a function is stored if one of its
    repeated calls differs. Exit code 1 if something was skipped.
    """
    from cacheness.cache import UnifiedCache
    from cacheness.cli.opening import config_of

    if source == "prefect":
        raise Misuse(_PREFECT)
    if not functions:
        raise Misuse(
            f"name the functions whose results are in {folder}: cacheness import {source} {folder} pipeline:clean"
        )
    if not Path(folder).is_dir():
        raise CouldNot(f"{folder} is not a directory")
    with UnifiedCache(config_of(place.cache_dir, place.metadata_backend, place.blob_store, place.namespace)) as cache:
        cache.stats()  # this creates a new cache
    given = _ImportOptions(source=source, folder=folder, functions=functions, check=check)
    found: list[dict[str, Any]] = in_a_child(place, taken_over_in, given, "the import", patience=None)
    if as_json:
        print_json(found)
    else:
        for one in found:
            say(printable(_sentence(one)))
    raise typer.Exit(FOUND if any(one["refused"] or one["left_out"] for one in found) else 0)


def taken_over_in(cache: UnifiedCache, given: _ImportOptions) -> list[dict[str, Any]]:
    """Import results, in the process that imports the modules."""
    return [_of_one(cache, name, given) for name in given["functions"]]


def _of_one(cache: UnifiedCache, name: str, given: _ImportOptions) -> dict[str, Any]:
    done: dict[str, Any] = {"function": name, "imported": 0, "there": 0, "checked": 0, "left_out": {}, "refused": ""}
    name = one_named(name, cache.functions())
    done["function"] = name
    try:
        named = imported(name)
    except NotImportable as error:
        return done | {"refused": str(error) or f"it is {error.state}"}
    function = inspect.unwrap(named)
    while not inspect.isfunction(function) and callable(getattr(function, "func", None)):  # joblib's wrapper
        function = function.func
    # An already decorated function keeps its options.
    cached = named if hasattr(named, "options") and hasattr(named, "key") else cache.cached(function)
    read = _joblib_calls if given["source"] == "joblib" else _diskcache_calls
    try:
        with read(given["folder"], function) as calls:
            done["checked"] = _check(calls, function, given["check"])
            left_out = Counter(call.why_not for call in calls if call.why_not)
            with cache.write_batch():
                for number, call in enumerate(calls):
                    if number % TOLD_EVERY == 0:
                        tell(name, number, len(calls))
                    if not call.why_not:
                        _take(cache, cached, call, done, left_out)
    except _Refused as error:
        return done | {"refused": str(error)}
    return done | {"left_out": dict(left_out)}


class _Refused(Exception):
    """No result of a function is imported; the message has the reason."""


def _check(calls: Sequence[FoundCall], function: Callable[..., Any], wanted: int) -> int:
    """Repeat calls, evenly spread over those that were found. Raises _Refused at the first difference."""
    from cacheness.errors import CachenessError
    from cacheness.keys import digest_of

    known = [call for call in calls if not call.why_not]
    chosen = known[:: max(len(known) // wanted, 1)][:wanted] if wanted > 0 else []
    for call in chosen:
        computed, stored = function(*call.args, **call.kwargs), call.load()
        try:
            is_equal = digest_of(computed, "result") == digest_of(stored, "result")
        except CachenessError as error:
            raise _Refused(f"results cannot be compared: {error}. --check 0 imports them without a check") from error
        if not is_equal:
            raise _Refused(
                f"the code of today returns another value for {_shown(call)}: nothing was stored. Results that no code"
                " decides may be taken over with --check 0"
            )
    return len(chosen)


def _take(cache: UnifiedCache, cached: Any, call: FoundCall, done: dict[str, Any], left_out: Counter[str]) -> None:
    from cacheness.errors import CachenessError

    try:
        key = cached.key(*call.args, **call.kwargs)
        if cache.find(key) is not None:
            done["there"] += 1
            return
        cache.put(call.load(), key, ttl=call.ttl, compute_seconds=call.seconds)
        done["imported"] += 1
    except (CachenessError, TypeError) as error:
        left_out[f"{type(error).__name__}: {error}"] += 1


@contextmanager
def _joblib_calls(folder: str, function: Callable[..., Any]) -> Iterator[list[FoundCall]]:
    """Return the calls of a function for whose present source joblib has results."""
    inspecting, memory = map(_library, ("joblib.func_inspect", "joblib.memory"))
    modules, name = inspecting.get_func_name(function)
    # joblib creates a subfolder in a folder given as text, and none in one given as a path.
    places = [Path(folder, *within, *modules, name) for within in (["joblib"], [])]
    own = next((place for place in places if (place / "func_code.py").exists()), None)
    if own is None:
        raise _Refused(f"{folder} has no results of it")
    source = own / "func_code.py"
    if memory.extract_first_line(source.read_text())[0].strip() != inspecting.get_func_code(function)[0].strip():
        raise _Refused("its results were made by another source, which joblib would not use either")
    yield [_joblib_call(item, function) for item in sorted(own.iterdir()) if (item / "output.pkl").exists()]


def _joblib_call(item: Path, function: Callable[..., Any]) -> FoundCall:
    """Read the arguments of a result if joblib's text of them consists of literals; its hash verifies them."""
    import ast
    import json

    joblib = _library("joblib")
    try:
        known = json.loads((item / "metadata.json").read_text())
        arguments = {name: ast.literal_eval(text) for name, text in known["input_args"].items()}
    except (OSError, ValueError, SyntaxError, KeyError):
        return FoundCall((), {}, _nothing, why_not="arguments of which only the text is kept")
    try:
        is_it = joblib.hash(joblib.func_inspect.filter_args(function, [], (), arguments)) == item.name
    except (TypeError, ValueError):
        is_it = False
    if not is_it:
        return FoundCall((), {}, _nothing, why_not="arguments whose text is that of another value")
    return FoundCall((), arguments, lambda: joblib.load(item / "output.pkl"), known.get("duration"))


@contextmanager
def _diskcache_calls(folder: str, function: Callable[..., Any]) -> Iterator[list[FoundCall]]:
    """Return the calls of a function with results of diskcache's `memoize`."""
    diskcache = _library("diskcache")
    if not any(Path(folder, name).exists() for name in ("cache.db", "000/cache.db")):
        raise _Refused(f"{folder} is not a folder of diskcache")
    kind = diskcache.Cache if Path(folder, "cache.db").exists() else diskcache.FanoutCache
    with kind(folder) as other:
        made = [other.memoize(typed=typed)(function).__cache_key__ for typed in (False, True)]
        [name] = made[0]()[:1]
        keys = [key for key in other if isinstance(key, tuple) and key[:1] == (name,)]
        if not keys:
            raise _Refused(f"{folder} has no results of it: `memoize` calls it {name}")
        yield [_diskcache_call(other, key, made, inspect.signature(function)) for key in keys]


def _diskcache_call(
    other: Any, key: tuple[Any, ...], made: Sequence[Callable[..., Any]], signature: inspect.Signature
) -> FoundCall:
    """A key is the name, the positional arguments, None, and pairs of the others; verified by making the key again."""
    possible = []
    for at in (at for at, part in enumerate(key) if at and part is None):
        args, rest = key[1:at], key[at + 1 :]
        for pairs in range(len(rest) // 2 + 1):
            names = rest[0 : 2 * pairs : 2]
            kwargs = (
                dict(zip(names, rest[1 : 2 * pairs : 2], strict=True))
                if all(isinstance(n, str) for n in names)
                else None
            )
            if (
                kwargs is not None
                and any(make(*args, **kwargs) == key for make in made)
                and _binds(signature, args, kwargs)
            ):
                possible.append((args, kwargs))
    if len(possible) != 1:
        return FoundCall((), {}, _nothing, why_not="keys without the arguments that they were made from")
    _, expires = other.get(key, expire_time=True)
    ttl = None if expires is None else max(expires - time.time(), 0.001)
    return FoundCall(*possible[0], lambda: other[key], ttl=ttl)


def _binds(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise _Refused(f"{library} cannot be imported ({error}). Install it with: pip install {library}") from error


def _nothing() -> None:
    """Load nothing: the call is unknown."""


def _shown(call: FoundCall) -> str:
    return f"{', '.join([*map(repr, call.args), *(f'{name}={value!r}' for name, value in call.kwargs.items())])}"[:200]


def _sentence(one: Mapping[str, Any]) -> str:
    if one["refused"]:
        return f"{one['function']}  refused: {one['refused']}"
    left_out = "".join(f"; {count:,} left out: {why}" for why, count in one["left_out"].items())
    return (
        f"{one['function']}  {one['imported']:,} taken over, {one['there']:,} were there already,"
        f" {one['checked']:,} made again and equal{left_out}"
    )
