"""Whose code is read, and whose counts by name and version."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from cacheness.keys import add_user_code, digest_of, owners
from cacheness.keys.owners import OURS, PYTHON, USER, Owner, owner_of

#: A build backend of its own, so that installing needs neither an index nor other packages.
BACKEND = """
import base64, hashlib, pathlib, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    files = {f"teamlib/{p.name}": p.read_bytes() for p in pathlib.Path("teamlib").glob("*.py")}
    info = "teamlib-1.0.dist-info/"
    files[info + "METADATA"] = b"Metadata-Version: 2.1\\nName: teamlib\\nVersion: 1.0\\n"
    files[info + "WHEEL"] = b"Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\\n")
    files[info + "RECORD"] = "".join([*lines, info + "RECORD,,\\n"]).encode()
    with zipfile.ZipFile(pathlib.Path(directory, "teamlib-1.0-py3-none-any.whl"), "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    return "teamlib-1.0-py3-none-any.whl"
"""
PROBE = """
import json, teamlib
from cacheness.keys import digest_of, fingerprint
def uses(x): return teamlib.clean(x)
found = [fingerprint(uses).digest, fingerprint(teamlib.clean).digest, digest_of(teamlib.Model(1))]
print(json.dumps([digest.hex() for digest in found]))
"""


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    """A package of a team's, at a version that never changes."""
    folder = tmp_path / "project"
    (folder / "teamlib").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        "[project]\nname = 'teamlib'\nversion = '1.0'\n"
    )
    (folder / "backend.py").write_text(BACKEND)
    (folder / "teamlib/__init__.py").write_text(
        "from teamlib.deep import helper\ndef clean(x): return helper(x)\n"
        "class Model:\n    def __init__(self, n): self.n = n\n    def run(self): return helper(self.n)\n"
    )
    (folder / "teamlib/deep.py").write_text("def helper(x): return x + 1\n")
    return folder


def install(project: pathlib.Path, *options: str) -> pathlib.Path:
    """With pip, into a folder named like those that installers use."""
    target = project.parent / "site-packages"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-index",
        "--no-build-isolation",
        "--no-deps",
        "--no-cache-dir",
    ]
    command += ["--disable-pip-version-check", "--upgrade", "--target", str(target), *options, str(project)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    return target


def probe(target: pathlib.Path, **environment: str) -> Any:
    """Fingerprints as a new process sees them."""
    env = {**os.environ, "PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    named = "import os; from cacheness.keys import add_user_code; add_user_code(*os.environ.get('NAMES', '').split())\n"
    program = named + PROBE
    run = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(run.stdout)


def edit(folder: pathlib.Path) -> None:
    """Change a helper of a helper."""
    (folder / "teamlib/deep.py").write_text("def helper(x): return x + 2\n")


@pytest.mark.slow
def test_a_package_installed_from_a_folder_again_at_the_same_version_is_a_miss(project: pathlib.Path) -> None:
    target = install(project)
    assert (target / "teamlib-1.0.dist-info/direct_url.json").exists()
    before = probe(target)
    assert probe(install(project)) == before
    edit(project)
    after = probe(install(project))
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, True, True]


@pytest.mark.slow
def test_a_package_from_an_index_counts_by_its_version(project: pathlib.Path) -> None:
    target = install(project)
    info = target / "teamlib-1.0.dist-info"
    (info / "direct_url.json").unlink()  # as an index leaves it
    before = probe(target)
    edit(target)
    assert probe(target) == before
    assert probe(target, NAMES="teamlib") != before
    info.rename(target / "teamlib-1.1.dist-info")
    after = probe(target)
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, True, True]


@pytest.mark.slow
def test_what_conda_builds_counts_by_its_version_although_it_says_where_it_was_built(project: pathlib.Path) -> None:
    target = install(project)
    (target / "teamlib-1.0.dist-info/INSTALLER").write_text("conda\n")
    before = probe(target)
    edit(target)
    assert probe(target) == before


@pytest.mark.slow
def test_files_that_no_distribution_lists_are_the_user_s(project: pathlib.Path) -> None:
    target = project.parent / "site-packages"
    target.mkdir()
    (project / "teamlib").rename(target / "teamlib")
    before = probe(target)
    edit(target)
    assert probe(target) != before


@pytest.fixture
def _forget() -> Iterator[None]:
    yield
    owners._user_names.clear()
    owners.add_user_code()  # none; what was found is forgotten


@pytest.mark.parametrize(
    ("module", "owner"),
    [
        ("builtins", PYTHON),
        ("sys", PYTHON),
        ("json.decoder", PYTHON),
        ("os.path", PYTHON),
        ("_thread", PYTHON),
        ("math", PYTHON),
        ("zoneinfo", PYTHON),
        ("__main__", USER),
        ("__mp_main__", USER),
        ("__prefect_loader_1__", USER),
        ("no.such.module", USER),
        (__name__, USER),
        (None, USER),
        ("cacheness.keys.encode", OURS),
        ("cacheness_dask", OURS),
    ],
)
def test_whose_a_module_is(module: str | None, owner: Owner) -> None:
    assert owner_of(module) == owner


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "numpy"),
        ("numpy.linalg", "numpy"),
        ("yaml", "pyyaml"),
        ("dateutil.parser", "python-dateutil"),
        ("attr", "attrs"),
        ("_pytest.fixtures", "pytest"),
        ("typing_extensions", "typing-extensions"),
        ("pyarrow.lib", "pyarrow"),
    ],
)
def test_which_distribution_a_library_s_module_comes_from(module: str, name: str) -> None:
    from importlib import metadata

    owner = owner_of(module)
    assert (owner.kind, owner.name, owner.version) == ("library", name, metadata.version(name))


@pytest.mark.usefixtures("_forget")
@pytest.mark.parametrize("name", ["numpy", "NumPy", "numpy.linalg"])
def test_libraries_can_be_named_as_the_user_s_own(name: str) -> None:
    add_user_code(name)
    assert owner_of("numpy.linalg.linalg") == USER
    assert owner_of("pandas") != USER


@pytest.mark.slow
def test_a_module_that_shadows_python_s_is_the_user_s(tmp_path: pathlib.Path) -> None:
    (tmp_path / "statistics.py").write_text("")
    program = "import statistics; from cacheness.keys.owners import owner_of; print(owner_of('statistics').kind)"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "user\n"


class _AsAModule:
    """Answers for its class as cffi's libraries do; the descriptors of modules do not take it."""

    __class__ = types.ModuleType  # type: ignore[assignment]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["as_a_module", "as_a_module.lib"])
def test_what_only_says_that_it_is_a_module_is_in_no_key_s_way(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, _AsAModule())
    assert owner_of(name) == USER
    assert digest_of(test_whose_a_module_is) == digest_of(test_whose_a_module_is)


@pytest.mark.slow
def test_a_library_of_cffi_s_that_is_loaded_is_in_no_key_s_way() -> None:
    program = (
        "from cryptography.hazmat.bindings import _rust; import sys; from cacheness.keys import fingerprint\n"
        "def double(x): return 2 * x\n"
        "print(fingerprint(double).digest.hex() if '_openssl.lib' in sys.modules else 'it is not loaded')"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, len(run.stdout.strip())) == (0, 64), run.stderr
