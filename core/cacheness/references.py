"""References: results that count by their digest and are loaded only when somebody looks.

A call with a reference has the key of the call with its value. The digest that the entry keeps stands for the
value; where there is none, because code or files decide it, the value is loaded to be counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, NoReturn, Protocol, TypeVar, cast

from cacheness.errors import CachenessError, NotCached
from cacheness.keys import Digest, Key, closed_digest
from cacheness.keys.encode import Encoder, handles
from cacheness.records import Hit

T_co = TypeVar("T_co", covariant=True)


class Holder(Protocol):
    """What a reference asks of the cache that has its result."""

    @property
    def store_id(self) -> str:
        """Which database this is."""
        ...

    @property
    def namespace(self) -> str:
        """Under which name it keeps results."""
        ...

    def peek(self, key: Key, /) -> Hit | None:
        """The result under a key, which is not counted as a call."""
        ...


#: The caches of this process, among which an unpickled reference finds its own.
caches: weakref.WeakSet[Any] = weakref.WeakSet()
#: Whether there has been a reference in this process: else no call has to look for one among its arguments.
_made: list[bool] = []
_NOTHING: Any = object()


class Ref(Generic[T_co]):
    """A cached result that is not loaded yet: `.value` is the result, `.arg` what one passes on to a cached function.

    `f.lazy(…)` makes it. It pickles without the value and without any secret.

    Args:
        holder: what opens the cache.
        key: 32 bytes: the key of the result.
        digest: 32 bytes: the digest of the value, where it is known.
        function: module:qualified name.
        again: computes the result when it is no longer stored.
        held: the value, where it is already in memory.
        place: the ids of the database and of the namespace.
    """

    __slots__ = ("_again", "_digest", "_function", "_held", "_holder", "_is_lent", "_key", "_namespace", "_store")

    def __init__(
        self,
        holder: Holder | None,
        key: bytes,
        digest: bytes | None,
        function: str,
        *,
        again: Callable[[], T_co] | None = None,
        held: Any = _NOTHING,
        place: tuple[str, str] = ("", ""),
    ) -> None:
        _made[:] = [True]
        self._holder, self._key, self._digest, self._function = holder, key, digest, function
        self._again, self._held = again, held
        self._is_lent = False  #: what is held was given to the body of a function
        self._store, self._namespace = place

    @property
    def value(self) -> T_co:
        """The result: read when it is first asked for, computed again where it is not there any more."""
        is_changed = self._is_lent and self._digest is not None and closed_digest(self._held, None) != self._digest
        if self._held is _NOTHING or is_changed:
            self._held, self._is_lent = self._load(), False
        return cast("T_co", self._held)

    @property
    def arg(self) -> T_co:
        """This reference, for a type checker a value: what a cached function takes in place of the value."""
        return cast("T_co", self)

    @property
    def key(self) -> str:
        """The key of the result, as 64 hexadecimal digits."""
        return self._key.hex()

    @property
    def digest(self) -> bytes | None:
        """By which it counts without being loaded; None where something else than the value decides it."""
        return self._digest

    @property
    def label(self) -> str:
        """What it refers to, in a few words; kept in the row of an entry that was made from it."""
        return f"result of {self._function or 'arguments'}, key {self.key[:12]}…"

    def __repr__(self) -> str:
        state = "not loaded" if self._held is _NOTHING else "loaded"
        by = "counts by its digest" if self._digest else "is loaded to be counted"
        return f"<Ref to a {self.label}, {state}, {by}>"

    def __reduce__(self) -> tuple[Any, ...]:
        store, namespace = self._place()
        return (_restored, (store, namespace, self._key, self._digest, self._function))

    def _place(self) -> tuple[str, str]:
        holder = self._holder
        return (self._store, self._namespace) if holder is None else (holder.store_id, holder.namespace)

    def as_loaded(self) -> Any:
        """The value for the body of a function, which must be the one that counted in the call's key.

        An entry that is another by now is computed again, and so is one that is gone. `Differs` when the value is
        another one still.
        """
        if self._digest is None:
            return self.value
        # What is held may have been changed in place since, by the code that took it, and the body may change it.
        if self._held is not _NOTHING and closed_digest(self._held, None) == self._digest:
            self._is_lent = True
            return self._held
        hit = self._lookup()
        if hit is not None and hit.entry.value == self._digest:
            return hit.value  # not held: the body may change it in place
        self._held, self._is_lent = self._compute(), True
        if closed_digest(self._held, None) != self._digest:
            self._digest = None  # from now on it counts by the value
            raise Differs
        return self._held

    def as_counted(self) -> Any:
        """The value for a key. What is held may have been changed in place since, by the code that took it."""
        if self._digest is None:
            return self.value
        if self._held is not _NOTHING and closed_digest(self._held, None) == self._digest:
            return self._held
        self._held, self._is_lent = self._load(), False
        return self._held

    def _load(self) -> Any:
        hit = self._lookup()
        if hit is not None and self._digest in (None, hit.entry.value):
            return hit.value
        value = self._compute()
        if self._digest is not None and closed_digest(value, None) != self._digest:
            self._digest = None
        return value

    def _lookup(self) -> Hit | None:
        if self._holder is None:
            self._holder = self._found()
        return self._holder.peek(Key(self._key))

    def _compute(self) -> Any:
        if self._again is None:
            raise NotCached(
                f"the result of {self._function or 'these arguments'} that a Ref names is not in the cache any more"
                f" (key {self.key}), and this process cannot compute it: make the Ref here, by calling .lazy(…)"
            )
        return self._again()

    def _is_of(self, cache: Any) -> bool:
        try:
            return bool(cache.store_id == self._store)
        except CachenessError:  # who does not answer has nothing to give either; another may be the one
            return False

    def _found(self) -> Holder:
        for cache in _open_caches():
            if cache.namespace == self._namespace and cache.is_open and self._is_of(cache):
                return cast("Holder", cache)
        raise NotCached(
            f"the Ref to a result of {self._function or 'arguments'} belongs to a cache that is not open in this"
            f" process (namespace {self._namespace!r}): open it first"
        )

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(
            f"this is a Ref to a result of {self._function or 'arguments'}, and not the result: take its .value"
        )

    __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __call__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __matmul__ = __rmatmul__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = _refuse
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __neg__ = __pos__ = __abs__ = __invert__ = _refuse
    __int__ = __float__ = __complex__ = __index__ = __bytes__ = __round__ = _refuse
    __array__ = _refuse


def _open_caches() -> list[Any]:
    while True:
        try:
            return list(caches)
        except RuntimeError:  # another thread opened one at the same time
            continue


class Differs(Exception):
    """The value of a reference is not the one by which it counted."""


def _restored(store: str, namespace: str, key: bytes, digest: bytes | None, function: str) -> Ref[Any]:
    return Ref(None, key, digest, function, place=(store, namespace))


@handles(Ref)
def _ref(encoder: Encoder, value: Ref[Any]) -> None:
    encoder.add(value.as_counted())  # within a container, only the value gives the bytes that it has there


def by_digest(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as they count: a reference by its digest, where it has one."""
    return {name: _counted(value) for name, value in arguments.items()} if _made else arguments


def _counted(value: Any) -> Any:
    if type(value) is not Ref:
        return value
    digest = value.digest
    return value.value if digest is None else Digest(digest, value.label)


def loaded(value: Any) -> Any:
    """The value with each reference in exact lists, tuples and dictionaries replaced by what it refers to.

    Containers without one stay the same objects.
    """
    if not _made:
        return value
    return _Unwrapper().of(value)


class _Unwrapper:
    def __init__(self) -> None:
        self._above: set[int] = set()

    def of(self, value: Any) -> Any:
        kind = type(value)
        if kind is Ref:
            return value.as_loaded()
        if kind not in (list, tuple, dict) or id(value) in self._above:
            return value
        self._above.add(id(value))
        try:
            if kind is dict:
                found = {name: self.of(part) for name, part in value.items()}
                is_same = all(found[name] is part for name, part in value.items())
                return value if is_same else found
            parts = [self.of(part) for part in value]
            is_same = all(one is other for one, other in zip(parts, value, strict=True))
            return value if is_same else kind(parts)
        finally:
            self._above.discard(id(value))
