"""What is never cached, and what one sees of it: each row of the table in docs/reference/prefect.md is true."""

from __future__ import annotations

import hashlib
import itertools
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.settings import PREFECT_TASKS_DISABLE_CACHING, temporary_settings
from prefect.transactions import CommitMode, transaction
from prefect.utilities.annotations import opaque

from cacheness_prefect import CachenessStorage
from cacheness_prefect.reasons import REASONS, rows

unseen = (n for n in range(3))
lock = opaque(threading.Lock())


def give(x: Any) -> Any:
    return x


def refers(x: Any) -> Any:
    return x, hash(unseen)


def guard(x: Any) -> Any:
    return threading.Lock()


def long(x: Any) -> Any:
    return hashlib.shake_256(b"no codec makes it smaller").digest(1_000_000)


def spoilt(where: str) -> Any:
    change = f"open({where!r}, 'a').write('more')"
    subprocess.run([sys.executable, "-c", change], check=True)
    return Path(where).read_text()


def fails(x: Any) -> Any:
    raise ValueError(x)


def test_the_page_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "prefect.md").read_text(encoding="utf-8")
    assert "\n".join(rows()) in page


def test_each_row_of_the_table_is_true(store, tally, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    small = CachenessStorage(cache_dir=str(tmp_path / "small"), max_bytes=100_000)
    down = CachenessStorage(
        metadata_backend="postgresql://nobody@127.0.0.1:1/nothing",
        cache_dir=str(tmp_path / "down"),
        shared_path=True,
        allow_unsigned=True,
    )
    source = tmp_path / "source.txt"
    source.write_text("text")

    def in_state(fn: Callable[..., Any], argument: Any = 1, policy: Any = None, **options: Any) -> str:
        tried = task(fn, cache_policy=policy or store.policy(), **options)
        return str(tried(argument, return_state=True).name)

    def rolled_back() -> str:
        states = []
        with suppress(ValueError), transaction():
            states.append(in_state(give, "rolled back"))
            raise ValueError
        return states[0]

    def disabled() -> str:
        with temporary_settings({PREFECT_TASKS_DISABLE_CACHING: True}):
            return in_state(give, "disabled")

    numbers = itertools.count(1000)

    def inside(**options: Any) -> str:
        number = next(numbers)

        @task
        def around() -> list[str]:
            with transaction(**options):
                return [in_state(give, number), in_state(give, number)]

        return around()[1]

    assert inside(commit_mode=CommitMode.EAGER) == "Cached"

    def draws(n: int) -> Iterator[int]:
        tally.add()
        yield from range(n)

    def generated() -> str:
        before = len(tally)
        assert list(task(draws, cache_policy=store.policy())(2)) == [0, 1]
        return "Completed" if len(tally) > before else "Cached"

    cases: list[Callable[[], str]] = [
        lambda: in_state(give, lock),
        lambda: in_state(refers, policy=store.policy(incomplete="refuse")),
        lambda: in_state(give, lock, store.policy() + INPUTS),
        lambda: in_state(guard),
        lambda: in_state(long, policy=small.policy()),
        lambda: in_state(give, policy=down.policy()),
        lambda: in_state(spoilt, str(source)),
        lambda: in_state(give, "disputed"),
        lambda: in_state(give, "not kept", persist_result=False),
        lambda: in_state(give, "keyed", cache_key_fn=lambda *_: None),
        lambda: in_state(give, "refreshed", refresh_cache=True),
        disabled,
        lambda: rolled_back() if in_state(fails) == "Failed" else "",
        inside,
        generated,
    ]

    in_state(give, "disputed")
    disputed = store.open().find(store.policy().key(task(give), {"x": "disputed"}))
    assert store.open().dispute(disputed, None, None, "another came out")

    @flow
    def once(case: Callable[[], str]) -> str:
        return case()

    found = []
    for reason, case in zip(REASONS, cases, strict=True):
        caplog.clear()
        with caplog.at_level(logging.INFO, "prefect.task_runs"):
            states = [once(opaque(case)), once(opaque(case))]
        found.append((reason.means, states, reason.says in caplog.text))
    assert found == [(reason.means, ["Completed"] * 2, True) for reason in REASONS]
