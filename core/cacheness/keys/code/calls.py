"""Find the calls in a code object: run its bytecode once, on symbols instead of values.

No user code runs and nothing is imported. An unknown value is `UNKNOWN`; a name of a library that
is not loaded is known only by its dotted name. Code is read from top to bottom, each branch once.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from typing import Any, ClassVar, Final, TypeAlias

from cacheness.keys.code.instructions import instructions_of, one_by_one
from cacheness.keys.code.write_only import METHODS_ARE_ATTRIBUTES
from cacheness.keys.error_paths import FAILURES
from cacheness.keys.owners import is_compiled, is_imported_lazily, module_of, name_of_module, names_of_module
from cacheness.keys.values.attributes import ABSENT
from cacheness.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """An object found without running code; only the name if its library is not loaded."""

    path: str  #: as named in the code
    value: Any = ABSENT


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant in the code."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A parameter of the function."""

    name: str
    optional: bool  #: None unless it is given


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """The result of a call."""

    call: CallInCode


@dataclass(frozen=True, slots=True, eq=False)
class Of:
    """An attribute of an object that is no module or class, with its class's value of that name."""

    owner: Symbol
    name: str
    found: Known | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Unknown:
    """Any value."""


Symbol: TypeAlias = Known | Constant | Given | Made | Of | Unknown
UNKNOWN: Final = Unknown()
_NULL: Final = Constant(ABSENT)


@dataclass(frozen=True, slots=True, eq=False)
class CallInCode:
    """A call in the code."""

    callee: Symbol
    args: tuple[Symbol, ...] = ()
    keywords: Mapping[str, Symbol] = field(default_factory=dict)
    spread: bool = False  #: `*args` or `**kwargs`: there may be more
    without: str = ""  #: runs only while this parameter is None or empty
    having: str = ""  #: runs only while it is neither

    def argument(self, name: str, position: int | None) -> Symbol | None:
        """Return the value for a parameter; None when it is not given."""
        found = self.keywords.get(name)
        if found is None and position is not None and position < len(self.args):
            found = self.args[position]
        return UNKNOWN if found is None and self.spread else found


@dataclass(slots=True)
class Trace:
    """The effects of a code object and those inside it."""

    calls: list[CallInCode] = field(default_factory=list)
    handed: list[tuple[Symbol, str]] = field(
        default_factory=list
    )  #: not called but passed on, and `CallInCode.without`


def trace_of(fn: types.FunctionType) -> Trace:
    """Return what a function calls and passes on, with the current values of its names."""
    code, trace = fn.__code__, Trace()
    arguments = code.co_argcount + code.co_kwonlyargcount
    defaults = defaults_of(fn)
    known: dict[str, Symbol] = {
        name: Given(name, defaults.get(name, ABSENT) is None) for name in code.co_varnames[:arguments]
    }
    known |= {name: symbol for name, value in defaults.items() if (symbol := _of_value(value)) is not UNKNOWN}
    for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=True):
        try:
            known[name] = _of_value(cell.cell_contents, anything=True)
        except ValueError:
            continue  # not assigned yet
    _CodePass(code, known, lambda name: _of_global(name, fn.__globals__), fn.__globals__, trace).through("", "")
    return trace


def defaults_of(fn: types.FunctionType) -> dict[str, Any]:
    """Return the optional parameters and their defaults."""
    code, values = fn.__code__, fn.__defaults__ or ()
    named = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    return {**dict(zip(named, values, strict=True)), **(fn.__kwdefaults__ or {})}


def _of_value(value: Any, *, anything: bool = False) -> Symbol:
    """Return a symbol for a variable's value; a parameter's default only if it is code."""
    if isinstance(value, types.ModuleType):
        return Known(name_of_module(value), value)
    return Known(path_of(value), value) if anything or callable(value) else UNKNOWN


def _of_global(name: str, names: Mapping[str, Any]) -> Symbol:
    value = names.get(name, ABSENT)
    if value is ABSENT:
        value = getattr(sys.modules["builtins"], name, ABSENT)
    if is_imported_lazily(value):
        try:
            value = value.resolve()  # a key reads it, too
        except FAILURES:
            value = ABSENT
    return UNKNOWN if value is ABSENT else _of_value(value, anything=True)


def path_of(value: Any) -> str:
    """Return the dotted name that a function or class has by itself; "" for other objects."""
    if isinstance(value, type):
        return f"{module_of(value)}.{value.__qualname__}"
    if isinstance(value, types.FunctionType):
        return f"{value.__globals__.get('__name__')}.{value.__code__.co_qualname}"
    if isinstance(value, types.BuiltinFunctionType):
        return f"{value.__module__}.{value.__name__}" if isinstance(value.__module__, str) else value.__name__
    if isinstance(value, types.ModuleType) or not callable(value) or not is_compiled(type(value)):
        return ""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""  # made by Cython


def called_as(value: Any) -> Symbol:
    """Return a symbol for an object that is called."""
    if isinstance(value, types.MethodType) and not isinstance(value.__self__, type):
        return attribute(Known("", value.__self__), value.__name__)
    return Known(path_of(value), value)


def attribute(owner: Symbol, name: str) -> Symbol:
    """Return an attribute's value, without running code."""
    if isinstance(owner, Known):
        if owner.value is ABSENT:
            return Known(f"{owner.path}.{name}")
        if isinstance(owner.value, types.ModuleType):
            return _of_module(owner.value, name)
        if isinstance(owner.value, type):
            return _of_class(owner.value, name) or UNKNOWN
        return Of(owner, name, _of_class(type(owner.value), name))
    if isinstance(owner, Made) and isinstance(owner.call.callee, Known) and isinstance(owner.call.callee.value, type):
        return Of(owner, name, _of_class(owner.call.callee.value, name))
    return Of(owner, name)


def _of_module(module: types.ModuleType, name: str) -> Symbol:
    path = f"{name_of_module(module)}.{name}"
    names = names_of_module(module)  # `getattr` might trigger an import
    value = names.get(name, sys.modules.get(path, ABSENT))
    return Known(name_of_module(value) if isinstance(value, types.ModuleType) else path, value)


def _of_class(cls: type, name: str) -> Known | None:
    try:
        value = inspect.getattr_static(cls, name)
    except FAILURES:
        return None
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    return Known(f"{module_of(cls)}.{cls.__qualname__}.{name}", value)


#: They do not change the stack.
_IDLE: Final = frozenset(
    {
        *("NOP", "CACHE", "RESUME", "EXTENDED_ARG", "PRECALL", "COPY_FREE_VARS", "MAKE_CELL", "SETUP_ANNOTATIONS"),
        *("DELETE_FAST", "DELETE_NAME", "DELETE_GLOBAL", "DELETE_DEREF", "TO_BOOL", "NOT_TAKEN"),
    }
)
_LOCALS: Final = frozenset(
    {
        *("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_FAST_AND_CLEAR"),
        *("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_NAME", "LOAD_FROM_DICT_OR_DEREF", "LOAD_FROM_DICT_OR_GLOBALS"),
    }
)
_STORES: Final = frozenset({"STORE_FAST", "STORE_DEREF", "STORE_NAME", "STORE_FAST_MAYBE_NULL"})
_ENDS: Final = frozenset({"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"})
_ALWAYS_JUMPS: Final = frozenset({"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE"})
_JUMPS: Final = frozenset({*dis.hasjrel, *dis.hasjabs})


class _CodePass:
    """One pass over a code object."""

    def __init__(
        self,
        code: types.CodeType,
        local: dict[str, Symbol],
        look: Callable[[str], Symbol],
        names: Mapping[str, Any],
        trace: Trace,
    ) -> None:
        self._code, self._local, self._look, self._names, self._trace = code, local, look, names, trace
        self._stack: list[Symbol] = []
        self._at: dict[int, list[Symbol]] = {}  # the stack at each jump's target
        self._guards: list[tuple[int, str, bool]] = []  # up to which offset, parameter, whether it is None there
        # the conditions from an offset on, if the instruction before does not continue there
        self._otherwise: dict[int, tuple[str, bool]] = {}
        self._keywords: tuple[str, ...] = ()
        self._inner: list[tuple[types.CodeType, str, str]] = []
        self._without = self._having = ""

    def through(self, without: str, having: str) -> None:
        """Run the code, and then code objects inside it, under the conditions of the code around."""
        last: dis.Instruction | None = None
        for raw in instructions_of(self._code).raw:
            self._arrive(raw, last)
            self._without, self._having = without, having
            if self._guards:
                self._without = next((p for _, p, none in reversed(self._guards) if none), without)
                self._having = next((p for _, p, none in reversed(self._guards) if not none), having)
            if raw.opname in _IDLE:
                continue
            for step in one_by_one(raw, self._code):
                self._step(step)
            last = raw
        for code, around_without, around_having in self._inner:
            known = {name: self._local[name] for name in code.co_freevars if name in self._local}
            inner = _CodePass(code, known, self._look, self._names, self._trace)
            inner.through(around_without, around_having)

    def _arrive(self, step: dis.Instruction, last: dis.Instruction | None) -> None:
        offset = step.offset
        if self._guards:
            self._guards = [guard for guard in self._guards if guard[0] > offset]
        stops = last is not None and (last.opname in _ENDS or last.opname in _ALWAYS_JUMPS)
        if stops:
            self._stack = self._at.get(offset, [])
        if offset in self._otherwise and stops and last is not None:
            parameter, none = self._otherwise[offset]
            forward = last.opname == "JUMP_FORWARD"
            self._guards.append((last.argval if forward else len(self._code.co_code), parameter, none))

    def _pop(self) -> Symbol:
        return self._stack.pop() if self._stack else UNKNOWN

    def _step(self, step: dis.Instruction) -> None:
        known = self._steps.get(step.opname)
        if known is None:
            self._generic(step)
        else:
            known(self, step)

    def _constant(self, step: dis.Instruction) -> None:
        if isinstance(step.argval, types.CodeType):
            self._inner.append((step.argval, self._without, self._having))
        self._stack.append(Constant(step.argval))

    def _global(self, step: dis.Instruction) -> None:
        self._stack += [_NULL] * ((step.arg or 0) & 1)
        self._stack.append(self._look(step.argval))

    def _variable(self, step: dis.Instruction) -> None:
        if step.opname.startswith("LOAD_FROM_DICT_OR"):
            self._pop()
        outside = UNKNOWN if step.opname.startswith("LOAD_FAST") else self._look(step.argval)
        self._stack.append(self._local.get(step.argval, outside))

    def _store(self, step: dis.Instruction) -> None:
        self._local[step.argval] = self._pop()

    def _attribute(self, step: dis.Instruction) -> None:
        owner = self._pop()
        if step.opname == "LOAD_METHOD" or (METHODS_ARE_ATTRIBUTES and (step.arg or 0) & 1):
            self._stack.append(_NULL)
        self._stack.append(attribute(owner, step.argval))

    def _super(self, step: dis.Instruction) -> None:
        del self._stack[-3:]
        self._stack += [_NULL] * ((step.arg or 0) & 1) + [UNKNOWN]

    def _import(self, step: dis.Instruction) -> None:
        wanted, level = self._pop(), self._pop()
        self._stack.append(self._imported(step.argval, wanted, level))

    def _import_from(self, step: dis.Instruction) -> None:
        self._stack.append(attribute(self._stack[-1] if self._stack else UNKNOWN, step.argval))

    def _null(self, _: dis.Instruction) -> None:
        self._stack.append(_NULL)

    def _keyword_names(self, step: dis.Instruction) -> None:
        self._keywords = step.argval

    def _copy(self, step: dis.Instruction) -> None:
        depth = step.arg or 0
        self._stack.append(self._stack[-depth] if len(self._stack) >= depth else UNKNOWN)

    def _swap(self, step: dis.Instruction) -> None:
        depth, stack = step.arg or 0, self._stack
        if len(stack) >= depth:
            stack[-1], stack[-depth] = stack[-depth], stack[-1]

    def _drop(self, _: dis.Instruction) -> None:
        self._pop()

    def _unpack(self, step: dis.Instruction) -> None:
        self._hand(self._pop())
        self._stack += [UNKNOWN] * (dis.stack_effect(step.opcode, step.arg) + 1)

    def _generic(self, step: dis.Instruction) -> None:
        """Pop as many values as an operation with this stack effect can pop at most, and push one."""
        jumps = step.opcode in _JUMPS
        effect = dis.stack_effect(step.opcode, step.arg, jump=False if jumps else None)
        if jumps:
            self._jump(step)
        taken = [self._pop() for _ in range(max(1 - effect, 0) if not jumps else max(-effect, 0))]
        if not jumps:
            for symbol in taken:
                self._hand(symbol)
        self._stack += [UNKNOWN] * (effect + len(taken))

    def _jump(self, step: dis.Instruction) -> None:
        target = step.argval
        tested = self._stack[-1] if self._stack else UNKNOWN
        effect = dis.stack_effect(step.opcode, step.arg, jump=True)
        kept = list(self._stack)
        self._at.setdefault(target, kept[:effect] if effect < 0 else kept + [UNKNOWN] * effect)
        if target < step.offset or not isinstance(tested, Given):
            return
        name = step.opname
        if not tested.optional and not name.endswith("NONE"):
            return  # a false value may matter, too
        if name.endswith(("IF_NOT_NONE", "IF_TRUE", "IF_TRUE_OR_POP")):
            self._guards.append((target, tested.name, True))
            self._otherwise[target] = tested.name, False
        elif name.endswith(("IF_NONE", "IF_FALSE", "IF_FALSE_OR_POP")):
            self._guards.append((target, tested.name, False))
            self._otherwise[target] = tested.name, True

    def _call(self, step: dis.Instruction) -> None:
        name, count = step.opname, step.arg or 0
        keywords: tuple[str, ...] = ()
        if name == "CALL_FUNCTION_EX":
            given = [self._pop() for _ in range(1 + (count & 1))]
        else:
            if name == "CALL_KW":
                names = self._pop()
                keywords = names.value if isinstance(names, Constant) else ()
            else:
                keywords, self._keywords = self._keywords, ()
            given = [self._pop() for _ in range(count)][::-1]
        slots = [self._pop(), self._pop()]
        callee = slots[0] if slots[0] is not _NULL else slots[1]
        if _NULL not in slots and slots[1] is not UNKNOWN:
            callee = slots[1]  # a decorator's argument is at the place of a method's object
            given = [slots[0], *given]
        for symbol in given:
            self._hand(symbol)
        spread = name == "CALL_FUNCTION_EX"
        split = len(given) - len(keywords)
        call = CallInCode(
            callee,
            () if spread else tuple(given[:split]),
            dict(zip(keywords, given[split:], strict=True)),
            spread,
            self._without,
            self._having,
        )
        self._trace.calls.append(call)
        self._stack.append(_result(call))

    def _hand(self, symbol: Symbol) -> None:
        if isinstance(symbol, (Known, Of)):
            self._trace.handed.append((symbol, self._without))

    def _imported(self, module: str, wanted: Symbol, level: Symbol) -> Symbol:
        above = level.value if isinstance(level, Constant) else 0
        if above:
            package = str(self._names.get("__package__") or "").split(".")
            module = ".".join([*package[: len(package) - above + 1], *filter(None, [module])])
        elif not (isinstance(wanted, Constant) and wanted.value):
            module = module.partition(".")[0]
        return module_called(module)

    _steps: ClassVar[Mapping[str, Callable[[_CodePass, dis.Instruction], None]]] = {
        **dict.fromkeys(("LOAD_CONST", "LOAD_SMALL_INT", "RETURN_CONST"), _constant),
        "LOAD_GLOBAL": _global,
        **dict.fromkeys(_LOCALS, _variable),
        **dict.fromkeys(_STORES, _store),
        **dict.fromkeys(("LOAD_ATTR", "LOAD_METHOD"), _attribute),
        "LOAD_SUPER_ATTR": _super,
        "IMPORT_NAME": _import,
        "IMPORT_FROM": _import_from,
        "PUSH_NULL": _null,
        "KW_NAMES": _keyword_names,
        **dict.fromkeys(("CALL", "CALL_KW", "CALL_FUNCTION_EX"), _call),
        "COPY": _copy,
        "SWAP": _swap,
        "POP_TOP": _drop,
        **dict.fromkeys(("UNPACK_SEQUENCE", "UNPACK_EX"), _unpack),
    }


def module_called(name: str) -> Known:
    """Return a module by its dotted name, loaded or not."""
    return Known(name, sys.modules.get(name, ABSENT))


_IMPORTERS: Final = frozenset({"builtins.__import__", "importlib.import_module"})


def _result(call: CallInCode) -> Symbol:
    """Return a call's result, if it is known."""
    callee, first = call.callee, call.args[0] if call.args else None
    path = callee.path if isinstance(callee, Known) else ""
    second = call.args[1] if len(call.args) > 1 else None
    if path == "builtins.getattr" and isinstance(second, Constant) and isinstance(second.value, str) and first:
        return attribute(first, second.value)
    if path in _IMPORTERS and isinstance(first, Constant) and isinstance(first.value, str):
        name = first.value
        return module_called(name.partition(".")[0] if path == "builtins.__import__" else name)
    return Made(call)


def unfolded(call: CallInCode) -> CallInCode:
    """Return the call of a partial's function, with all arguments."""
    callee = call.callee
    while isinstance(callee, Known) and isinstance(callee.value, functools.partial):
        inner = callee.value
        args = (*map(Constant, inner.args), *call.args)
        keywords = {**{name: Constant(value) for name, value in inner.keywords.items()}, **call.keywords}
        callee = Known(path_of(inner.func), inner.func)
        call = replace(call, callee=callee, args=args, keywords=keywords)
    return call


def applied(call: CallInCode) -> Iterator[CallInCode]:
    """Return the call, and calls that follow from it.

    Those are of functions given to `map` or `partial`, and of a named method.
    """
    call = unfolded(call)
    yield call
    callee = call.callee
    if isinstance(callee, Known) and type(callee.value).__name__ == "methodcaller" and call.args:
        yield _of_method(callee.value, call)
    if isinstance(callee, Made) and isinstance(callee.call.callee, Known) and call.args:
        maker, given = callee.call.callee.path, callee.call
        name = given.args[0] if given.args else None
        if maker.endswith((".methodcaller", ".attrgetter")) and isinstance(name, Constant):
            method = attribute(call.args[0], str(name.value))
            yield replace(call, callee=method, args=given.args[1:], keywords=given.keywords, spread=given.spread)
    named = callee.path if isinstance(callee, Known) else callee.name if isinstance(callee, Of) else ""
    last = named.rpartition(".")[2]
    if call.args and last in _APPLIERS:
        yield replace(call, callee=call.args[0], args=call.args[1:], spread=last == "partial")


def _of_method(caller: Any, call: CallInCode) -> CallInCode:
    """Return the call of a method through `methodcaller` of Python or Dask.

    Dask's gets the arguments later.
    """
    if hasattr(caller, "method"):
        return replace(call, callee=attribute(call.args[0], caller.method), args=call.args[1:])
    maker, given = caller.__reduce__()
    keywords = maker.keywords if isinstance(maker, functools.partial) else {}
    name, *given = (*maker.args, *given) if isinstance(maker, functools.partial) else given
    return replace(
        call,
        callee=attribute(call.args[0], name),
        args=tuple(map(Constant, given)),
        keywords={keyword: Constant(value) for keyword, value in keywords.items()},
    )


#: They call their first argument with the rest.
_APPLIERS: Final = frozenset({"map", "imap", "imap_unordered", "submit", "apply_async", "partial"})
