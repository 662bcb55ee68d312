"""Fuzz every target, guided by coverage: FUZZ_SECONDS=600 python -m tests.fuzz [target …]

Needs atheris, which has wheels for Linux. The same targets run in `make test`, led by chance alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

INSTRUMENTED = [
    "cacheness.codecs",
    "cacheness.results.signing",
    "cacheness.keys",
    "numpy.lib",
    "pyarrow.pandas_compat",
    "ast",
]


def run_all(seconds: int, names: list[str]) -> int:
    """Each target in a process of its own, because a fuzzer ends the process that it runs in."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            corpus = Path(folder) / name
            corpus.mkdir()
            limits = [f"-max_total_time={seconds}", "-max_len=20000", "-rss_limit_mb=4096", "-timeout=20"]
            command = [
                sys.executable,
                "-m",
                "tests.fuzz",
                "--one",
                name,
                str(corpus),
                *limits,
                f"-artifact_prefix={folder}/",
            ]
            if subprocess.run([*command, "-print_final_stats=1", "-verbosity=1"], check=False).returncode:
                failed.append(name)
                for crash in Path(folder).glob("crash-*"):
                    print(f"{name} fails on {crash.read_bytes()!r}")
    print("broken: " + ", ".join(failed) if failed else f"nothing broken in {len(names)} targets")
    return len(failed)


def run_one(name: str, corpus: str, options: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, corpus], target.run)
    atheris.Fuzz()


def all_targets() -> list[str]:
    from tests.fuzz.targets import TARGETS

    return list(TARGETS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run_one(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        chosen = sys.argv[1:] or all_targets()
        sys.exit(run_all(max(int(os.environ.get("FUZZ_SECONDS", "600")) // len(chosen), 1), chosen))
