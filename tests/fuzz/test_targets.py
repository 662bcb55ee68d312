from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheness.codecs.pickle import PickleCodec
from cacheness.errors import CodecError
from tests.fuzz.targets import TARGETS, Canary, Reached

Damage = Callable[[bytes], bytes]


def damage() -> st.SearchStrategy[Damage]:
    """One way to spoil bytes: overwrite, cut, drop or double some of them."""
    place, width = st.floats(0, 1, exclude_max=True), st.integers(1, 40)
    numbers = st.sampled_from([0, 1, 127, 128, 255, 2**31 - 1, 2**32 - 1, 2**63]) | st.integers(0, 2**64 - 1)
    few = st.binary(min_size=1, max_size=4) | numbers.map(lambda n: n.to_bytes(8, "little"))

    def overwrite(at: float, new: bytes) -> Damage:
        return lambda data: data[: int(at * len(data))] + new + data[int(at * len(data)) + len(new) :]

    def drop(at: float, count: int) -> Damage:
        return lambda data: data[: int(at * len(data))] + data[int(at * len(data)) + count :]

    def double(at: float, source: float, count: int) -> Damage:
        return lambda data: (
            data[: int(at * len(data))]
            + data[int(source * len(data)) : int(source * len(data)) + count]
            + data[int(at * len(data)) :]
        )

    def cut(at: float) -> Damage:
        return lambda data: data[: int(at * len(data))]

    return (
        st.builds(overwrite, place, few)
        | st.builds(drop, place, width)
        | st.builds(double, place, place, width)
        | st.builds(cut, place)
    )


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_themselves_break_no_rule(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_damaged_bytes_break_no_rule(name: str, data: st.DataObject) -> None:
    spoilt = data.draw(st.sampled_from(list(TARGETS[name].seeds)))
    for spoil in data.draw(st.lists(damage(), min_size=1, max_size=5)):
        spoilt = spoil(spoilt)
    TARGETS[name].run(spoilt)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=100, deadline=None)
@given(garbage=st.binary(max_size=300))
def test_garbage_breaks_no_rule(name: str, garbage: bytes) -> None:
    TARGETS[name].run(garbage)


def test_the_canary_would_be_noticed() -> None:
    with pytest.raises(CodecError) as caught:
        PickleCodec().decode(b"".join(PickleCodec().encode(Canary())))
    assert isinstance(caught.value.__cause__, Reached)
