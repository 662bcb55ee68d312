"""Call a function again without a look-up, to compare the result with a stored one."""

from __future__ import annotations

from typing import Any

from cacheness.memoize.body import Failed
from cacheness.memoize.call import store
from cacheness.memoize.call_arguments import CallArguments
from cacheness.memoize.compute import Computed, compute
from cacheness.memoize.function import MemoizedFunction
from cacheness.memoize.lines import LineWatch
from cacheness.memoize.steps import Steps, runner_for


def compute_again(cached: MemoizedFunction, call: CallArguments) -> Any:
    """Call the function as a check of a hit does; nothing is stored.

    Returns:
        The outcome, whose value is `Failed` if the function raised; of a coroutine function, to be awaited.
    """
    steps = runner_for(cached)
    return steps.finish(_compute_again, cached, call, steps)


def try_again(cached: MemoizedFunction, call: CallArguments, watch: LineWatch) -> Any:
    """Call the function, and cached functions inside it, without look-ups; the outcome is stored.

    Returns:
        The outcome, as for `compute_again`.
    """
    steps = runner_for(cached)
    return steps.finish(_try_again, cached, call, watch, steps)


async def _compute_again(cached: MemoizedFunction, call: CallArguments, steps: Steps) -> Computed:
    key = await steps.run(cached.key, *call.args, **call.kwargs)
    key.as_text()
    given, _ = await steps.run(cached.with_values, call)
    return await compute(cached, key, given, steps, is_audit=True)


async def _try_again(cached: MemoizedFunction, call: CallArguments, watch: LineWatch, steps: Steps) -> Computed:
    key = await steps.run(cached.key, *call.args, **call.kwargs)
    key.as_text()
    given, _ = await steps.run(cached.with_values, call)
    done = await compute(cached, key, given, steps, is_audit=True, is_trial=True, watch=watch)
    if not isinstance(done.value, Failed):
        await steps.run(_store_if_new, cached, done)
    return done


def _store_if_new(cached: MemoizedFunction, done: Computed) -> None:
    if cached.cache.find(done.key) is None:
        cached.ask(store, cached, done, refreshes=False)
