"""Values count by all that can be seen of them: attributes beside the fields, slots, causes, hidden parts."""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import decimal
import enum
import io
import itertools
import pathlib
import types
import uuid
import zipfile
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import attrs
import pytest

from cacheness import UnhashableArgument
from cacheness.keys import decode, digest_of, encode


def with_attributes(value: Any, **attributes: Any) -> Any:
    for name, part in attributes.items():
        object.__setattr__(value, name, part)
    return value


class Day(dt.date):
    pass


class Moment(dt.datetime):
    __slots__ = ("source",)


class Price(decimal.Decimal):
    pass


class Table(collections.defaultdict):  # type: ignore[type-arg]
    pass


class Tally(collections.Counter):  # type: ignore[type-arg]
    pass


class Members(set):  # type: ignore[type-arg]
    __slots__ = ("__owner",)

    def own(self, owner: str) -> Members:
        self.__owner = owner
        return self


class Name(str):
    __slots__ = ("language",)


class Identity(uuid.UUID):
    pass


@attrs.define
class Slotted:
    x: int = 1


class BeyondSlots(Slotted):
    pass


@attrs.frozen(cache_hash=True)
class Hashed:
    x: str = "a"


class BeyondHashed(Hashed):
    pass


@dataclass(frozen=True, slots=True)
class Frozen:
    x: int = 1


class BeyondFrozen(Frozen):
    __slots__ = ("extra",)


class Space(types.SimpleNamespace):
    __slots__ = ("extra",)


class Given:
    """Says through pickle what it is made of."""

    __slots__ = ("x",)

    def __init__(self, x: int) -> None:
        self.x = x

    def __reduce__(self) -> Any:
        return (type(self), (self.x,))


class BeyondGiven(Given):
    pass


class Planet(enum.Enum):
    EARTH = 3


class Trouble(Exception):
    __slots__ = ("code",)


MAKERS: list[Callable[[], Any]] = [
    lambda: Day(2020, 1, 1),
    lambda: Moment(2020, 1, 1),
    lambda: Price("1.0"),
    lambda: Table(int, a=1),
    lambda: Tally("ab"),
    lambda: collections.Counter("ab"),
    lambda: collections.OrderedDict(a=1),
    lambda: Name("a"),
    lambda: Slotted.__new__(BeyondSlots),
    BeyondSlots,
    BeyondHashed,
    BeyondFrozen,
    lambda: Space(x=1),
    lambda: BeyondGiven(1),
    lambda: Trouble("x"),
    lambda: ValueError("x"),
    lambda: with_attributes(KeyError("a"), note=1),
    lambda: Identity(int=1),
]
ATTRIBUTES = ["source", "language", "extra", "code"]


@pytest.mark.parametrize("make", MAKERS)
def test_attributes_beside_what_an_object_is_made_of_count(make: Callable[[], Any]) -> None:
    def given(part: Any) -> Any:
        value = make()
        names = [
            name for name in ATTRIBUTES if isinstance(getattr(type(value), name, None), types.MemberDescriptorType)
        ]
        return with_attributes(value, **{(names or ["beside"])[0]: part})

    assert encode(given(1)) == encode(given(1))
    assert len({encode(make()), encode(given(1)), encode(given(2)), encode(given([1]))}) == 4


def test_private_slots_count() -> None:
    assert encode(Members("ab").own("x")) == encode(Members("ba").own("x")) != encode(Members("ab").own("y"))


def test_a_hash_that_an_object_remembers_does_not_count() -> None:
    used = BeyondHashed()
    hash(used)
    assert encode(used) == encode(BeyondHashed())


def test_what_a_member_of_an_enum_was_given_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = encode(Planet.EARTH)
    monkeypatch.setattr(Planet.EARTH, "mass", 6, raising=False)
    heavy = encode(Planet.EARTH)
    monkeypatch.setattr(Planet.EARTH, "mass", 7)
    assert len({before, heavy, encode(Planet.EARTH)}) == 3


def raised(error: Exception, within: Exception | None = None, **options: Any) -> Exception:
    """An exception that was raised, perhaps while another was handled."""
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_handling(within))
            raise_it(error, **options)
    except Exception as caught:  # noqa: BLE001 - whatever it is, it was asked for
        return caught
    raise AssertionError


def raise_it(error: Exception, **options: Any) -> None:
    if options:
        raise error from options["cause"]
    raise error


@contextlib.contextmanager
def _handling(error: Exception | None) -> Iterator[None]:
    if error is None:
        yield
        return
    try:
        raise_it(error)
    except type(error):
        yield


def noted(error: Exception, *notes: str) -> Exception:
    for note in notes:
        error.add_note(note)
    return error


ERRORS: list[Callable[[], Exception]] = [
    lambda: ValueError("a"),
    lambda: raised(ValueError("a"), KeyError("k")),
    lambda: raised(ValueError("a"), KeyError("l")),
    lambda: raised(ValueError("a"), KeyError("k"), cause=None),
    lambda: raised(ValueError("a"), KeyError("k"), cause=OSError(1, "x")),
    lambda: noted(ValueError("a"), "n"),
    lambda: noted(ValueError("a"), "n", "m"),
    lambda: OSError(2, "gone"),
    lambda: OSError(2, "gone", "one.txt"),
    lambda: OSError(2, "gone", "one.txt", None, "two.txt"),
    lambda: ImportError("x", name="a"),
    lambda: ImportError("x", name="b"),
    lambda: AttributeError("x", name="a", obj=1),
    lambda: AttributeError("x", name="a", obj=2),
    lambda: SyntaxError("x", ("f.py", 1, 2, "text")),
    lambda: with_attributes(SyntaxError("x", ("f.py", 1, 2, "text")), lineno=5),
    lambda: UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"),
    lambda: with_attributes(UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"), reason="worse"),
    lambda: ExceptionGroup("g", [ValueError(1)]),
    lambda: ExceptionGroup("g", [raised(ValueError(1), KeyError())]),
]


def test_exceptions_count_by_what_led_to_them_and_not_by_where() -> None:
    digests = [digest_of(make()) for make in ERRORS]
    assert len(set(digests)) == len(ERRORS)
    assert [digest_of(make()) for make in ERRORS] == digests
    here, there = raised(ValueError("a")), raised(raised(ValueError("a")))
    assert digest_of(here) == digest_of(there) == digests[0]


def test_an_exception_that_is_its_own_context_is_encoded() -> None:
    error = ValueError("a")
    error.__context__ = cause = KeyError("b")
    cause.__context__ = error
    assert len(encode(error)) < 1000


HIDDEN: list[Any] = [
    dt.timezone(dt.timedelta(hours=1)),
    dt.timezone(dt.timedelta(hours=1), "UTC+01:00"),
    dt.timezone(dt.timedelta(hours=1), "X"),
    dt.timezone(dt.timedelta(hours=2), "X"),
    uuid.UUID(int=5),
    uuid.UUID(int=5, is_safe=uuid.SafeUUID.safe),
    uuid.UUID(int=5, is_safe=uuid.SafeUUID.unsafe),
    types.MappingProxyType({1: 2}),
    types.MappingProxyType(collections.OrderedDict({1: 2})),
    types.MappingProxyType(collections.Counter({1: 2})),
    memoryview(b"abcd"),
    memoryview(bytearray(b"abcd")),
    memoryview(b"abcd").cast("b"),
    memoryview(b"abcd").cast("H"),
    memoryview(b"abcd").cast("B", (2, 2)),
    memoryview(b"ad"),
    memoryview(b"abcd")[::3].toreadonly(),
    dt.time(1, fold=1),
    dt.time(1),
]


def test_what_is_easily_overlooked_counts() -> None:
    encodings = [encode(value) for value in HIDDEN]
    same = [(a, b) for a, b in itertools.combinations(range(len(HIDDEN)), 2) if encodings[a] == encodings[b]]
    # A view that skips is laid out otherwise, and says the same.
    assert same == [(15, 16)]


@pytest.mark.parametrize("value", [value for value in HIDDEN if isinstance(value, (dt.timezone, uuid.UUID))])
def test_what_is_easily_overlooked_comes_back(value: Any) -> None:
    copy = decode(encode(value))
    assert repr(copy) == repr(value)
    assert getattr(copy, "is_safe", None) == getattr(value, "is_safe", None)


def test_a_setting_of_the_decimal_context_changes_no_key() -> None:
    before = encode(decimal.Decimal("1E+40"))
    with decimal.localcontext() as context:
        context.capitals = 0
        assert encode(decimal.Decimal("1E+40")) == before


def test_rows_whose_class_a_library_made_count_by_their_fields() -> None:
    import pandas as pd

    def row(**fields: int) -> Any:
        return next(pd.DataFrame({name: [value] for name, value in fields.items()}).itertuples(name="Record"))

    assert encode(row(x=1, y=2)) == encode(row(x=1, y=2))
    assert len({encode(row(x=1, y=2)), encode(row(y=1, x=2)), encode(row(x=1, z=2))}) == 3


class Inside(zipfile.Path):
    pass


def test_what_knows_only_a_files_name_is_refused(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inside.txt", "x")
    for value in (zipfile.Path(tmp_path / "a.zip"), Inside(tmp_path / "a.zip", "inside.txt")):
        with pytest.raises(UnhashableArgument, match=r"args: .*in an archive"):
            encode(value)
    place = pathlib.Path(zoneinfo.TZPATH[0]) / "Europe" / "Paris" if zoneinfo.TZPATH else None
    with contextlib.suppress(OSError):
        data = place.read_bytes() if place is not None else b""
        with pytest.raises(UnhashableArgument, match="ZoneInfo made from a file"):
            encode(zoneinfo.ZoneInfo.from_file(io.BytesIO(data), key="Europe/Paris"))


def test_a_released_view_is_refused() -> None:
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(UnhashableArgument, match="released"):
        encode(view)
