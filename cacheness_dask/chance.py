"""Functions that draw from a random generator which no argument seeds: their results are not cached.

This reads compiled code, so it sees what is called by name: `random.random()`, `np.random.rand()`,
`uuid.uuid4()`, `default_rng()` without a seed, a generator kept in a global; also in the user's own
helpers, and in any method of the user's classes whose instances it meets. It cannot see chance inside of a
library's function, such as a model that shuffles its data.
"""

from __future__ import annotations

import dis
import random
import sys
import types
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from cacheness.keys.owners import owner_of

_CALLS: Final = frozenset({"CALL", "PRECALL", "CALL_FUNCTION", "CALL_METHOD"})
_LOADS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FAST"})
_ATTRIBUTES: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_BETWEEN: Final = frozenset({"PUSH_NULL", "CACHE", "RESUME", "NOP", "EXTENDED_ARG", "KW_NAMES", "PRECALL"})

#: Always different, whatever the arguments: module and name.
_NEVER_THE_SAME: Final = frozenset(
    {
        ("uuid", "uuid1"),
        ("uuid", "uuid4"),
        ("posix", "urandom"),
        ("nt", "urandom"),
        ("random", "SystemRandom"),
        ("secrets", "token_bytes"),
        ("secrets", "token_hex"),
        ("secrets", "token_urlsafe"),
        ("secrets", "randbelow"),
    }
)
#: Different unless they are given a seed.
_NEEDS_SEED: Final = frozenset(
    {"default_rng", "RandomState", "Random", "SeedSequence", "PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"}
)
_RANDOM_MODULES: Final = ("random", "numpy.random", "dask.array.random", "cupy.random")


def reads_chance(func: Any) -> str:
    """Why the result of a function may differ each time; "" when nothing speaks for it."""
    return _verdict(func, set())


def _verdict(thing: Any, seen: set[int]) -> str:
    if id(thing) in seen:
        return ""
    seen.add(id(thing))
    owner = getattr(thing, "__self__", None)
    if _is_generator(owner) or _is_never_the_same(thing):
        return f"unseeded randomness: {getattr(thing, '__name__', thing)}"
    if isinstance(thing, types.FunctionType):
        return _of_function(thing, seen)
    if isinstance(thing, type):
        return _of_class(thing, seen)
    inner = _within(thing)
    return _of_class(type(thing), seen) if inner is None else _verdict(inner, seen)


def _within(thing: Any) -> Any:
    """What a method, a partial or another wrapper calls; None when it is none."""
    if isinstance(thing, types.MethodType):
        return thing.__func__
    return thing.func if isinstance(thing, partial) else getattr(thing, "__wrapped__", None)


def _of_class(kind: type, seen: set[int]) -> str:
    """Any method may be called by another, through `self`, which code does not name."""
    if not _is_users(kind):
        return ""
    members = (getattr(member, "__func__", member) for base in kind.__mro__ for member in vars(base).values())
    return next(filter(None, (_verdict(m, seen) for m in members if isinstance(m, types.FunctionType))), "")


def _of_function(func: types.FunctionType, seen: set[int]) -> str:
    if not _is_users(func):
        return ""
    names = _names(func)
    for code in _codes(func.__code__):
        local = _defaults(func) if code is func.__code__ else {}
        reason = _of_code(code, names, local, func.__qualname__, seen)
        if reason:
            return reason
    return ""


def _of_code(code: types.CodeType, names: dict[str, Any], local: dict[str, Any], where: str, seen: set[int]) -> str:
    used = list(_used(code, names, local))
    seeds = any(name.endswith(".seed") and argc for name, _, argc in used)
    for name, thing, argc in used:
        if _is_generator(thing):
            return f"unseeded randomness: {where} uses {name}, a generator kept outside of the task"
        if _is_generator(getattr(thing, "__self__", None)):
            if seeds or name.endswith(".seed"):
                continue
            return f"unseeded randomness: {where} calls {name}"
        if _is_never_the_same(thing):
            return f"unseeded randomness: {where} calls {name}"
        if argc == 0 and _needs_seed(thing):
            return f"unseeded randomness: {where} calls {name}() without a seed"
        reason = _verdict(thing, seen)
        if reason:
            return reason
    return ""


def _used(code: types.CodeType, names: dict[str, Any], local: dict[str, Any]) -> Iterator[tuple[str, Any, int | None]]:
    """What the code names: dotted name, the object, and with how many arguments it is called there."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in _BETWEEN or step.opname == "PRECALL"]
    position = 0
    while position < len(steps):
        step = steps[position]
        position += 1
        if step.opname == "IMPORT_NAME":
            _bind(steps, position, str(step.argval), local)
        if step.opname not in _LOADS:
            continue
        name = str(step.argval)
        known = local if step.opname == "LOAD_FAST" else names
        if name not in known:
            continue
        thing = known[name]
        while position < len(steps) and steps[position].opname in _ATTRIBUTES:
            if not isinstance(thing, (types.ModuleType, type)) and not _is_generator(thing):
                break
            thing = getattr(thing, str(steps[position].argval), None)
            name += f".{steps[position].argval}"
            position += 1
        yield name, thing, _argument_count(steps, position)


def _bind(steps: list[dis.Instruction], position: int, module: str, local: dict[str, Any]) -> None:
    """Follow an import inside of a function to the names that it binds."""
    found = sys.modules.get(module)
    while position < len(steps) and steps[position].opname in {"IMPORT_FROM", "STORE_FAST", "SWAP", "POP_TOP"}:
        step = steps[position]
        if step.opname == "IMPORT_FROM":
            found = getattr(sys.modules.get(module), str(step.argval), None)
        elif step.opname == "STORE_FAST":
            local[str(step.argval)] = found if "." not in module else _top_or_from(steps, position, module, found)
        position += 1


def _top_or_from(steps: list[dis.Instruction], position: int, module: str, found: Any) -> Any:
    # `import a.b` binds a, `import a.b as c` and `from a.b import c` bind what was asked for.
    return sys.modules.get(module.partition(".")[0]) if steps[position - 1].opname == "IMPORT_NAME" else found


def _argument_count(steps: list[dis.Instruction], position: int) -> int | None:
    if position >= len(steps):
        return None
    step = steps[position]
    if step.opname in _CALLS:
        return int(step.arg or 0)
    if step.opname == "LOAD_CONST" and step.argval is None and position + 1 < len(steps):
        following = steps[position + 1]
        if following.opname in _CALLS and following.arg == 1:
            return 0
    return 1


def _names(func: types.FunctionType) -> dict[str, Any]:
    names = {**vars(__import__("builtins")), **func.__globals__}
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # a cell that is still empty
            names.pop(name, None)
    return names


def _defaults(func: types.FunctionType) -> dict[str, Any]:
    """Arguments that have a value already, such as a module or a generator."""
    code, values = func.__code__, func.__defaults__ or ()
    named = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    return {**dict(zip(named, values, strict=True)), **(func.__kwdefaults__ or {})}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _is_generator(thing: Any) -> bool:
    kind = type(thing)
    return isinstance(thing, random.Random) or (
        kind.__name__ in {"RandomState", "Generator"} and kind.__module__.startswith(_RANDOM_MODULES)
    )


def _is_never_the_same(thing: Any) -> bool:
    return (getattr(thing, "__module__", ""), getattr(thing, "__name__", "")) in _NEVER_THE_SAME


def _needs_seed(thing: Any) -> bool:
    if getattr(thing, "__name__", "") not in _NEEDS_SEED:
        return False
    return str(getattr(thing, "__module__", "") or "").startswith(_RANDOM_MODULES)


def _is_users(thing: Any) -> bool:
    names = getattr(thing, "__globals__", None)
    module = names.get("__name__") if isinstance(names, dict) else getattr(thing, "__module__", None)
    return owner_of(module if isinstance(module, str) else None).kind == "user"
