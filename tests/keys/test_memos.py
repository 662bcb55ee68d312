"""What libraries compute when something is first used is no part of a key; what was set is."""
# ruff: noqa: E501 - a table of sources reads better wide

from __future__ import annotations

import functools
import weakref

import pytest

from cacheness.keys import fingerprint
from tests.keys.edits import load

#: Source, and an edit that must be seen. `f(2)` is called between two keys.
REMEMBERING = {
    "a protocol that instances are checked against": (
        "from typing import Protocol, runtime_checkable\n@runtime_checkable\nclass P(Protocol):\n    def run(self): ...\nclass Q(P, Protocol):\n    def stop(self): ...\nclass K:\n    def go(self): return 1\ndef f(x): return isinstance(K(), P), isinstance(K(), Q)\n",
        ("def stop", "def go"),
    ),
    "a class whose annotations are read": (
        "class K: pass\ndef f(x): return K.__annotations__\n",
        ("pass", "n: int"),
    ),
    "a class below one whose annotations are read": (
        "class A: n: int\nclass K(A): pass\ndef f(x): return K.__annotations__, A.__annotations__\n",
        ("n: int", "n: str"),
    ),
    "a typed dictionary whose annotations are read": (
        "import typing\nclass K(typing.TypedDict): n: int\ndef f(x): return K.__annotations__\n",
        ("n: int", "n: str"),
    ),
    "a template": (
        "import jinja2\nENV = jinja2.Environment(loader=jinja2.DictLoader({'a': 'Hello {{ x }}'}))\ndef f(x): return ENV.get_template('a').render(x=x)\n",
        ("Hello", "Bye"),
    ),
    "macros of a template": (
        "import jinja2\nT = jinja2.Template('{% macro m() %}Hello{% endmacro %}')\ndef f(x): return str(T.module.m())\n",
        ("Hello", "Bye"),
    ),
    "a command": (
        "import click\nfrom click.testing import CliRunner\n@click.command()\n@click.option('--n', default=3)\ndef go(n): click.echo(n)\ndef f(x): return CliRunner().invoke(go, ['--help']).output, CliRunner().invoke(go, []).output\n",
        ("default=3", "default=4"),
    ),
    "a group of commands": (
        "import click\nfrom click.testing import CliRunner\n@click.group()\ndef all_(): pass\n@all_.command('one')\ndef one(): click.echo('a')\ndef f(x): return CliRunner().invoke(all_, ['one', '--help']).output, CliRunner().invoke(all_, ['one']).output\n",
        ("'a'", "'b'"),
    ),
    "a grammar": (
        "import pyparsing as pp\nN = pp.Word(pp.nums).set_parse_action(lambda t: int(t[0]) * 3)\nG = N + ',' + (N | pp.Word(pp.alphas) | 'x')\ndef f(x): return G.parse_string('12,a').as_list()\n",
        ("* 3", "* 4"),
    ),
    "a grammar that contains itself": (
        "import pyparsing as pp\nG = pp.Forward()\nG <<= pp.Word(pp.nums) + pp.Optional('+' + G)\ndef f(x): return G.parse_string('1+2').as_list()\n",
        ("'+'", "'-'"),
    ),
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_call_does_not_change_its_own_key(name: str) -> None:
    source, (old, new) = REMEMBERING[name]
    f = load(source, "remembering").f
    before = fingerprint(f).digest
    f(2)
    assert fingerprint(f).digest == before
    assert old in source
    assert fingerprint(load(source.replace(old, new), "remembering").f).digest != before


def test_an_environment_variable_of_an_option_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import click\n@click.command()\n@click.option('--n', envvar=['NUMBER_OF_MINE', 'OTHER_OF_MINE'])\ndef go(n): click.echo(n)\ndef f(x): return go\n"
    f = load(source, "with_an_option").f
    found = {fingerprint(f).digest}
    for name in ("NUMBER_OF_MINE", "OTHER_OF_MINE"):
        monkeypatch.setenv(name, "3")
        found.add(fingerprint(f).digest)
    monkeypatch.setenv("ANOTHER_OF_MINE", "3")
    assert fingerprint(f).digest in found
    assert len(found) == 3


def test_what_is_forgotten_with_a_function_runs_none_of_our_code() -> None:
    """What a signal raises in there, such as the end of a task's time, is lost: Python only prints it."""

    class Kept:
        pass

    def uses() -> type:
        return Kept

    fingerprint(uses)
    references = [one for thing in (uses, uses.__code__, Kept) for one in weakref.getweakrefs(thing)]
    callbacks = [one.__callback__ for one in references if one.__callback__ is not None]
    assert any(isinstance(one, functools.partial) for one in callbacks)
    assert not [one for one in callbacks if (getattr(one, "__module__", "") or "").startswith("cacheness")]
