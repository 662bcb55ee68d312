"""What reads the code of functions is loaded with the first function, and changes nothing about keys made before."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import cacheness.keys
from cacheness.keys import code


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_key_of_plain_arguments_loads_nothing_that_reads_code(tmp_path: Path) -> None:
    program = """
        import sys
        from cacheness import UnifiedCache

        with UnifiedCache(sys.argv[1]) as cache:
            cache.put({"a": [1, 2.5]}, x=1, name="n")
            assert cache.get(x=1, name="n") == {"a": [1, 2.5]}
            of_functions = ("cacheness.keys.code.", "cacheness.memoize.")
            print(*sorted(name for name in sys.modules if name.startswith(of_functions)))
            cached = cache.cached(len)
            assert cached([1]) == cached([1]) == 1
            assert {"cacheness.keys.code.fingerprint", "cacheness.memoize.decorator"} <= set(sys.modules)
    """
    loaded = run(program, str(tmp_path)).split()
    assert loaded == ["cacheness.keys.code.function_code", "cacheness.memoize.options"]


@pytest.mark.slow
def test_what_a_value_counts_as_does_not_depend_on_what_was_loaded_before() -> None:
    program = """
        import sys
        from decimal import Decimal
        from fractions import Fraction
        from uuid import UUID
        from zoneinfo import ZoneInfo
        from cacheness import keys

        class Point:
            def __init__(self, x):
                self.x = x

        if sys.argv[1] == "first":
            keys.fingerprint(Point.__init__)
        values = [Point(1), Decimal("1.5"), Fraction(1, 3), UUID(int=7), ZoneInfo("UTC"), len, Point, Point(2).__init__]
        print(*(keys.encode(value).hex() for value in values))
        print(keys.fingerprint(Point.__init__).digest.hex())
    """
    assert run(program, "first") == run(program, "last")


def test_what_is_registered_counts_when_the_module_of_the_type_is_loaded_later() -> None:
    program = """
        import types
        from decimal import Decimal
        from fractions import Fraction
        from cacheness import keys, register

        for kind in (Decimal, types.MethodType):
            register(kind, lambda _: "mine")
        keys.encode(Fraction(1, 2)), keys.encode(len)
        print(*(b"mine" in keys.encode(value) for value in (Decimal(1), "".__init__, Decimal(2))))

        class Thing:
            def method(self):
                pass

        print(b"mine" in keys.encode(Thing().method))
    """
    assert run(program).split() == ["True", "False", "True", "True"]


@pytest.mark.parametrize("package", [cacheness.keys, code])
def test_a_package_has_no_other_names(package: object) -> None:
    with pytest.raises(AttributeError, match="no attribute 'wrong'"):
        package.wrong  # type: ignore[attr-defined] # noqa: B018
