"""Compute the result of a call, and observe what the function does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from cacheness.keys import Key, Observed
from cacheness.keys.moved_generators import moved_since, positions
from cacheness.lazy_dataclass import dataclass
from cacheness.memoize.body import Body
from cacheness.memoize.call_arguments import CallArguments
from cacheness.memoize.function import MemoizedFunction
from cacheness.memoize.lines import LineWatch
from cacheness.memoize.steps import Steps
from cacheness.references import resolved


@dataclass(frozen=True, slots=True)
class Computed:
    """The outcome of a call."""

    key: Key
    call: CallArguments
    value: Any
    observed: Observed  #: its files
    seconds: float
    moved: Sequence[str]  #: process-wide random number generators that moved


async def compute(
    cached: MemoizedFunction,
    key: Key,
    call: CallArguments,
    steps: Steps,
    *,
    is_audit: bool = False,
    is_trial: bool = False,
    watch: LineWatch | None = None,
) -> Computed:
    """Call the function, and observe its files and the random number generators."""
    observed = Observed(key.inputs, cached.__wrapped__)
    before, began = positions(), time.perf_counter()
    body = Body(cached, key, call, observed, is_audit=is_audit, is_trial=is_trial, watch=watch)
    value = await result_of(body, steps)
    return Computed(key, call, value, observed, time.perf_counter() - began, moved_since(before))


async def result_of(body: Body, steps: Steps) -> Any:
    """Return what a body returns, with values in place of references, so that an entry names no other."""
    return await steps.run(resolved, await steps.run_body(body))
