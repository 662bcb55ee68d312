"""Terms of literals and functions: a task's parts that are not other tasks."""

from __future__ import annotations

import types
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from blake3 import blake3
from dask._task_spec import (
    GraphNode,
    TaskRef,
)

from cacheness import CachenessError
from cacheness.incomplete import quote
from cacheness.isolation import isolated
from cacheness.keys import Chance, Inputs, digest_of, encode, fingerprint
from cacheness.keys.encode import Encoder
from cacheness.keys.error_paths import WAYS_OUT, deciding
from cacheness.keys.inputs import MOST_STRINGS, paths_in
from cacheness.keys.owners import owner_of_class
from cacheness_dask.bound import is_partial, keywords_that_decide
from cacheness_dask.chance import draws_by_itself
from cacheness_dask.columns import names_in
from cacheness_dask.encoding import NAMED_FILE, RESULT, SCALARS, NotCacheable, container, text
from cacheness_dask.prints import Names
from cacheness_dask.sources_and_sinks import (
    identity_of_source,
    note_file,
    noted,
    refuse_function,
)

#: What a user can do about an argument without an encoding: no function is decorated here, and no key is given.
_WAYS_OUT: Final = (
    "Define what counts of its type (cacheness_dask.register_source(type, identity) or a __cacheness_key__ method), or"
    " make it inside of the task"
)


class Terms:
    """Makes the terms of one graph's values. Literals and functions are hashed once, by identity."""

    def __init__(self, shuffles: Collection[str], refuse_incomplete: bool, instead: Mapping[bytes, bytes]) -> None:
        self._shuffles = shuffles  #: names that are made of tokens, so they must not be part of a fingerprint
        self._refuse_incomplete = refuse_incomplete
        self._instead = instead
        #: Those that occurred, by their digests.
        self._code_of: dict[bytes, types.FunctionType] = {}
        self._functions: dict[int, tuple[Any, bytes | NotCacheable, Inputs]] = {}
        self._literals: dict[int, tuple[Any, bytes, Inputs]] = {}
        self._strings: dict[str, tuple[bytes, Inputs]] = {}  # those that may name files
        self._bound: dict[int, list[bytes]] = {}  # terms of the code and of bound arguments, of partials and methods
        self._chances: dict[int, Chance] = {}  # of functions that draw unless they are seeded
        self._kinds: dict[type, str] = {}  # why a task with such an argument is refused: it may call any method
        self._gaps: dict[int, tuple[str, ...]] = {}  # what is not visible of a function or literal
        self._begin_node()

    def _begin_node(self) -> None:
        """Forget what was found in the last node."""
        self._inputs = Inputs()  # files that count
        self._groups: list[Names] = []  # those of them that count together
        self._text: Names = frozenset()  # those that count by their names
        self._unseen: list[str] = []  # what is not visible
        self._left = MOST_STRINGS  # strings of the current argument that may still be checked

    @abstractmethod
    def _reference(self, key: Any, scope: Mapping[Any, bytes]) -> bytes:
        """Return the term of another node."""

    @abstractmethod
    def _node(self, node: GraphNode, scope: Mapping[Any, bytes]) -> bytes:
        """Return the term of a node inside of a value."""

    # values

    def _term(self, value: Any, scope: Mapping[Any, bytes]) -> bytes:
        kind = type(value)
        scalar = SCALARS.get(kind)
        if scalar is not None:
            return scalar(value)
        if kind is str:
            return self._string(value)
        if kind is list or kind is tuple or kind is set or kind is frozenset:
            return self._members(kind, value, scope)
        if kind is dict:
            # In order: a function may depend on it, as pandas.DataFrame does.
            parts = [
                part for name, kept in value.items() for part in (self._word(name, scope), self._term(kept, scope))
            ]
            return container(b"dict", parts)
        return self._other(value, scope)

    def _other(self, value: Any, scope: Mapping[Any, bytes]) -> bytes:
        if isinstance(value, TaskRef):  # a distributed Future is one
            return self._reference(value.key, scope)
        if isinstance(value, GraphNode):
            return self._node(value, scope)
        known = self._literals.get(id(value))
        if known is not None and not self._text.isdisjoint(known[2].found):
            return self._literal(value)
        if known is None:
            with self._apart() as inputs:
                known = self._literals[id(value)] = (value, self._literal(value), inputs)
        self._take(known[2])
        if self._gaps:
            self._note_gaps(value)
        return known[1]

    def _take(self, inputs: Inputs) -> None:
        """Record the files of a part."""
        if inputs:
            self._inputs.merge(inputs)
            if inputs.found:
                self._groups.append(frozenset(inputs.found))

    @contextmanager
    def _apart(self) -> Iterator[Inputs]:
        """Record files separately, if the object with them occurs again."""
        outer, self._inputs, left, self._left = self._inputs, Inputs(), self._left, MOST_STRINGS
        token = noted.set(self._inputs)
        try:
            yield self._inputs
            for counted in self._inputs.found.values():
                if counted.path and not counted.is_folder:
                    note_file(counted.path)
        finally:
            noted.reset(token)
            self._inputs, self._left = outer, left

    def _literal(self, value: Any) -> bytes:
        if callable(value) and not isinstance(value, type):
            return self._function(value)
        source = identity_of_source(value)
        if source is not None:
            return container(b"source", [b"v" + digest(source)])
        if type(value) not in self._kinds:
            users = owner_of_class(type(value)).kind == "user"
            self._kinds[type(value)] = next(iter(Chance(type(value)).always), "") if users else ""
        if reason := self._kinds[type(value)] or draws_by_itself(value):
            raise NotCacheable(reason)
        term = b"v" + self._digest(value)
        named = [term for term in map(self._string, names_in(value)) if term[0] == NAMED_FILE]
        return container(b"names", [term, *named]) if named else term

    def _word(self, value: Any, scope: Mapping[Any, bytes]) -> bytes:
        """Return the term of a dictionary's key, which names no file."""
        return b"s" + text(value) if type(value) is str else self._term(value, scope)

    def _string(self, value: str) -> bytes:
        if value in self._shuffles:
            return b"S"
        self._left -= 1
        if value in self._text or self._left < 0 or not paths_in(value):
            return b"s" + text(value)
        known = self._strings.get(value)
        if known is None:
            with self._apart() as inputs:
                encoder = Encoder(inputs)
                is_named = inputs.add_name(encoder, value)
            counted = inputs.found.get(value)
            term = b"s" + text(value)
            if counted is not None:
                term = b"p" + text(value) + counted.encoding
            elif is_named:  # a pattern, and its matches
                term = b"p" + text(value) + blake3(encoder.out).digest()
            known = self._strings[value] = (term, inputs)
        if known[1].found and self._text.issuperset(known[1].found):
            return b"s" + text(value)
        self._take(known[1])
        return known[0]

    def _members(self, kind: Callable[..., Any], values: Iterable[Any], scope: Mapping[Any, bytes]) -> bytes:
        terms = [
            term
            if type(value) is TaskRef and (term := scope.get(value.key)) is not None and term[0] == RESULT
            else self._term(value, scope)
            for value in values
        ]
        if kind is set or kind is frozenset:
            terms.sort()
        elif kind is not list and kind is not tuple:
            terms.append(self._function(kind))
        return container(getattr(kind, "__name__", "members").encode(), terms)

    # functions

    def _function(self, func: Any) -> bytes:
        known = self._functions.get(id(func))
        if known is not None and not self._text.isdisjoint(known[2].found):
            return self._callable(func)
        if known is None:
            with self._apart() as inputs:
                try:
                    known = (func, self._callable(func), inputs)
                except NotCacheable as refusal:
                    known = (func, refusal, inputs)
            self._functions[id(func)] = known
        self._take(known[2])
        if self._gaps:
            self._note_gaps(func)
        if isinstance(known[1], NotCacheable):
            raise NotCacheable(*known[1].args)
        return known[1]

    def _callable(self, func: Any) -> bytes:
        reason = refuse_function(func)
        if reason:
            raise NotCacheable(reason)
        if is_partial(func):
            return self._partial(func)
        self._look_for_chance(func)
        if isinstance(func, types.FunctionType):
            _refuse_coroutine(func)
            return b"v" + self._code(func)
        if isinstance(func, types.MethodType) and not isinstance(func.__self__, type):
            held, code = self._term(func.__self__, {}), self._function(func.__func__)
            self._note_bound(func, [code, held])
            return container(b"method", [held, code])
        if type(func).__name__ == "Compose":  # toolz
            return container(b"compose", [self._term(part, {}) for part in (func.first, *func.funcs)])
        source = identity_of_source(func)
        if source is not None:
            return container(b"source", [b"v" + digest(source)])
        return self._decorated(func) or b"v" + self._digest(func)

    def _decorated(self, func: Any) -> bytes:
        """Return the term of a cached function, if earlier code counts instead of its code; otherwise b""."""
        inner = getattr(func, "__wrapped__", None)
        if not isinstance(inner, types.FunctionType) or not type(func).__module__.startswith("cacheness."):
            return b""
        found = fingerprint(func).digest
        self._code_of[found] = inner
        earlier = self._instead.get(found)
        return b"" if earlier is None else b"v" + blake3(encode(func).replace(found, earlier)).digest()

    def _partial(self, func: Any) -> bytes:
        code, keywords = self._term(func.func, {}), keywords_that_decide(func)
        args = [self._term(value, {}) for value in func.args]
        pairs = [term for name, value in keywords.items() for term in (self._word(name, {}), self._term(value, {}))]
        self._note_bound(func, [code, *args, *pairs[1::2]])
        return container(b"partial", [code, container(b"tuple", args), container(b"dict", pairs)])

    def _note_bound(self, func: Any, terms: list[bytes]) -> None:
        if not self._text:
            self._bound[id(func)] = terms

    def _digest(self, value: Any) -> bytes:
        unfollowed: list[str] = []
        found = digest(value, Inputs(as_text=True) if self._text else self._inputs, unfollowed)
        self._keep_gaps(value, deciding(unfollowed))
        return found

    def _code(self, func: types.FunctionType) -> bytes:
        with isolated(_refuse):
            found = fingerprint(func)
            self._keep_gaps(func, found.incomplete)
            self._code_of[found.digest] = func
            return self._instead.get(found.digest, found.digest)
        raise AssertionError("refusing raises")  # pragma: no cover

    def _keep_gaps(self, thing: Any, unseen: tuple[str, ...]) -> None:
        if unseen and self._refuse_incomplete:
            raise NotCacheable(f"its key is incomplete: {quote(unseen)}")
        if unseen:
            self._gaps[id(thing)] = unseen

    def _note_gaps(self, thing: Any) -> None:
        self._unseen += self._gaps.get(id(thing), ())

    def _look_for_chance(self, func: Any) -> None:
        chance = Chance(func)
        if chance.always:
            raise NotCacheable(chance.always[0])
        if chance.depends:
            self._chances[id(func)] = chance


def digest(value: Any, inputs: Inputs | None = None, unfollowed: list[str] | None = None) -> bytes:
    """Return the core's digest of a value; raise NotCacheable if it has none."""
    with isolated(_refuse):
        return digest_of(value, inputs=inputs, unfollowed=unfollowed)
    raise AssertionError("refusing raises")  # pragma: no cover


def _refuse(error: Exception) -> None:
    what = str(error) if isinstance(error, CachenessError) else f"{type(error).__name__}: {error}"
    if what.endswith(WAYS_OUT):
        what = what.removesuffix(WAYS_OUT) + _WAYS_OUT
    raise NotCacheable(f"argument cannot be hashed: {what}") from error


def _refuse_coroutine(func: types.FunctionType) -> None:
    if func.__code__.co_flags & (0x80 | 0x200):  # CO_COROUTINE, CO_ASYNC_GENERATOR
        raise NotCacheable(f"{func.__qualname__} is a coroutine function")
