"""One process that makes keys in forked children, each of which sees one carrier in one place.

Reads jobs as lines of JSON on its standard input and answers each with a line. It imports what is
slow to import and never makes a key itself, so that a child is as good as a fresh process. A library is
imported when the first carrier names it: a key looks at every class there is, and a fork copies all of them.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import json
import os
import pathlib
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, Final

import cloudpickle

from cacheness.keys import Key, make_key
from cacheness.keys.code.additions import additions_to
from tests.keys.matrix.places import PLACES

#: What is slow to import, where it is installed.
_SLOW: Final = (
    *("numpy", "pandas", "polars", "dask.delayed", "prefect", "sqlalchemy.orm", "pydantic", "attrs", "wrapt"),
    *("toolz", "joblib", "cachetools", "tenacity", "beartype", "numba", "msgspec", "lazy_loader"),
    "sklearn.preprocessing",
)


def main() -> None:
    """Answer jobs until the input ends."""
    _import({"numpy"})
    for line in sys.stdin:
        job = json.loads(line)
        source = next(pathlib.Path(job["folder"]).rglob("subject.py")).read_text()
        _import(set(re.findall(r"\w+", source)))
        print(json.dumps(_answer(job)), flush=True)


def _import(words: set[str]) -> None:
    """Import the slow libraries among some words, for this child and those that follow."""
    tops = {name: name.partition(".")[0] for name in _SLOW if name not in sys.modules}
    named = [name for name, top in tops.items() if top in words and importlib.util.find_spec(top) is not None]
    if named:
        for name in named:
            importlib.import_module(name)
        gc.freeze()  # a collection in a child would copy all of these objects
        additions_to({"encode"})  # whose all these modules are takes long to find out, and stays the same


def _answer(job: dict[str, str]) -> dict[str, Any]:
    place = next(place for place in PLACES if place.name == job["place"])
    folder = pathlib.Path(job["folder"])
    if place.name != "by-value pickle":
        return _in_child(folder, lambda: _look(place.load(folder)))
    pickled = folder / "pickled"
    found = _in_child(folder, lambda: pickled.write_bytes(cloudpickle.dumps(place.load(folder))))
    if isinstance(found, dict):
        return found
    return _in_child(folder, lambda: _look(_unpickled(pickled)))


def _unpickled(pickled: pathlib.Path) -> Callable[..., Any]:
    sys.path.insert(0, str(pickled.parent))  # a module beside a script is on its workers too
    return cloudpickle.loads(pickled.read_bytes())  # type: ignore[no-any-return]


def _look(fn: Callable[..., Any]) -> dict[str, Any]:
    key = make_key(function=fn, args={"x": 2})
    listed = _listed_in(key)
    value = fn(2)
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    again = make_key(function=fn, args={"x": 2})
    return {"key": key.hex, "again": again.hex, "value": repr(value), "listed": listed}


def _listed_in(key: Key) -> list[str]:
    """What the key could not see, as `explain` lists it."""
    found = key.all_components
    return [str(line) for name in ("unfollowed", "incomplete") for line in found.get(name, ())]


def _in_child(folder: pathlib.Path, work: Callable[[], Any]) -> Any:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        warnings.simplefilter("ignore")
        os.chdir(folder)
        try:
            answer = work()
        except BaseException:  # noqa: BLE001 - a carrier's sys.exit is an answer too
            answer = {"error": traceback.format_exc(limit=-3)}
        with os.fdopen(writing, "w") as out:
            out.write(json.dumps(answer))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"error": "the child died without an answer"}


if __name__ == "__main__":
    main()
