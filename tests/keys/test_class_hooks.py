"""What a special name hides counts: hooks of enums, private attributes of models, a module's own `__getattr__`."""
# ruff: noqa: E501 - a table of edits reads better wide

from __future__ import annotations

import pathlib
import sys

import pytest

from cacheness.keys import digest_of, fingerprint
from cacheness.keys.owners import Owner, owner_of
from tests.keys.edits import load

EDITS = {
    "a value that an enum makes by itself": (
        (
            "import enum\nclass E(enum.Enum):\n    def _missing_(v): return E.A\n    _missing_ = staticmethod(_missing_)\n"
            "    A = 1\n    B = 2\ndef f(x): return E(x)\n"
        ),
        ("return E.A", "return E.B"),
    ),
    "what a flag does with unknown bits": (
        "import enum\nclass E(enum.IntFlag, boundary=enum.CONFORM):\n    A = 1\ndef f(x): return E(x)\n",
        ("CONFORM", "EJECT"),
    ),
    "a private attribute of a model": (
        (
            "import pydantic\nclass M(pydantic.BaseModel):\n    _seen: list = pydantic.PrivateAttr(default=[1])\n"
            "def f(x): return M()._seen\n"
        ),
        ("[1]", "[2]"),
    ),
    "a module that answers for names it has not": (
        (
            "import types\nm = types.ModuleType('m')\nexec('def __getattr__(n): return 1', vars(m))\n"
            "def f(x):\n    n = m\n    return n.a\n"
        ),
        ("return 1", "return 2"),
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_behind_a_special_name_is_a_miss(name: str) -> None:
    source, edit = EDITS[name]
    before = fingerprint(load(source, "hooked").f).digest
    assert fingerprint(load(source, "hooked").f).digest == before
    assert fingerprint(load(source.replace(*edit), "hooked").f).digest != before


class Fresh:
    def __init__(self, n: int) -> None:
        self.n = n

    def __getstate__(self) -> object:
        n = self.n
        return {"go": lambda: n}


def test_functions_made_while_a_value_is_taken_apart_are_told_apart() -> None:
    values = [[Fresh(a), Fresh(b)] for a in range(4) for b in range(4)]
    assert len({digest_of(value) for value in values}) == len(values)


def test_a_package_in_any_folder_is_a_library_where_its_record_lies_beside_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, listed in (("layered", "layered/deep.py,,\nlayered/__init__.py,,\n"), ("loose", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "deep.py").write_text("")
        info = tmp_path / f"{name}-2.0.dist-info"
        info.mkdir()
        (info / "RECORD").write_text(listed)
    monkeypatch.syspath_prepend(str(tmp_path))
    import layered.deep  # type: ignore[import-not-found]
    import loose.deep  # type: ignore[import-not-found]

    try:
        assert owner_of("layered.deep") == Owner("library", "layered", "2.0")
        assert owner_of("loose.deep").kind == "user"
    finally:
        for module in ("layered.deep", "layered", "loose.deep", "loose"):
            del sys.modules[module]
    assert layered.deep is not loose.deep


def test_no_class_of_a_library_is_asked_what_is_true_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(cls: type, *_: object) -> bool:
        raise AttributeError(f"{object.__repr__(cls)} is not asked")

    hooks = ("__bool__", "__len__", "__eq__", "__hash__", "__getattr__", "__contains__", "__iter__")
    meta = type("Meta", (type,), dict.fromkeys(hooks, never))
    group = meta("Group", (), {"__module__": "colorsys"})
    before = fingerprint(load("def f(x): return x.group\n", "hooked").f)
    assert before.digest == fingerprint(load("def f(x): return x.group\n", "hooked").f).digest
    assert group is not None
