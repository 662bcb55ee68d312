"""Files that a function's code names: beside its module, in a package, in a folder that a global holds."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheness.keys import Key, fingerprint, make_key

HERE = "import os\nHERE = os.path.dirname(os.path.abspath(__file__))\n"
PATH = "from pathlib import Path\nHERE = Path(__file__).parent\n"

#: Each reads the file rates.csv of the package `ratings` beside the module.
READERS = {
    "a folder as text": HERE + "def f(): return open(os.path.join(HERE, 'ratings', 'rates.csv')).read()",
    "a folder and a sum": HERE + "def f(): return open(HERE + '/ratings/rates.csv').read()",
    "a folder in a format": HERE + "def f(): return open(f'{HERE}/ratings/rates.csv').read()",
    "a folder of a global": HERE
    + "AT = os.path.join(HERE, 'ratings')\ndef f(): return open(os.path.join(AT, 'rates.csv')).read()",
    "a path in a global": HERE
    + "RATES = os.path.join(HERE, 'ratings', 'rates.csv')\ndef f(): return open(RATES).read()",
    "a name in a global": HERE + "NAME = 'rates.csv'\ndef f(): return open(os.path.join(HERE, 'ratings', NAME)).read()",
    "a name in a default": HERE
    + "def read(name='rates.csv'): return open(os.path.join(HERE, 'ratings', name)).read()\ndef f(): return read()",
    "a name given to a helper": PATH
    + "def read(name): return (Path(__file__).parent / 'ratings' / name).read_text()\n"
    + "def f(): return read('rates.csv')",
    "a name given to a method": PATH
    + "class Store:\n    def __init__(self): self.at = Path(__file__).parent / 'ratings'\n"
    + "    def read(self, name): return (self.at / name).read_text()\ndef f(): return Store().read('rates.csv')",
    "a module's file": "import ratings\nfrom pathlib import Path\n"
    "def f(): return Path(ratings.__file__).with_name('rates.csv').read_text()",
    "a module's path": "import os, ratings\n"
    "def f(): return open(os.path.join(ratings.__path__[0], 'rates.csv')).read()",
    "resources by name": "from importlib.resources import files\n"
    "def f(): return files('ratings').joinpath('rates.csv').read_text()",
    "resources of a module": "import importlib.resources, ratings\n"
    "def f(): return (importlib.resources.files(ratings) / 'rates.csv').read_text()",
    "resources within": "def f():\n    from importlib import resources\n"
    "    return (resources.files('ratings') / 'rates.csv').read_text()",
    "data of a package": "import pkgutil\ndef f(): return pkgutil.get_data('ratings', 'rates.csv')",
    "columns called as modes": PATH
    + "import json\ndef f():\n    row = json.loads((HERE / 'ratings' / 'rates.csv').read_text())\n"
    + "    return json.dumps([row['a'], row['w'], row['x'], row.get('r+') == 'wb'])",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "__init__.py").write_text("")
    (tmp_path / "ratings" / "rates.csv").write_text('{"a": 1, "w": 2, "x": 3}')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ratings", raising=False)
    yield tmp_path
    sys.modules.pop("ratings", None)


def key_of(folder: Path, source: str) -> Key:
    """The key of `f` in a module that stands in a folder, as a new process would make it."""
    module: Any = types.ModuleType("job")
    module.__file__ = str(folder / "job.py")
    exec(source, vars(module))
    return make_key(function=module.f, args={})


def listed(folder: Path, source: str) -> str:
    """What the fingerprint of `f` says that it could not see."""
    module: Any = types.ModuleType("job")
    module.__file__ = str(folder / "job.py")
    exec(source, vars(module))
    return "\n".join(fingerprint(module.f).unfollowed)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_the_code_names_counts_by_its_content(folder: Path, name: str) -> None:
    before = key_of(folder, READERS[name])
    (folder / "ratings" / "other.csv").write_text("not named")
    assert key_of(folder, READERS[name]) == before
    (folder / "ratings" / "rates.csv").write_text('{"a": 1, "w": 2, "x": 4}')
    assert key_of(folder, READERS[name]) != before


@pytest.mark.parametrize(
    "call",
    [
        "open(HERE / 'out.csv', 'w').write('1')",
        "open(HERE / 'out.csv', mode='x')",
        "(HERE / 'out.csv').open('a').write('1')",
        "open(HERE / 'out.csv', encoding='utf-8', mode='w+').write('1')",
        "(HERE / 'out.csv').write_text('1')",
    ],
)
def test_a_file_that_the_code_may_write_does_not_count_and_is_listed(folder: Path, call: str) -> None:
    source = PATH + f"def f():\n    {call}"
    (folder / "out.csv").write_text("as an earlier run left it")
    before = key_of(folder, source)
    assert "out.csv, because the function also writes files" in listed(folder, source)
    (folder / "out.csv").write_text("1")
    assert key_of(folder, source) == before


def test_a_folder_in_which_the_code_names_no_file_makes_a_key_incomplete(folder: Path) -> None:
    source = HERE + "AT = os.path.join(HERE, 'ratings')\ndef f(day): return open(os.path.join(AT, day + '.csv')).read()"
    assert f"files in {folder / 'ratings'}" in listed(folder, source)
    quiet = HERE + "def f(day): return day, HERE"
    assert listed(folder, quiet) == ""


def test_no_module_is_imported_because_a_text_looks_like_one(folder: Path) -> None:
    (folder / "settings_of_nobody.py").write_text(
        "import pathlib; pathlib.Path(__file__).with_name('imported').touch()"
    )
    (folder / "ratings" / "settings_of_nobody.cfg").write_text("1")
    source = "import pkgutil\ndef f(): return pkgutil.get_data('ratings', 'settings_of_nobody.cfg')"
    before = key_of(folder, source)
    assert not (folder / "imported").exists()
    assert "ratings" not in sys.modules
    (folder / "ratings" / "settings_of_nobody.cfg").write_text("2")
    assert key_of(folder, source) != before
