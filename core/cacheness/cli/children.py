"""Run commands that import the user's modules in a separate process, which imports only the named ones."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from cacheness.cli.endings import CouldNot, Misuse
from cacheness.cli.options import Place
from cacheness.errors import CachenessError

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache

_ABOUT: Final = 100  #: characters of a progress message
_PATIENCE: Final = 1.0  #: seconds
_pipes: Final[list[int]] = []  #: in a child, to the command that started it
_CHILD: Final = "from cacheness.cli.children import child; child()"


class NotImportable(Exception):
    """A function cannot be imported by its name; the message has the reason, if known."""

    def __init__(self, state: Literal["not importable", "gone"], why: str = "") -> None:
        super().__init__(why)
        self.state = state


def in_a_child(
    place: Place, work: Callable[[UnifiedCache, Any], Any], given: Any, what: str, *, patience: float | None
) -> Any:
    """Return the result of `work(cache, given)`, run in a process that may import modules, as JSON.

    Their output is not shown, so that it does not mix with the command's.
    """
    # Imported late, as in every module of the commands: the help imports all of them.
    import json
    import pickle
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as folder, _progress_of(what) as pipe:
        answer = Path(folder) / "answer.json"
        request = pickle.dumps((place.config(), work, given, str(answer), pipe))
        try:
            command = [sys.executable, "-c", _CHILD]
            done = subprocess.run(
                command, input=request, capture_output=True, timeout=patience, check=False, pass_fds=[pipe]
            )
        except subprocess.TimeoutExpired:
            raise CachenessError(f"{what} took more than {patience:.0f} s, importing included") from None
        if not answer.exists():
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise CachenessError(f"{what} could not be made: {last or _end_of(done.returncode)}")
        found = json.loads(answer.read_text())
    if "misuse" in found:
        raise Misuse(found["misuse"])
    if "could not" in found:
        raise CouldNot(found["could not"])
    if "error" in found:
        raise CachenessError(found["error"])
    return found["answer"]


def child() -> None:
    """Do the work, in the process that imports the modules."""
    import json
    import pickle

    from cacheness.cache import UnifiedCache

    config, work, given, answer, pipe = pickle.load(sys.stdin.buffer)
    _pipes.append(pipe)
    sys.path.insert(0, os.getcwd())
    with UnifiedCache(config) as cache:
        try:
            found = {"answer": work(cache, given)}
        except Misuse as error:
            found = {"misuse": str(error)}
        except CouldNot as error:
            found = {"could not": str(error)}
        except CachenessError as error:
            found = {"error": str(error)}
        except SystemExit as error:
            found = {"error": f"a function called sys.exit({error.code!r})"}
    Path(answer).write_text(json.dumps(found))


def _end_of(code: int) -> str:
    return f"its process ended with exit code {code}" if code >= 0 else f"its process was killed by signal {-code}"


def tell(about: str, done: int, total: int) -> None:
    """Report progress from the child: the command shows it as a bar."""
    import json

    for pipe in _pipes:
        with suppress(OSError):  # the command was killed
            os.write(pipe, json.dumps([done, total, about[:_ABOUT]]).encode() + b"\n")


@contextmanager
def _progress_of(what: str) -> Iterator[int]:
    """A progress bar for a child, which writes to a pipe; this is its reading end."""
    import json
    import threading

    from cacheness.cli.screen import progress
    from cacheness.printable import printable

    ours, theirs = os.pipe()

    def show() -> None:
        with open(ours, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                done, total, about = json.loads(line)
                bar.update(task, completed=done, total=total, description=f"{what}: {printable(about)}")

    with progress() as bar:
        task = bar.add_task(what, total=None)
        shower = threading.Thread(target=show, daemon=True)
        shower.start()
        try:
            yield theirs
        finally:
            os.close(theirs)
            shower.join(_PATIENCE)  # processes that a module has started may keep the writing end open


def named_by(target: str, known: Sequence[str]) -> list[str]:
    """Return the functions with results that a target names, as `--function` does. Raises CouldNot for none."""
    from cacheness.arguments import functions_called

    if not target.partition(":")[0].strip():
        raise Misuse(f"{target!r} names no module: write module:function")
    found = list(functions_called(target, known))
    if not found:
        raise CouldNot(f"no function of {target} has results: cacheness list shows what has")
    return found


def one_named(target: str, known: Sequence[str]) -> str:
    """Return the function that a target names, as module:name, with results or without.

    Raises Misuse if they are several, CouldNot for none.
    """
    from cacheness.arguments import is_full_name

    if is_full_name(target):
        return target
    if ":" in target:
        raise Misuse(f"{target} is not a function: write module:function")
    try:
        found = named_or_new(target, known)
    except CouldNot as error:
        raise CouldNot(f"{error}. Name one without results as module:name") from None
    if len(found) > 1:
        raise Misuse(f"{target} could be {len(found)} functions: {', '.join(found)}. Give one of these names")
    return found[0]


def named_or_new(target: str, known: Sequence[str]) -> list[str]:
    """Return the functions that a target names: those with results, otherwise one without. Raises CouldNot for none."""
    from cacheness.arguments import is_full_name

    try:
        return named_by(target, known)
    except CouldNot:
        if is_full_name(target):
            return [target]
        module, _, name = target.rpartition(".")
        if not module or ":" in target:
            raise
        return [f"{module}:{name}"]


def imported(name: str) -> Any:
    """Return the function of this module and qualified name, joined by a colon. Raises NotImportable."""
    module, _, qualname = name.partition(":")
    if module == "__main__" or "<locals>" in qualname or not qualname:
        raise NotImportable("not importable")
    try:
        found = importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also a SystemExit, and the exception with which pytest skips a module
        raise NotImportable("not importable", f"{module} cannot be imported: {_named(error)}") from error
    try:
        return reduce(getattr, qualname.split("."), found)
    except AttributeError:
        raise NotImportable("gone") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of the module's __getattr__
        raise NotImportable("not importable", f"{name} cannot be imported: {_named(error)}") from error


def _named(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as another:  # noqa: BLE001  of the error's own class
        return f"{type(error).__name__}, whose text cannot be made: {type(another).__name__}"
