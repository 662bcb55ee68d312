"""An error of a user's task shows the frames that it shows without a cache."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

import dask
import pytest
from dask._task_spec import Task
from distributed import Client

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask._task_spec import Fallback
from cacheness_dask.loading import Load
from cacheness_dask.policy import Policy
from cacheness_dask.worker import Store


def divided(x: int) -> float:
    return inverse(x)


def inverse(x: int) -> float:
    return 1 / x


def frames(error: BaseException) -> list[tuple[str, str]]:
    return [(frame.filename, frame.name) for frame in traceback.extract_tb(error.__traceback__)]


def failing(scheduler: Any, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(ZeroDivisionError) as caught:
        dask.delayed(divided)(0).compute(scheduler=scheduler, **options)
    return frames(caught.value)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("check_inputs", [0, 1])
def test_no_frame_is_added_on_this_machine(cache: UnifiedCache, scheduler: str, check_inputs: float) -> None:
    plain = failing(scheduler)
    for which in ("all", "marked"):
        with cd.caching(cache, which=which, check_inputs=check_inputs):
            assert failing(scheduler) == plain


def test_no_frame_is_added_on_a_worker(cache: UnifiedCache, client: Client, cluster: Any) -> None:
    def log() -> Counter[str]:
        return Counter(line for lines in client.get_worker_logs().values() for _, line in lines)

    earlier = log()
    plain = failing(client)
    with cd.caching(cache, which="all", scheduler=client):
        assert failing(client) == plain
    cd.install(client, cache)
    future = client.submit(divided, 0.0)
    with pytest.raises(ZeroDivisionError) as caught:
        future.result()
    assert [name for _, name in frames(caught.value)][-2:] == ["divided", "inverse"]
    assert "cacheness" not in "".join(map("".join, frames(caught.value)))
    cd.uninstall(client)
    lines = "\n".join(log() - earlier)
    assert "in inverse" in lines
    assert "cacheness_dask" not in lines


def test_what_is_computed_in_place_of_a_vanished_entry_fails_as_it_would(cache: UnifiedCache) -> None:
    fallback = Fallback({"a": Task("a", divided, 0)}, "a")
    load = Load(Store(cache.config, Policy()), "0" * 64, "divided", fallback)
    with pytest.raises(ZeroDivisionError) as caught:
        dask.delayed(load)().compute(scheduler="sync")
    assert frames(caught.value)[1:] == failing("sync")[1:]
