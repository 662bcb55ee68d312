"""Trouble in the cache never fails a task, costs a bounded number of attempts, and is told once a run."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from prefect import flow, task
from prefect.cache_policies import RUN_ID
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import opaque
from pydantic import SecretStr

from cacheness import Config
from cacheness.circuit import FIRST_TRY
from cacheness.deadlines import Limits
from cacheness.errors import ConfigError
from cacheness.testing.proxy import Proxy
from cacheness_prefect import CachenessLockManager, CachenessStorage, cacheness_key, integrity_repair
from tests.conftest import SIGNING_KEY


def blob_files(directory: str) -> list[Path]:
    return sorted(path for path in Path(directory, "blobs").rglob("*") if path.name.count(".") == 2)


def damage(files: list[Path]) -> None:
    """A flipped byte, a truncated blob, a deleted blob."""
    assert len(files) == 3, files
    flipped, truncated, deleted = files
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    truncated.write_bytes(truncated.read_bytes()[:-100])
    deleted.unlink()


class FirstOf:
    """A large result that a worker process answers for with one number."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __float__(self) -> float:
        return float(self.array[0])


def test_a_damaged_result_is_computed_once_more_and_replaced(store, runner, tally) -> None:
    @task(cache_policy=store.policy())
    def noise(seed: int) -> FirstOf:
        tally.add()
        return FirstOf(np.random.default_rng(seed).random(10_000))

    @flow(task_runner=runner)
    def work() -> list[list[Any]]:
        def run_all() -> list[Any]:
            states = [noise.submit(seed, return_state=True) for seed in range(3)]
            return [(state.name, float(state.result())) for state in states]

        found = [run_all(), run_all()]
        damage(blob_files(store.cache_dir))
        return [*found, run_all(), run_all()]

    values = [float(np.random.default_rng(seed).random()) for seed in range(3)]
    computed, cached = ([(name, value) for value in values] for name in ("Completed", "Cached"))
    assert work() == [computed, cached, computed, cached]
    assert len(tally) == 6


def only_warning(messages: list[str]) -> str:
    assert len(messages) == 1, messages
    return messages[0]


# what is down


class Gate:
    """A task stops here, in any process, until the test has done something to its cache."""

    def __init__(self, folder: Path) -> None:
        self.arrived, self.opened = folder / "arrived", folder / "opened"

    def stop_here(self) -> None:
        self.arrived.touch()
        _wait_for(self.opened.exists)

    @contextmanager
    def when_it_is_reached(self, action: Callable[[], object]) -> Iterator[None]:
        def open_it() -> None:
            _wait_for(self.arrived.exists)
            action()
            self.opened.touch()

        # Not in the flow: Prefect pickles a flow, with all it refers to, for worker processes.
        thread = threading.Thread(target=open_it)
        thread.start()
        yield
        thread.join()


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def tries_within(seconds: float, limits: Limits) -> int:
    """How often an open circuit tries in this time: after 1, 2, 4 … `cooldown` seconds."""
    tries, pause = 0, FIRST_TRY
    while (seconds := seconds - pause) >= 0:
        tries, pause = tries + 1, min(2 * pause, limits.cooldown)
    return tries


class Servers:
    """A database and a bucket behind proxies, and a store that soon gives up on them."""

    def __init__(self, emptied_url: str, s3_url: str, make_store: Callable[..., Any]) -> None:
        self._emptied_url = emptied_url
        self.proxies = {"database": Proxy.before(emptied_url), "bucket": Proxy.before(s3_url)}
        self.store = make_store(
            metadata_backend=self.proxies["database"].url,
            blob_store=self.proxies["bucket"].url,
            signing_key=SIGNING_KEY,
            inline_max_bytes=0,
            connect_timeout=0.5,
            statement_timeout=0.5,
            blob_timeout=0.5,
        )

    def take_down(self, what: str) -> None:
        if what == "lock tables":
            with psycopg.connect(self._emptied_url) as connection:
                connection.execute("DROP TABLE cacheness.compute_leases")
        else:
            self.proxies[what].refuse()

    def hang(self, what: str) -> None:
        self._before = self._attempts(what)
        self.proxies[what].stall()
        self._hangs_since = time.monotonic()

    def attempts_since_it_hangs(self, what: str) -> int:
        return self._attempts(what) - self._before

    def most_attempts_since_it_hangs(self, processes: int) -> int:
        """What the circuit allows so far, a process: a connection that was open, and a new one for each failure."""
        limits = self.store.config().limits()
        failures = limits.failures + tries_within(time.monotonic() - self._hangs_since, limits)
        return processes * (1 + 2 * failures)

    def _attempts(self, what: str) -> int:
        """Connections made and requests sent so far."""
        return self.proxies[what].connections + len(self.proxies[what].requests)


@pytest.fixture
def servers(emptied_url, s3_url, make_store) -> Iterator[Servers]:
    servers = Servers(emptied_url, s3_url, make_store)
    yield servers
    for proxy in servers.proxies.values():
        proxy.close()


@pytest.mark.parametrize("what", ["database", "bucket", "lock tables"])
def test_a_store_that_is_down_fails_no_task_and_is_told_once_a_run(servers, runner, tally, told, what: str) -> None:
    if what == "lock tables":
        servers.store.open().put(1, warm=True)
    servers.take_down(what)

    @task(cache_policy=servers.store.policy(version="1"))
    def double(x: int) -> int:
        tally.add()
        return 2 * x

    @flow(task_runner=runner)
    def work() -> tuple[list[int], str]:
        return [future.result() for future in double.map([1, 2, 3, 4])], flow_run.id

    found, run = work()
    assert found == [2, 4, 6, 8]
    assert len(tally) == 4
    message = only_warning(told(run))
    assert message.startswith("the cache could not")


@pytest.mark.parametrize("what", ["database", "bucket", "lock tables"])
def test_a_store_that_hangs_or_breaks_in_mid_run_is_asked_a_few_times_and_told_once(
    servers, runner, tally, told, tmp_path, *, what: str
) -> None:
    gate = Gate(tmp_path)

    @task(cache_policy=servers.store.policy(version="1", ignore=["gate"]))
    def triple(x: int, gate: Gate | None = None) -> int:
        tally.add()
        if gate is not None:
            gate.stop_here()
        return 3 * x

    @flow(task_runner=runner)
    def work() -> tuple[list[int], str]:
        found = [triple.submit(1).result()]
        found.append(triple.submit(2, gate).result())
        # One after the other, so that what many ask at once does not hide what each asks again and again.
        return [*found, *(triple.submit(x).result() for x in range(3, 7))], flow_run.id

    with gate.when_it_is_reached(lambda: (servers.take_down if what == "lock tables" else servers.hang)(what)):
        found, run = work()
    assert found == [3 * x for x in range(1, 7)]
    assert len(tally) == 6
    message = only_warning(told(run))
    assert message.startswith("the cache could not")
    if what != "lock tables":
        processes = 1 if isinstance(runner, ThreadPoolTaskRunner) else 2
        assert servers.attempts_since_it_hangs(what) <= servers.most_attempts_since_it_hangs(processes)


def test_a_result_whose_class_is_gone_is_computed_again(store, tally, told) -> None:
    import sys
    import types

    module = types.ModuleType("a_module_that_goes")
    exec("class Thing: pass", module.__dict__)
    sys.modules["a_module_that_goes"] = module

    @task(cache_policy=store.policy(code=False))
    def make() -> Any:
        tally.add()
        return sys.modules["a_module_that_goes"].Thing() if len(tally) == 1 else "plain"

    @flow
    def work() -> tuple[str, str]:
        return make(return_state=True).name, flow_run.id

    assert work()[0] == "Completed"
    del sys.modules["a_module_that_goes"]
    name, run = work()
    assert name == "Completed"
    assert len(tally) == 2
    message = only_warning(told(run))
    assert "unpickle" in message
    assert work()[0] == "Cached"


def test_an_argument_without_a_key_is_told_and_the_task_runs(store, tally, told) -> None:
    @task(cache_policy=store.policy())
    def use(lock: Any) -> str:
        tally.add()
        return "done"

    @task(cache_policy=store.policy() - "lock")
    def ignore(lock: Any) -> str:
        tally.add()
        return "done"

    @flow
    def work() -> tuple[list[str], str]:
        from prefect.utilities.annotations import opaque

        lock = threading.Lock()
        return [use(opaque(lock)), ignore(opaque(lock))], flow_run.id

    found, run = work()
    assert found == ["done", "done"]
    message = only_warning(told(run))
    assert "args.lock" in message
    work()
    assert len(tally) == 3


@pytest.mark.parametrize("serializer", ["cacheness", "pickle"])
def test_a_result_that_cannot_be_stored_is_told_and_the_task_completes(store, tally, told, serializer) -> None:
    @task(cache_policy=store.policy(), result_serializer=serializer)
    def make() -> Any:
        tally.add()
        return threading.Lock()

    @flow
    def work() -> tuple[str, str]:
        return make(return_state=True).name, flow_run.id

    for _ in range(2):
        name, run = work()
        assert name == "Completed"
        assert len(told(run)) == 1, "by us, or by Prefect when its own serializer refuses"
    assert len(tally) == 2
    assert store.open().stats()["entries"] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metadata_backend": "postgresql://nobody@127.0.0.1:1/x", "blob_store": "s3://bucket"}, "needs a signing key"),
        ({"metadata_backend": "postgresql://nobody@127.0.0.1:1/x", "signing_key": SIGNING_KEY}, "blobs are in a local"),
        ({"metadata_backend": "mysql://nobody@127.0.0.1/x"}, "metadata_backend cannot be used: 'mysql://"),
        ({"metadata_backend": "sqlite:////data/x.db"}, "cache_dir='/data'"),
        ({"blob_store": "./results"}, "is not a URL"),
        ({"blob_store": "s4://bucket"}, "is 's4' spelt right"),
        ({"signing_key": "short"}, "at least 16"),
        ({"result_ttl": -1}, "result_ttl cannot be used: -1"),
        ({"ttl": "soon"}, "'soon' is not a duration"),
        ({"mode": "readonly"}, "one of off, offline, read"),
        ({"namespace": "no, not one"}, "namespace 'no, not one'"),
        ({"metadata_backed": "sqlite"}, "metadata_backed' is not a field"),
    ],
)
def test_a_block_that_can_work_nowhere_is_an_error_when_it_is_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CachenessStorage(**fields)


def test_fields_are_read_as_parameters_are(tmp_path: Path) -> None:
    given = {"ttl": "1h", "result_ttl": timedelta(days=1), "max_bytes": "10GB", "mode": "READ", "cache_dir": tmp_path}
    store = CachenessStorage(**given, near=tmp_path / "near", busy_timeout="1 min", max_entries="", trust=" ")
    config = store.config()
    assert (config.ttl, config.max_bytes, config.mode, config.cache_dir) == (3600.0, 10**10, "read", str(tmp_path))
    assert (config.near, config.busy_timeout, config.max_entries) == (str(tmp_path / "near"), 60.0, None)
    assert store.result_ttl == 86400.0
    assert CachenessStorage(result_ttl=None).result_ttl is None
    assert CachenessStorage(result_ttl="").result_ttl == 30 * 86400.0
    assert CachenessStorage.model_validate(store.model_dump()).config() == config


def test_a_block_that_was_changed_into_one_that_cannot_work_is_not_saved(prefect_api) -> None:
    store = CachenessStorage()
    store.blob_store = SecretStr("s4://bucket")
    with pytest.raises(ConfigError, match="'s4'"):
        store.save("cannot-work")
    with pytest.raises(ConfigError, match="'s4'"):
        asyncio.run(store.asave("cannot-work"))
    with pytest.raises(ConfigError, match="no Cacheness Storage block"):
        integrity_repair("cannot-work")


@pytest.mark.parametrize("single_flight", [True, False])
def test_a_block_that_cannot_work_on_this_machine_ends_the_first_run_that_uses_it(
    tmp_path, tally, prefect_api, *, single_flight: bool
) -> None:
    (tmp_path / "a file").touch()
    store = CachenessStorage(cache_dir=str(tmp_path / "a file" / "cache"))

    @task(cache_policy=store.policy(single_flight=single_flight))
    def double(x: int) -> int:
        tally.add()
        return 2 * x

    @task(cache_policy=store.policy(single_flight=single_flight))
    async def later(x: int) -> int:
        tally.add()
        return 2 * x

    @flow
    async def work() -> list[tuple[str, bool]]:
        states = [double(1, return_state=True), await later(1, return_state=True)]
        return [(state.name, "cannot be made" in str(state.message)) for state in states]

    assert asyncio.run(work()) == [("Failed", True)] * 2
    assert len(tally) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"tags": "prices"},
        {"ignore": "client"},
        {"version": 3},
        {"incomplete": "never"},
        {"wait": "long"},
        {"code": "x"},
    ],
    ids=str,
)
def test_an_option_of_a_policy_that_cannot_be_meant_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        CachenessStorage().policy(**options)


class Unbound:
    """A row of a database whose session is over, say."""

    def __repr__(self) -> str:
        raise RuntimeError("not bound to a session")


class LooksPlain(list[int]):
    """Something that is taken for a plain list by its name."""

    def __len__(self) -> int:
        raise RuntimeError("a proxy without its server")


LooksPlain.__name__ = LooksPlain.__qualname__ = "list"


def test_what_describes_a_run_runs_no_code_of_the_users_and_stays_short(store, tally, told) -> None:
    @task(cache_policy=store.policy())
    def double(x: int) -> int:
        tally.add()
        return 2 * x

    @flow(validate_parameters=False)
    def work(row: Any, proxy: Any, rows: Any, text: str) -> tuple[Any, ...]:
        return (*[double(4, return_state=True).name for _ in range(2)], flow_run.id)

    *names, run = work(Unbound(), LooksPlain(), [Unbound()] * 1000, "x" * 10_000)
    assert names == ["Completed", "Cached"]
    assert told(run) == []
    [entry] = store.open().iter_entries(tag=f"flow_run:{run}")
    noted = json.loads(entry.provenance)["prefect"]["parameters"]
    assert (noted["row"], noted["proxy"]) == ("<Unbound>", "<list>")
    assert noted["rows"].startswith("[<Unbound>, <Unbound>")
    assert noted["text"].startswith("'xxx")
    assert all(len(text) <= 200 for text in noted.values())


class Raises(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("nor can this")


def raises(*_: Any) -> Any:
    raise Raises


def leaves(*_: Any) -> Any:
    raise SystemExit(3)


#: Values whose own code fails when somebody looks at them for a key.
FAILING = {
    f"{name} {how.__name__}": type(name.strip("_").title(), (), {name: how})
    for how in (raises, leaves)
    for name in ("__reduce__", "__getstate__", "__getattr__", "__cacheness_key__", "__hash__", "__array__")
}
FAILING["__dict__"] = type("Dict", (), {"__dict__": property(raises)})
FAILING["shape"] = type("Shape", (), {"shape": property(raises), "dtype": property(leaves)})


def test_an_argument_whose_own_code_fails_fails_no_run(store, tally) -> None:
    def body(x: Any) -> str:
        tally.add()
        return "done"

    policy = store.policy()
    policies = {"policy": policy, "sum": policy + RUN_ID, "minus": policy - "y"}
    tasks = [task(body, name=name, cache_policy=made) for name, made in policies.items()]
    tasks.append(task(body, name="key function", cache_key_fn=cacheness_key, result_storage=store))

    @flow
    def work() -> dict[str, list[str]]:
        return {name: [each(opaque(kind())) for each in tasks] for name, kind in FAILING.items()}

    assert work() == {name: ["done"] * len(tasks) for name in FAILING}


def test_names_and_tags_of_a_run_are_noted_however_they_look(store) -> None:
    @task(cache_policy=store.policy(), name="two\nlines \ud800", tags={"a\0b", "x" * 5000})
    def double(x: int) -> int:
        return 2 * x

    assert [double(1, return_state=True).name for _ in range(2)] == ["Completed", "Cached"]
    [entry] = store.open().iter_entries(tag="a b")
    assert {"task:two lines ?", "x" * 4096} <= set(entry.tags)


def test_every_parameter_of_a_cache_is_a_field_of_the_block() -> None:
    names = {field.name for field in dataclasses.fields(Config)}
    assert names <= set(CachenessStorage.model_fields)
    given = {"max_entries": 7, "on_error": "raise", "lease": 3.0, "circuit_failures": 2, "circuit_seconds": 5.0}
    config = CachenessStorage(**given).config()
    assert {name: getattr(config, name) for name in given} == given
    assert all(field.description for field in CachenessStorage.model_fields.values())
    assert CachenessStorage(incomplete="refuse").policy().incomplete == "refuse"
    assert CachenessStorage(incomplete="refuse").policy(incomplete="serve").incomplete == "serve"
    assert CachenessStorage(lease=3.0).policy().lock_manager == CachenessLockManager(
        CachenessStorage(lease=3.0), lease=3.0
    )


def test_what_is_left_empty_in_the_form_is_not_given() -> None:
    empty = CachenessStorage(cache_dir="", metadata_backend="", blob_store="", signing_key="")
    assert empty.config() == CachenessStorage().config()
