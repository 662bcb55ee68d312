"""`make peer-prefect PEER=folder`: a checkout's tests, on Prefect's own storage, policies and locks and ours.

Either runs twice, the second time with what the first one stored. PEER_EVERY=10 takes one test in ten, PEER_FROM=1
another one. All modules run in one process: the server that it starts takes longer than most of them.
A test whose outcome with ours differs from that with Prefect's own in the same turn, and is not in `EXPECTED` with a
reason, is a failure.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import prefect

HERE: Final = Path(__file__).parent
#: What was compared, cold and warm; tests/results was with an empty cache.
#: Others are named with PEER_TESTS=, and some of their tests with PEER_ARGS="-k cache".
MODULES: Final = ("tests/test_locking.py",)
POLICY_DECIDES: Final = (
    "a task with a policy of ours keeps its results in its store, encoded by it, whatever its flow names"
)
#: Tests that differ with our storage, policies or locks, by a part of their names, and why that is right.
EXPECTED: Final[dict[str, str]] = {
    "test_singleton": "our lock managers hold no locks: two of them are equal, and need not be one object",
    "test_raises_if_releasing_with_wrong_holder": "a claim may end before its holder, whose run must not fail of that",
    "test_serialize_with_active_locks_logs_warning": "our locks are in the database, and none is lost on the way",
    "test_manager_has_no_lock_information_when_deserialized_in_new_process": "our locks hold in every process",
    "new_process_with_fork": "a forked child holds no claims: they are its parent's, who gives them up",
    "TestFileSystemLockManager::test_acquire_lock_with_hold_timeout": "it moves the clock that Prefect's manager reads",
    "test_flow_version_result_storage_key": "it asks that results are in Prefect's files where nothing is configured",
    "test_task_result_serializer[parent-": POLICY_DECIDES,
    "test_task_result_storage[parent]": POLICY_DECIDES,
    "test_task_inherits_custom_storage": POLICY_DECIDES,
    "test_transaction_inside_task_default_storage": POLICY_DECIDES,
}


def main(checkout: Path, modules: list[str]) -> int:
    """Run the modules four times, and compare."""
    if not (checkout / "tests" / "conftest.py").exists() or not (checkout / "pyproject.toml").exists():
        raise SystemExit(f"{checkout} is no checkout of Prefect: name one with PEER=folder")
    unexpected, differ = 0, Counter[str]()
    with tempfile.TemporaryDirectory(prefix="cacheness-peer-") as folder:
        for turn in ("cold", "warm"):
            theirs, _ = _run(checkout, modules, folder, "prefect", turn)
            ours, seen = _run(checkout, modules, folder, "cacheness", turn)
            for test in sorted(theirs.keys() | ours.keys()):
                if theirs.get(test) != ours.get(test):
                    why = next((why for name, why in EXPECTED.items() if name in test), None)
                    unexpected += why is None
                    differ[f"{turn}, {_module(test)}"] += 1
                    print(
                        f"{turn}: {test}: {theirs.get(test)} -> {ours.get(test)}: {why or 'NOT EXPECTED'}", flush=True
                    )
            print(f"{turn}: {dict(Counter(theirs.values()))}, in our cache: {seen}", flush=True)
    for module, ran in Counter(map(_module, theirs)).items():
        print(f"{module}: {ran} tests; {differ[f'cold, {module}']} differ cold, {differ[f'warm, {module}']} warm")
    print(f"Prefect {prefect.__version__}; {unexpected} differences are not expected")
    return unexpected > 0


def _module(test: str) -> str:
    return test.split("::", maxsplit=1)[0]


def _run(
    checkout: Path, modules: list[str], folder: str, kind: str, turn: str
) -> tuple[dict[str, str], dict[str, int]]:
    outcomes = Path(folder, f"{kind}-{turn}.json")
    command = [sys.executable, "-m", "pytest", *modules, "-q", "-p", "prefect_plugin", "-p", "no:cacheprovider"]
    # The time of a test only: on a busy machine the server that the first one starts takes longer than any of them.
    command += ["-o", "timeout=400", "-o", "timeout_func_only=true", *shlex.split(os.environ.get("PEER_ARGS", ""))]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # for the servers that tests start
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "PEER_KIND": kind,
        "PEER_KEPT": os.path.join(folder, kind),
        "PEER_OUTCOMES": str(outcomes),
    }
    log = Path(folder, f"{kind}-{turn}.log")
    with log.open("w") as said:  # no pipe: a server that a test left behind would hold it open
        subprocess.run(command, cwd=checkout, env=environment, stdout=said, stderr=subprocess.STDOUT, check=False)
    if not outcomes.exists():
        raise SystemExit(f"{modules} did not run:\n{log.read_text()}")
    if os.environ.get("PEER_VERBOSE"):
        print(log.read_text())
    told: dict[str, Any] = json.loads(outcomes.read_text())
    return told["outcomes"], told["counts"]


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]).absolute(), sys.argv[2:] or list(MODULES)))
