"""Take out, one at a time, the rules that docs promise: a test that is named after a rule must then fail.

`make mutants` runs them all, each in a copy of the sources, and ends with an error when one survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = "core/cacheness"


@dataclass(frozen=True)
class Mutant:
    """A rule, the text that makes it hold, what stands there without it, and the tests that must notice."""

    rule: str
    file: str
    old: str
    new: str
    tests: str  #: a file of tests
    names: str  #: an expression for `pytest -k`


MUTANTS = (
    Mutant(
        "one hang that costs the whole time opens the circuit",
        f"{CORE}/circuit.py",
        " or self._wasted >= self._limits.total",
        "",
        "tests/test_circuit.py",
        "test_one_failure_that_took_all_the_time_is_enough",
    ),
    Mutant(
        "a lock that others hold is no failure",
        f"{CORE}/circuit.py",
        "        if isinstance(error, StoreBusy):\n            return",
        "        if isinstance(error, ZeroDivisionError):\n            return",
        "tests/test_circuit.py",
        "test_a_lock_held_by_others_is_neither_a_failure_nor_an_answer",
    ),
    Mutant(
        "an open circuit waits twice as long each time",
        f"{CORE}/circuit.py",
        "min(2 * self._pause if",
        "min(1 * self._pause if",
        "tests/test_circuit.py",
        "test_an_open_circuit_tries_after_twice_the_time_each_time_up_to_the_cooldown",
    ),
    Mutant(
        "one call tries while the others stay refused",
        f"{CORE}/circuit.py",
        "if left <= 0 and not self._is_trying:",
        "if left <= 0:",
        "tests/test_circuit.py",
        "test_one_call_tries_a_single_time_while_the_others_stay_refused",
    ),
    Mutant(
        "only the owner deletes blobs",
        f"{CORE}/results/tombstones.py",
        "why = self._marker.why_not_ours(afresh=len(names) > FEW)",
        "why = None",
        "tests/integrity/test_owner.py",
        "test_a_clone_deletes_no_blob_of_its_original and sqlite",
    ),
    Mutant(
        "a marker that is gone is taken only by an unused database or over an empty prefix",
        f"{CORE}/coordination/ownership.py",
        "if self._metadata.is_unused() or self._is_empty():",
        "if True:",
        "tests/integrity/test_owner.py",
        "test_a_marker_that_is_gone_is_not_taken_by_a_database_that_was_used and sqlite",
    ),
    Mutant(
        "a primary that was left behind is told by its timeline",
        f"{CORE}/coordination/ownership.py",
        "and mark.timeline > here.timeline:",
        "and False:",
        "tests/integrity/test_owner.py",
        "test_a_promoted_standby_is_let_through_and_the_one_it_replaced_is_not",
    ),
    Mutant(
        "a database restored from before the last repair may not repair",
        f"{CORE}/coordination/ownership.py",
        'if mark.epoch not in here.epoch.split(","):',
        "if False:",
        "tests/integrity/test_repair.py",
        "test_a_database_restored_from_before_the_last_repair_may_not_repair",
    ),
    Mutant(
        "shards repaired one after the other are judged together",
        f"{CORE}/maintenance/repair.py",
        "if plan.scope.shard is not None and report.has_more_than(1 / SHARDS):",
        "if False:",
        "tests/integrity/test_repair.py",
        "test_shards_repaired_by_hand_one_after_the_other_are_judged_together",
    ),
    Mutant(
        "implausible damage stops a repair",
        f"{CORE}/maintenance/report.py",
        "    if found > most:",
        "    if False:",
        "tests/integrity/test_repair.py",
        "test_implausible_damage_stops_the_repair_unless_forced and sqlite",
    ),
    Mutant(
        "what a repair could not delete is not repaired",
        f"{CORE}/maintenance/repair.py",
        "    if issue.subject in removal.gone:",
        "    if True:",
        "tests/integrity/test_repair.py",
        "test_what_a_policy_forbids_to_delete_is_not_reported_as_repaired",
    ),
    Mutant(
        "SQLite's connections are closed across a fork",
        f"{CORE}/forks.py",
        "        closing.close_before_fork()",
        "        pass",
        "tests/test_forks.py",
        "test_nothing_of_sqlite_is_open_in_a_child or test_a_child_goes_on_when_its_parent_closes",
    ),
)


def survives(mutant: Mutant) -> bool:
    """Whether the tests pass without the rule."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("core", "cacheness_dask", "cacheness_prefect", "tests", "examples", "pyproject.toml"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        file = copy / mutant.file
        file.write_text(file.read_text().replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "pytest", mutant.tests, "-q", "-x", "-n", "0", "-k", mutant.names]
        environment = {**os.environ, "PYTHONPATH": f"{copy / 'core'}{os.pathsep}{copy}"}
        done = subprocess.run(command, check=False, cwd=copy, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutant.rule}: no test ran\n{done.stdout[-2000:]}")
        return done.returncode == 0


def main() -> int:
    """Run them all; how many survived."""
    survivors = 0
    for mutant in MUTANTS:
        survived = survives(mutant)
        survivors += survived
        print(f"{'SURVIVED' if survived else 'killed  '} {mutant.rule}", flush=True)
    return survivors


if __name__ == "__main__":
    sys.exit(bool(main()))
