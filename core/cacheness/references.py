"""References: results that count by their digest and are loaded only when needed.

A call with a reference has the same key as the call with its value. The digest in the entry
represents the value; if there is none, because code or files decide it, the value is loaded to make
the key. This applies where the body gets the value: for an argument or the default of a parameter,
and within exact lists, tuples and dictionaries. Anywhere else (in an attribute, a named tuple, a
global) the body gets the reference, and the key contains the reference: its key and its value.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeVar, cast

from cacheness.errors import CachenessError, NotCached
from cacheness.keys import Digest, Key, closed_digest
from cacheness.keys.encode import Encoder, handles
from cacheness.records import Hit

T_co = TypeVar("T_co", covariant=True)


class Holder(Protocol):
    """The methods of the result's cache that a reference needs."""

    config: Any

    @property
    def store_id(self) -> str:
        """Return the identity of the database."""
        ...

    @property
    def namespace(self) -> str:
        """Return the namespace of its results."""
        ...

    def peek(self, key: Key, /) -> Hit | None:
        """Return the result under a key, without counting a call."""
        ...

    def round_trip(self, value: Any) -> Any:
        """Return a value as it would come out of the cache."""
        ...

    def peek_earlier(self, key: Key, fingerprint: bytes, /, *, unread: bool = False) -> Hit | None:
        """Return the result of earlier code under a key, while it counts for the code of this fingerprint."""
        ...


#: The caches of this process, in which an unpickled reference finds its own.
caches: weakref.WeakSet[Any] = weakref.WeakSet()
#: Whether there has been a reference in this process: otherwise no call must search its arguments for one.
_made: list[bool] = []
_NOTHING: Any = object()
#: Where the body gets values in place of references.
_CONTAINERS: Final = frozenset({list, tuple, dict})


class Ref(Generic[T_co]):
    """A cached result that is loaded when it is first needed.

    `.value` is the result, `.arg` the argument for a cached function.

    `f.lazy(…)` creates it. It is pickled without the value and without secrets.

    Args:
        holder: opens the cache.
        key: 32 bytes: the key of the result.
        digest: 32 bytes: the digest of the value, if it is known.
        function: module:qualified name.
        again: computes the result when it is no longer stored.
        held: the value, if it is already in memory.
        stamp: the digest of the stored value; None if the result was not stored.
        earlier: if earlier code made the result: the fingerprint of today's code, and its key of the call.
        place: the ids of the database and of the namespace.
    """

    __slots__ = (
        *("_again", "_digest", "_earlier", "_free", "_function", "_holder", "_is_only_copy", "_key"),
        *("_namespace", "_stamp", "_store", "_taken"),
    )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name[:1] == "_":
                raise AttributeError(name)
            raise AttributeError(f"{self._sentence()}; a Ref has no attribute {name!r}")

    def __init__(
        self,
        holder: Holder | None,
        key: bytes,
        digest: bytes | None,
        function: str,
        *,
        again: Callable[[], T_co] | None = None,
        held: Any = _NOTHING,
        stamp: bytes | None = None,
        earlier: tuple[bytes, bytes] | None = None,
        place: tuple[str, str] = ("", ""),
    ) -> None:
        _made[:] = [True]
        self._holder, self._key, self._digest, self._function = holder, key, digest, function
        self._again = again
        self._is_only_copy = held is not _NOTHING and stamp is None  #: the result was not stored
        self._taken = held if self._is_only_copy else _NOTHING  #: the value that `value` has returned
        #: The stored value, which no other code has: a caller that takes it, by `pop`, may change it.
        self._free: list[Any] = [] if held is _NOTHING or self._is_only_copy else [held]
        self._stamp, self._earlier = stamp, earlier
        self._store, self._namespace = place

    @property
    def value(self) -> T_co:
        """The result, computed again if it no longer exists."""
        if self._taken is _NOTHING:
            self._taken = self.take()
        return cast("T_co", self._taken)

    @property
    def arg(self) -> T_co:
        """This reference with the type of the value, for a cached function."""
        return cast("T_co", self)

    @property
    def key(self) -> str:
        """Return the key of the result, as 64 hexadecimal digits."""
        return self._key.hex()

    @property
    def digest(self) -> bytes | None:
        """Return the digest that counts in keys, without loading the value.

        It is None if more than the value decides it.
        """
        return self._digest

    @property
    def label(self) -> str:
        """Return a short description of the result.

        It is stored in the row of an entry that was made from the result.
        """
        return f"result of {self._function or 'arguments'}, key {self.key[:12]}…"

    def __repr__(self) -> str:
        state = "loaded" if self._is_loaded() else "not loaded"
        by = "counts by its digest" if self._digest else "is loaded to be counted"
        return f"<Ref to a {self.label}, {state}, {by}>"

    def __reduce__(self) -> tuple[Any, ...]:
        more = {"stamp": self._stamp, "earlier": self._earlier}
        return (_restored, (self._place(), self._key, self._digest, self._function, more))

    def _place(self) -> tuple[str, str]:
        holder = self._holder
        return (self._store, self._namespace) if holder is None else (holder.store_id, holder.namespace)

    def digest_to_count(self) -> bytes | None:
        """Return the digest that counts for it; None if the value counts.

        For a result of earlier code, while the change is accepted: today's code decides it afterwards.
        """
        if self._earlier is not None and self._digest is not None and not self._is_loaded() and self._is_revoked():
            value = self._compute()
            self._digest = closed_digest(value)
            self.give_back(value)
        return self._digest

    def as_loaded(self) -> Any:
        """Return the value for the body of a function.

        It must be the value that counted in the key of the call.

        An entry that was replaced or deleted is computed again. Raises `Differs` if the value is still another one.
        """
        digest, value = self._digest, self.take()
        if self._digest != digest:  # from now on it counts by the value
            self.give_back(value)
            raise Differs
        return value

    def take(self) -> Any:
        """Return a copy of the stored value for this caller alone.

        A result that was not stored is one object for all callers.
        """
        if self._is_only_copy:
            return self._taken
        try:
            return self._free.pop()
        except IndexError:
            return self._load()

    def give_back(self, value: Any) -> None:
        """Keep a value that was taken out and not changed.

        Args:
            value: the value.
        """
        if not self._is_only_copy and not self._free:
            self._free.append(value)

    def _is_loaded(self) -> bool:
        return bool(self._free) or self._taken is not _NOTHING

    def _load(self) -> Any:
        hit = self._lookup()
        if hit is not None and self._digest in (None, hit.entry.value):
            if self._digest is None and self._store and self._stamp not in (None, hit.entry.digest):
                self._compute()  # raises, because another result counted in the process that made this
            self._stamp = hit.entry.digest
            return hit.value
        if self._holder is not None and self._taken is not _NOTHING and self._digest is not None:
            copy = self._holder.round_trip(self._taken)  # the entry is gone, and this is what `value` gave
            if closed_digest(copy, None) == self._digest:
                return copy
        value = self._compute()
        if self._digest is not None and closed_digest(value, None) != self._digest:
            self._digest = None
        return value

    def _lookup(self) -> Hit | None:
        if self._holder is None:
            self._holder = self._found()
        try:
            if self._earlier is not None:
                return self._holder.peek_earlier(Key(self._key), self._earlier[0])
            return self._holder.peek(Key(self._key))
        except CachenessError:
            if self._again is None or self._holder.config.on_error == "raise":
                raise
            return None  # a cache that does not answer must not fail the call: it is computed again

    def _is_revoked(self) -> bool:
        if self._holder is None:
            self._holder = self._found()
        fingerprint = b"" if self._earlier is None else self._earlier[0]
        try:
            return self._holder.peek_earlier(Key(self._key), fingerprint, unread=True) is None
        except CachenessError:
            return False  # what is loaded for the body is read again

    def _compute(self) -> Any:
        if self._again is None:
            raise NotCached(
                f"the result of {self._function or 'these arguments'} that a Ref names is not in the cache any more"
                f" (key {self.key}), and this process cannot compute it: make the Ref here, by calling .lazy(…)"
            )
        if self._earlier is not None:
            self._key, self._earlier = self._earlier[1], None
        self._stamp = None
        return self._again()

    def _is_of(self, cache: Any) -> bool:
        try:
            return bool(cache.store_id == self._store)
        except CachenessError:  # a cache that does not answer has no result either; another may have it
            return False

    def _found(self) -> Holder:
        for cache in _open_caches():
            if cache.namespace == self._namespace and cache.is_open and self._is_of(cache):
                return cast("Holder", cache)
        raise NotCached(
            f"the Ref to a result of {self._function or 'arguments'} belongs to a cache that is not open in this"
            f" process (namespace {self._namespace!r}): open it first"
        )

    def _sentence(self) -> str:
        return f"this is a Ref to a result of {self._function or 'arguments'}, and not the result: take its .value"

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(self._sentence())

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


class _Unloadable(CachenessError):
    """The value of a reference in a key cannot be loaded; its cause has the reason."""


def _restored(place: tuple[str, str], key: bytes, digest: bytes | None, function: str, more: Any) -> Ref[Any]:
    return Ref(None, key, digest, function, place=place, **more)


class _Met(threading.local):
    """The references and values that this thread has handled while it makes a key."""

    count = 0  #: references that it has encoded as such

    def __init__(self) -> None:
        self.borrowed: list[tuple[Ref[Any], Any]] = []  #: the values that it has borrowed, until the key is made


_met = _Met()


def _borrowed(ref: Ref[Any]) -> Any:
    value = ref.take()
    _met.borrowed.append((ref, value))
    return value


@handles(Ref)
def _ref(encoder: Encoder, value: Ref[Any]) -> None:
    # Where the body gets the value, `counted` has inserted it before.
    _met.count += 1
    try:
        borrowed = value.take()
    except Exception as error:
        raise _Unloadable(f"{value!r} counts, and cannot be loaded: {type(error).__name__}: {error}") from error
    try:
        encoder.tagged("Ref", value.label, value.key, borrowed)
    finally:
        value.give_back(borrowed)


def key_of_values(arguments: dict[str, Any], make: Callable[[dict[str, Any]], Key]) -> Key:
    """Make a key from arguments, in which references count as their values.

    Args:
        arguments: the arguments, by name.
        make: makes the key.
    """
    if not _made:
        return make(arguments)
    outer, _met.borrowed = _met.borrowed, []
    try:
        return _key_of_values(arguments, make)
    except _Unloadable as failure:
        raise (failure.__cause__ or failure) from None
    finally:
        for ref, value in _met.borrowed:
            ref.give_back(value)
        _met.borrowed = outer


def _key_of_values(arguments: dict[str, Any], make: Callable[[dict[str, Any]], Key]) -> Key:
    given = {name: _counted(value) for name, value in arguments.items()}
    before = _met.count
    key = make(given)
    if _met.count == before:
        return key
    # There are some inside: searching for them each time would cost another pass.
    unwrapper = _Unwrapper(_borrowed)
    values = {name: unwrapper.of(value) for name, value in given.items()}
    return key if all(values[name] is part for name, part in given.items()) else make(values)


def _counted(value: Any) -> Any:
    if type(value) is not Ref:
        return value
    digest = value.digest_to_count()
    return _borrowed(value) if digest is None else Digest(digest, value.label)


def loaded(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any], bool]:
    """Return arguments with each reference in exact lists, tuples and dictionaries replaced by its result.

    Containers without one stay the same objects.

    Args:
        args: the arguments by place.
        kwargs: the arguments by name.

    Returns:
        The arguments, and whether one is a value that no digest proves to be the one that counted.
    """
    if not _made:
        return args, kwargs, False
    unsure: list[bool] = []

    def value_of(ref: Ref[Any]) -> Any:
        unsure.extend([True] if ref.digest is None else [])
        return ref.as_loaded()

    unwrapper = _Unwrapper(value_of)
    return unwrapper.of(args), unwrapper.of(dict(kwargs)), bool(unsure)


def resolved(value: Any) -> Any:
    """Return a result as it is stored and returned: with values in place of references, as `loaded` inserts them.

    An entry that names another would be lost with it.
    """
    return _Unwrapper(lambda ref: ref.value).of(value) if _made else value


def has_reference(value: Any) -> bool:
    """Return True when a result is a reference, or contains one where `resolved` searches.

    Args:
        value: the result.
    """
    return bool(_made) and _Unwrapper(lambda _: None).of(value) is not value


_LOOKED_INTO: Final = _CONTAINERS | {Ref}


class _Unwrapper:
    def __init__(self, value_of: Callable[[Ref[Any]], Any]) -> None:
        self._value_of = value_of
        self._above: set[int] = set()
        self._values: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        kind = type(value)
        if kind is Ref:
            if id(value) not in self._values:
                self._values[id(value)] = self._value_of(value)
            return self._values[id(value)]
        if kind not in _CONTAINERS or id(value) in self._above:
            return value
        if _LOOKED_INTO.isdisjoint(map(type, value.values() if kind is dict else value)):
            return value  # a fast answer for a million numbers
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
