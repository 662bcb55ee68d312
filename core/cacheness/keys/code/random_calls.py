"""Decide which calls draw random numbers without a seed: a table, and a rule for signatures.

A call draws when its seed is left out or None. Functions of Python and libraries are in a table, by
name; others are judged by their signature: `random_state=None`, `seed=None` or `rng=None`. The
user's functions are read (`randomness.py`).
"""

from __future__ import annotations

import inspect
import random
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from cacheness.keys.code.calls import (
    CallInCode,
    Constant,
    Given,
    Known,
    Of,
    Symbol,
    defaults_of,
    path_of,
    unfolded,
)
from cacheness.keys.code.sources import FunctionParameters, parameters_in_source
from cacheness.keys.owners import owner_of, owner_of_class
from cacheness.keys.values.attributes import ABSENT
from cacheness.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Draw:
    """A source of random numbers, and the conditions under which it is seeded."""

    what: str  #: for messages
    sources: frozenset[str] = frozenset()  #: process-wide generators; seeding one of them is enough
    unless: str = ""  #: the enclosing function's parameter that seeds it
    kept: bool = False  #: a generator in a global, a closure or an object


@dataclass(frozen=True, slots=True)
class _Drawing:
    """How a call is seeded."""

    names: tuple[str, ...] = ()  #: parameters; none: nothing seeds it
    position: int | None = None  #: of the first of them
    sources: frozenset[str] = frozenset()


_PYTHON: Final = frozenset({"random"})
_NUMPY: Final = frozenset({"numpy"})
_TORCH: Final = frozenset({"torch"})
_TENSORFLOW: Final = frozenset({"tensorflow"})
_ANY: Final = frozenset({"random", "numpy", "torch", "polars", "tensorflow", "cupy"})
_ALWAYS: Final = _Drawing()

_GENERATORS: Final = "default_rng|RandomState|SeedSequence|PCG64|PCG64DXSM|MT19937|Philox|SFC64|XORWOW"
#: They draw initial weights, or draw when they are used.
_LAYERS: Final = (
    r"Linear|Bilinear|Conv\w+|Embedding\w*|LSTM\w*|GRU\w*|RNN\w*|Transformer\w*|MultiheadAttention|\w*Dropout\w*|RReLU"
)
#: Functions that draw, or create a generator, by a pattern for the dotted name. The first match
#: decides; None: it draws nothing.
_TABLE: Final[tuple[tuple[str, _Drawing | None], ...]] = (
    (r"uuid\.uuid[14]", _ALWAYS),
    (r"(os|posix|nt)\.(urandom|getrandom)", _ALWAYS),
    (r"secrets\.compare_digest", None),
    (r"secrets\.\w+", _ALWAYS),
    (r"random\.SystemRandom", _ALWAYS),
    (r"random\.Random", _Drawing(("x",), 0)),
    (r"random\.(seed|getstate|setstate|[A-Z]\w*|_\w+)", None),
    (r"random\.\w+", _Drawing(sources=_PYTHON)),
    (
        rf"(numpy|cupy|dask\.array)\.random(\.\w+)?\.({_GENERATORS})",
        _Drawing(("seed", "entropy"), 0),
    ),
    (r"(numpy|cupy)\.random(\.\w+)?\.(\w*seed|[gs]et_\w+|[A-Z]\w*|_\w+|test)", None),
    (r"numpy\.random(\.mtrand|\._\w+)?\.\w+", _Drawing(sources=_NUMPY)),
    (r"cupy\.random(\._\w+)*\.\w+", _Drawing(sources=frozenset({"cupy"}))),
    (
        r"tensorflow\.random\.(normal|uniform|truncated_normal|shuffle|gamma|poisson)",
        _Drawing(("seed",), None, _TENSORFLOW),
    ),
    (r"dask\.bag\.random\.(_sample\w*|_weighted\w*|choices|sample)", _Drawing(sources=_PYTHON)),
    (
        r"torch\.(rand|randn|randint|randperm|rand_like|randn_like|randint_like|normal|bernoulli|multinomial|poisson)",
        _Drawing(("generator",), None, _TORCH),
    ),
    (r"torch\.(dropout|feature_dropout|alpha_dropout|rrelu)_?", _Drawing(sources=_TORCH)),
    (r"torch\.nn\.functional\.(\w*dropout\w*|rrelu|gumbel_softmax)", _Drawing(sources=_TORCH)),
    (r"torch\.nn\.init\.(constant|ones|zeros|eye|dirac)_", None),
    (r"torch\.nn\.init\.\w+_", _Drawing(("generator",), None, _TORCH)),
    (
        rf"torch\.nn(\.\w+)*\.(Lazy)?({_LAYERS})",
        _Drawing(sources=_TORCH),
    ),
    (r"torch\.distributions(\.\w+)*\.r?sample(_n)?", _Drawing(sources=_TORCH)),
    (r"torch\.utils\.data(\.\w+)*\.(RandomSampler|random_split)", _Drawing(("generator",), 2, _TORCH)),
    (r"polars(\.\w+)*\.(sample|shuffle)", _Drawing(("seed",), None, frozenset({"polars"}))),
    (r"(lightgbm|xgboost|catboost)\..*", None),  # None is a fixed seed there
)
#: Methods, by name, of unknown objects: how they are seeded, and the most positional arguments; a
#: generator's `sample(population, k)` and `shuffle(x)` have more.
_METHODS: Final[dict[str, tuple[_Drawing, int]]] = {
    "sample": (_Drawing(("random_state", "seed"), None, _ANY), 1),
    "shuffle": (_Drawing(("random_state", "seed"), None, _ANY), 0),
    "rvs": (_Drawing(("random_state",), None, _NUMPY), 99),
    "rsample": (_Drawing(sources=_TORCH), 1),
    **dict.fromkeys(
        ("normal_", "uniform_", "random_", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_"),
        (_Drawing(("generator",), None, _TORCH), 99),
    ),
}
#: Parameters that seed, by name, with the generators that None selects.
_SEEDS: Final = {"random_state": _NUMPY, "seed": _ANY, "rng": frozenset[str](), "random_seed": _ANY}
#: A seed that is used only if another parameter has one of these values (None: any).
_ONLY_WITH: Final[dict[str, tuple[str, tuple[Any, ...] | None]]] = {
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), ("solver", ("sag", "saga", "liblinear"))),
    **dict.fromkeys(("Ridge", "RidgeClassifier", "ridge_regression"), ("solver", ("sag", "saga"))),
    **dict.fromkeys(
        (
            *("Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "MultiTaskLasso", "MultiTaskElasticNet"),
            *("MultiTaskLassoCV", "MultiTaskElasticNetCV"),
        ),
        ("selection", ("random",)),
    ),
    **dict.fromkeys(("SVC", "NuSVC"), ("probability", (True,))),
    "silhouette_score": ("sample_size", None),
    "betweenness_centrality": ("k", None),
}
#: Suffixes of names of functions that seed every generator.
_SEED_ALL: Final = frozenset({"seed_everything", "set_seed"})
_SEEDERS: Final = {
    "random.seed": _PYTHON,
    "random.setstate": _PYTHON,
    "numpy.random.seed": _NUMPY,
    "numpy.random.set_state": _NUMPY,
    "cupy.random.seed": frozenset({"cupy"}),
    "polars.set_random_seed": frozenset({"polars"}),
    **dict.fromkeys(("torch.manual_seed", "torch.random.manual_seed", "torch.set_rng_state"), _TORCH),
    "tensorflow.random.set_seed": _TENSORFLOW,
}

_registered: dict[str, _Drawing | None] = {}


def register_random(thing: Any, *, seed: str | None = None, draws: bool = True) -> None:
    """Declare that calls of a function or class draw random numbers.

    Args:
        thing: the function or class, or its dotted name, which imports nothing.
        seed: calls with this parameter draw nothing.
        draws: False declares that it draws nothing, whatever its code or its signature looks like; what it calls is
            then not checked.
    """
    path = thing if isinstance(thing, str) else path_of(thing)
    if not path or "." not in path:
        raise TypeError(f"{thing!r} is not a function or class, nor the dotted name of one")
    _registered[path] = _Drawing(() if seed is None else (seed,)) if draws else None
    for call in _on_new_rules:
        call()


#: Functions to call when a rule was registered, so that memos are cleared.
_on_new_rules: list[Callable[[], None]] = []


def when_registered(call: Callable[[], None]) -> None:
    """Register a function to be called each time that a rule is registered."""
    _on_new_rules.append(call)


def is_declared_innocent(thing: Any) -> bool:
    """Return True when this was registered as drawing nothing."""
    return bool(_registered) and _registered.get(path_of(thing), _ALWAYS) is None


def is_generator(thing: Any) -> bool:
    """Return True when this is a random number generator of Python, NumPy or a similar library."""
    kind = type(thing)
    if isinstance(thing, random.Random):
        return True
    return kind.__name__ in ("RandomState", "Generator") and kind.__module__.startswith(_MODULES)


#: Types of values that may be functions that draw.
LOOKED_AT: Final = frozenset({types.FunctionType, types.BuiltinFunctionType, types.MethodType})
_BOUND: Final = (types.BuiltinMethodType, types.MethodType)
_MODULES: Final = ("random", "numpy.random", "dask.array.random", "cupy.random", "torch")
_QUIET: Final = re.compile(r"seed|[gs]et_?state|__\w+__")


def name_of_process_wide(thing: Any) -> str:
    """Return the owner of a process-wide generator: "random" or "numpy"; "" for other objects."""
    return next(iter(_source_of(thing)), "") if is_generator(thing) else ""


def kept_in(value: Any) -> Draw | None:
    """Return what an object draws when used: a generator, or a library's estimator without a seed."""
    kind = type(value)
    if is_generator(value):
        if _source_of(value):
            return None  # libraries hold it; only its methods draw
        return Draw(f"{kind.__qualname__}, a generator kept outside of the function", kept=True)
    if not _may_be_unseeded(kind):
        return None
    options = getattr(value, "__dict__", {})
    if any(name.endswith("_") and not name.startswith("_") for name in options):
        return None  # it is fitted already
    keywords = {name: Constant(option) for name, option in options.items()}
    draw = drawn_by(CallInCode(Known(path_of(kind), kind), keywords=keywords))
    return None if draw is None else Draw(f"{kind.__qualname__}, an object without a seed", draw.sources, kept=True)


_unseeded_kinds: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def _may_be_unseeded(kind: type) -> bool:
    known = _unseeded_kinds.get(kind)
    if known is None:
        known = "random_state" in _parameters(kind) and owner_of_class(kind).kind == "library"
        _unseeded_kinds[kind] = known
    return known


def drawn_when_called(thing: Any) -> Draw | None:
    """Return what a function draws that was found as a value, and draws whenever it is called without a seed."""
    owner = getattr(thing, "__self__", None)
    if owner is not None and is_generator(owner):
        return None if _QUIET.match(getattr(thing, "__name__", "")) else Draw(_name(thing), _source_of(owner))
    rule = _rule_by_name(path_of(thing))
    return Draw(path_of(thing), rule.sources) if rule and not rule.names else None


def drawn_by(call: CallInCode) -> Draw | None:
    """Return what one call draws, by function and arguments. The user's functions are not judged here."""
    call = unfolded(call)
    callee = call.callee
    if isinstance(callee, Known):
        return _by_known(callee, call, 0)
    if isinstance(callee, Of):
        return _by_method(callee, call)
    return None


def seeded_by(call: CallInCode) -> tuple[frozenset[str], str] | None:
    """Return the process-wide generators that a call seeds, and the parameter that must not be None for that."""
    callee = call.callee
    path = _path(callee)
    sources = _SEEDERS.get(path)
    if sources is None and path.rpartition(".")[2] in _SEED_ALL:
        sources = _ANY
    if sources is None and isinstance(callee, Known) and isinstance(callee.value, _BOUND):
        owner = callee.value.__self__
        sets = callee.value.__name__ in ("seed", "setstate", "set_state")
        sources = _source_of(owner) if sets and is_generator(owner) else None
    if sources is None:
        return None
    given = call.args[0] if call.args else next(iter(call.keywords.values()), None)
    if given is None or (isinstance(given, Constant) and given.value is None):
        return None
    return sources, call.having or (given.name if isinstance(given, Given) and given.optional else "")


def _path(callee: Symbol) -> str:
    if isinstance(callee, Known):
        return callee.path
    if isinstance(callee, Of):
        return f".{callee.name}"
    return ""


def _source_of(generator: Any) -> frozenset[str]:
    """Return the name of a process-wide generator, nothing for other objects."""
    if generator is getattr(random.getstate, "__self__", None):
        return _PYTHON
    mtrand = sys.modules.get("numpy.random.mtrand")
    return _NUMPY if mtrand is not None and generator is vars(mtrand).get("_rand") else frozenset()


def _name(thing: Any) -> str:
    owner = getattr(thing, "__self__", None)
    module = next(iter(_source_of(owner)), type(owner).__name__) if owner is not None else ""
    module = "numpy.random" if module == "numpy" else module
    return f"{module}.{getattr(thing, '__name__', thing)}"


def _by_known(callee: Known, call: CallInCode, offset: int) -> Draw | None:
    value, path = callee.value, callee.path
    owner = value.__self__ if isinstance(value, _BOUND) else None
    if owner is not None and is_generator(owner):
        return None if _QUIET.match(value.__name__) else Draw(path or _name(value), _source_of(owner))
    for name in dict.fromkeys((path, path_of(value))):
        rule = _rule_by_name(name, ABSENT)
        if rule is not ABSENT:
            return rule and _judge(rule, call, path or name, offset)
    if value is ABSENT:
        return _by_method(Of(callee, path.rpartition(".")[2]), call) or _by_source(path, call)
    return _by_signature(value, call, path or path_of(value), offset)


def _rule_by_name(path: str, default: Any = None) -> Any:
    """Return the rule for a dotted name, None if it draws nothing, the default if it is unknown."""
    if path in _registered:
        return _registered[path]
    top = path.partition(".")[0]
    if top in _TOPS:
        for pattern, rule in _compiled_table():
            if pattern.match(path):
                return rule
    return default


@lru_cache(maxsize=1)
def _compiled_table() -> list[tuple[re.Pattern[str], _Drawing | None]]:
    """The table, compiled on first use: a process that makes no key of a function does not need it."""
    return [(re.compile(pattern + r"\Z"), rule) for pattern, rule in _TABLE]


_TOPS: Final = frozenset(
    {
        *("uuid", "os", "posix", "nt", "secrets", "random", "numpy", "cupy", "dask", "tensorflow", "torch"),
        *("lightgbm", "xgboost", "catboost", "polars"),
    }
)


def _judge(rule: _Drawing, call: CallInCode, what: str, offset: int = 0) -> Draw | None:
    draw = Draw(what, rule.sources, call.without)
    if _is(call.keywords.get("training"), False):
        return None
    if not rule.names:
        return draw
    position = None if rule.position is None else rule.position - offset
    found = [call.argument(name, position) for name in rule.names]
    given = next((symbol for symbol in found if symbol is not None), None)
    if given is None or _is(given, None):
        return draw
    return Draw(what, rule.sources, given.name) if isinstance(given, Given) else None


def _is(symbol: Symbol | None, value: Any) -> bool:
    return isinstance(symbol, Constant) and symbol.value is value


def _by_method(callee: Of, call: CallInCode) -> Draw | None:
    if callee.found is not None:
        found = callee.found
        if _is_users(found.value):
            return None
        owner = getattr(callee.owner, "value", None)
        if is_generator(owner):  # generators that are not process-wide are recorded where they are stored
            return Draw(f".{callee.name}", _source_of(owner), call.without) if _source_of(owner) else None
        draw = _by_known(found, call, 1)
        if draw is not None or found.path in _registered or _SEEDS.keys() & _parameters(found.value).keys():
            return draw
    if _makes_generator(callee.owner):
        return None
    rule, most = _METHODS.get(callee.name, (None, 0))
    if rule is None or len(call.args) > most or not call.keywords.keys().isdisjoint({"k", "counts"}):
        return None
    return _judge(rule, call, f".{callee.name}")


def _makes_generator(owner: Symbol) -> bool:
    """Return True when this is the result of a generator's class; that call is judged for its seed."""
    callee = getattr(getattr(owner, "call", None), "callee", None)
    rule = _rule_by_name(_path(callee)) if callee is not None else None
    return rule is not None and bool(rule.names)


def _is_users(value: Any) -> bool:
    if isinstance(value, types.FunctionType):
        return owner_of(value.__globals__.get("__name__")).kind == "user"
    return isinstance(value, type) and owner_of_class(value).kind == "user"


def of_call(draws: Iterable[Draw], arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which draws of a function a call does not seed, as text. Missing arguments are None."""
    left = [draw for draw in draws if not draw.unless or not _seeds(arguments.get(draw.unless))]
    return tuple(dict.fromkeys(f"unseeded randomness: {draw.what}" for draw in left))


def _seeds(value: Any) -> bool:
    return value is not None and value is not False


# by signature


def _by_signature(value: Any, call: CallInCode, what: str, offset: int) -> Draw | None:
    if _is_users(value):
        return None
    return _by_parameters(_parameters(value), call, what, offset)


def _by_source(path: str, call: CallInCode) -> Draw | None:
    """Return the same for a library that is not loaded, from its source text."""
    return _by_parameters(parameters_in_source(path), call, path, 0)


def _by_parameters(parameters: FunctionParameters, call: CallInCode, what: str, offset: int) -> Draw | None:
    """`parameters` in order, with their defaults where they have one."""
    if not parameters:
        return None
    if parameters.get("shuffle") is False and _left(call, parameters, offset, "shuffle", (True,)):
        return None
    if _is(call.keywords.get("shuffle"), False):
        return None
    only_with = _ONLY_WITH.get(what.rpartition(".")[2])
    if only_with is not None and _left(call, parameters, offset, *only_with):
        return None
    for place, (name, default) in enumerate(parameters.items()):
        if name in _SEEDS and default is None:
            position = place if place < parameters.positional else None
            return _judge(_Drawing((name,), position, _SEEDS[name]), call, what, offset)
    return None


def _left(
    call: CallInCode, parameters: FunctionParameters, offset: int, name: str, values: tuple[Any, ...] | None
) -> bool:
    """Return True when a parameter is not given, or has none of these values."""
    place = list(parameters).index(name) if name in parameters else parameters.positional
    given = call.argument(name, place - offset if place < parameters.positional else None)
    if given is None:
        return True
    return isinstance(given, Constant) and (given.value is None if values is None else given.value not in values)


def _parameters(value: Any) -> FunctionParameters:
    """Return the parameters of a function or class of Python code; none for others."""
    if isinstance(value, type):
        return _parameters_of_function(inspect.getattr_static(value, "__init__", None)).bound()
    return _parameters_of_function(value)


def _parameters_of_function(fn: Any) -> FunctionParameters:
    for _ in range(8):  # decorators
        if isinstance(fn, types.MethodType):
            fn = fn.__func__
        names = vars(fn) if isinstance(fn, types.FunctionType) else {}
        if isinstance(signature := names.get("__signature__"), inspect.Signature):
            return _of_signature(signature)
        if "__wrapped__" not in names:
            break
        fn = names["__wrapped__"]
    if not isinstance(fn, types.FunctionType):
        return FunctionParameters({}, 0)
    code, defaults = fn.__code__, defaults_of(fn)
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return FunctionParameters({name: defaults.get(name, ABSENT) for name in named}, code.co_argcount)


def _of_signature(signature: inspect.Signature) -> FunctionParameters:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = list(signature.parameters.values())
    named = sorted(found, key=lambda parameter: parameter.kind not in kinds)
    return FunctionParameters({p.name: _default(p) for p in named}, sum(p.kind in kinds for p in found))


def _default(parameter: inspect.Parameter) -> Any:
    return ABSENT if parameter.default is inspect.Parameter.empty else parameter.default
