"""`make peer-dask`: the tests inside dask's wheel without a cache, with an empty one, and with a full one.

A test whose outcome differs from that without a cache, and is not in `EXPECTED` with a reason, is a failure.
PEER_EVERY=10 takes one test in ten, by name, PEER_FROM=1 another one; those that Dask itself calls slow, or that need
the network, are left out.
PEER_VERBOSE=1 shows which functions' tasks were computed once more with a full cache, and which tasks have no key.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import dask

VERBOSE: Final = bool(os.environ.get("PEER_VERBOSE"))
HOME: Final = Path(dask.__file__).parent
#: What computes collections, and needs no server, no graphics card and less than a minute or so.
MODULES: Final = (
    "tests/test_base.py",
    "tests/test_delayed.py",
    "tests/test_graph_manipulation.py",
    "tests/test_hlgexpr.py",
    "tests/test_composite_expr.py",
    "bag/tests/test_bag.py",
    "bag/tests/test_text.py",
    "array/tests/test_masked.py",
    "array/tests/test_random.py",
    "array/tests/test_overlap.py",
    "dataframe/io/tests/test_json.py",
    "dataframe/tests/test_reshape.py",
)
WARNS: Final = "a task warns when it runs, which a hit does not"
#: Tests that differ with a cache, by the end of their names, and why that is right.
EXPECTED: Final = {
    "test_array_core.py::test_store_sources_unoptimized_nocompute": "it counts calls, which a hit needs not",
    "test_array_core.py::test_from_array_getitem[True-True]": "it asks whether a function ran, which a hit needs not",
    "test_array_core.py::test_from_array_getitem[False-True]": "it asks whether a function ran, which a hit needs not",
    "test_array_core.py::test_from_array_with_lock[False]": "it counts how often a lock is taken; a hit takes none",
    "test_array_core.py::test_from_array_with_lock[True]": "it counts how often a lock is taken; a hit takes none",
    "test_distributed.py::test_local_get_with_distributed_active": "it counts threads before its block ends, with"
    " the one that keeps what it stores from being taken for left behind",
    "test_base.py::test_compute_no_opt": "it counts the tasks that run, and what is loaded needs none",
    "test_base.py::test_optimize_None": "it counts the tasks of a graph, and what is loaded is one of them",
    "test_bag.py::test_to_delayed_optimize_graph": "it counts calls, which a hit needs not",
    "test_bag.py::test_take_npartitions_warn": WARNS,
    "test_dataframe.py::test_head_npartitions_warn": WARNS,
    "test_bag.py::test_repartition_partition_size_complex_dtypes": "lists of arrays equal none but themselves",
    "test_bag.py::test_bag_with_single_callable": "a function that was loaded is another object",
    **{
        f"test_reductions.py::test_array_cumreduction_axis[blelloch-None-{nan}-{name}]": WARNS
        for nan in (True, False)
        for name in ("cumprod", "nancumprod")
    },
    "test_delayed.py::test_traverse_false": "a loaded result equals the computed one, and is another object",
}


def main(modules: list[str]) -> int:
    """Run the modules three times, and compare."""
    unexpected, total, counts = 0, Counter[str](), {"cold": Counter[str](), "warm": Counter[str]()}
    for module in modules:
        with tempfile.TemporaryDirectory(prefix="cacheness-peer-") as folder:
            plain, _ = _run(module, folder, "", "plain")
            total.update(plain.values())
            missed: dict[str, str] = {}
            for turn in ("cold", "warm"):
                found, told = _run(module, folder, os.path.join(folder, "cache"), turn)
                counts[turn].update(told["counts"])
                for test in sorted(plain.keys() | found.keys()):
                    if plain.get(test) != found.get(test):
                        why = next((why for name, why in EXPECTED.items() if test.endswith(name)), None)
                        unexpected += why is None
                        print(f"{turn}: {test}: {plain.get(test)} -> {found.get(test)}: {why or 'NOT EXPECTED'}")
                if VERBOSE and turn == "warm":
                    _show_misses(missed, told)
                missed = told["missed"]
                print(f"{module}, {turn}: {told['counts']}", flush=True)
        print(f"{module}: {len(plain)} tests", flush=True)
    print(
        f"{sum(total.values())} tests: {dict(total)}; tasks, cold: {dict(counts['cold'])}, warm: {dict(counts['warm'])}"
    )
    return unexpected > 0


def _show_misses(cold: dict[str, str], warm: dict[str, Any]) -> None:
    for what, same in (("once more, as before", True), ("another key than before", False)):
        for name, count in Counter(name for key, name in warm["missed"].items() if (key in cold) is same).most_common():
            print(f"  {what}: {count} x {name}")
    for why, count in Counter(warm["refused"]).most_common(20):
        print(f"  no key: {count} x {why}")


def _run(module: str, folder: str, cache: str, name: str) -> tuple[dict[str, str], dict[str, Any]]:
    outcomes = Path(folder, f"{name}.json")
    command = [sys.executable, "-m", "pytest", str(HOME / module), "-q", "-p", "tests.peers.remembering"]
    # Not our own settings, under which each warning is an error, and Dask's own, which its wheel leaves out.
    command += ["-c", os.devnull, "--rootdir", str(HOME.parent), "-p", "no:cacheprovider", "-p", "no:randomly"]
    command += ["-m", "not slow and not network", "--timeout", "120", "--basetemp", os.path.join(folder, "tests")]
    environment = os.environ | {"PEER_CACHE": cache, "PEER_OUTCOMES": str(outcomes)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not outcomes.exists():
        raise SystemExit(f"{module} did not run:\n{ended.stdout}\n{ended.stderr}")
    Path(folder, f"{name}.log").write_text(ended.stdout)
    if VERBOSE and name != "plain":
        print(ended.stdout[-3000:])
    told: dict[str, Any] = json.loads(outcomes.read_text())
    return told["outcomes"], told


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:] or list(MODULES)))
