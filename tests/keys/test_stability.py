"""The same key in every process: whatever the hash seed, the directory, the order of imports, the place."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from cacheness.keys import digest_of
from tests.keys.corpus import IS_PANDAS_3, digests
from tests.keys.edits import BASE, HELPERS

GOLDEN = pathlib.Path(__file__).with_name("golden.json")
ROOT = pathlib.Path(__file__).parents[2]

ASK = """
import json, pathlib, sys
sys.path[:0] = {path!r}
for name in {imports!r}:
    __import__(name)
from cacheness.keys import fingerprint, make_key
from tests.keys.corpus import PLAIN, digests
import user_module
found = digests(pathlib.Path({folder!r}))
found["fingerprint"] = fingerprint(user_module.clean).digest.hex()
found["model"] = make_key(args={{"model": user_module.MODEL, "settings": user_module.SETTINGS}}).hex
found["call"] = make_key(args={{"x": 1}}, function=user_module.clean).hex
print(json.dumps(found))
"""


#: Of these, where pandas 2 makes columns of objects of text, which is a type of its own in pandas 3.
OF_PANDAS_2 = {
    "frame": "174deca6030d33e6e233d6e43d9472e14e138ec6e520fdd2f621a967d1b5ac0c",
    "category": "3d4cd6509c904dbdc03c91e2bf91fb04ef96ffd4a3c06f3334638f96b6c8daee",
    "multi": "f913b76438f27b775c062fda051aec33c04f60cd9ed53a5016211bd1121913ba",
}


def golden() -> Any:
    found = json.loads(GOLDEN.read_text())
    assert found.keys() >= OF_PANDAS_2.keys()
    return found if IS_PANDAS_3 else found | OF_PANDAS_2


def test_the_golden_digests_hold(tmp_path: pathlib.Path) -> None:
    assert digests(tmp_path) == golden()


@pytest.mark.slow
def test_five_processes_agree_on_every_key(tmp_path: pathlib.Path) -> None:
    orders = [["numpy", "user_module"], ["user_helpers", "pandas"], ["polars"], ["pyarrow", "user_module"], []]
    processes = [_start(tmp_path / f"place {n}", str(n * 1000 + 1), order) for n, order in enumerate(orders)]
    found = [_result(process) for process in processes]
    assert found[0].keys() >= {"fingerprint", "model", "call"}
    assert all(answer == found[0] for answer in found)
    assert {
        name: digest for name, digest in found[0].items() if name not in ("fingerprint", "model", "call")
    } == golden()


def _start(place: pathlib.Path, seed: str, imports: list[str]) -> subprocess.Popen[str]:
    library = place / "lib"
    library.mkdir(parents=True)
    (library / "user_helpers.py").write_text(HELPERS)
    (library / "user_module.py").write_text(BASE)
    path = [str(library), str(ROOT)]
    program = ASK.format(path=path, imports=imports, folder=str(place / "files"))
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=place,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def _result(process: subprocess.Popen[str]) -> Any:
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    return json.loads(output)


@pytest.mark.slow
def test_a_script_and_the_same_file_imported_agree(tmp_path: pathlib.Path) -> None:
    (tmp_path / "job.py").write_text(
        "from cacheness.keys import fingerprint, make_key\n"
        "def helper(x): return x\n"
        "class Model:\n    def go(self): return helper(1)\n"
        "def f(x): return Model().go()\n"
        "def ask():\n"
        "    print(fingerprint(f).digest.hex(), make_key(args={'m': Model()}).hex)\n"
        "    print(make_key(args={}, version='1', function=f).hex)\n"
        "if __name__ == '__main__': ask()\n"
    )
    run = [
        subprocess.run(
            [sys.executable, *how], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        ).stdout
        for how in (["job.py"], ["-m", "job"], ["-c", "import job; job.ask()"])
    ]
    assert run[0] == run[1] == run[2]


def test_the_working_directory_does_not_count(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        shutil.copy(__file__, tmp_path / name / "data")
    monkeypatch.chdir(tmp_path / "one")
    here = digest_of(pathlib.Path("data"))
    monkeypatch.chdir(tmp_path / "other")
    assert digest_of(pathlib.Path("data")) == here
