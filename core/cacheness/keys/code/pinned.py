"""Fingerprint functions with a fixed version: name and version count, and the code does not."""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

from blake3 import blake3

from cacheness.keys.code.bytecode import info_of
from cacheness.keys.code.fingerprint import Fingerprint
from cacheness.keys.code.reader import read
from cacheness.keys.code.references import closure_of, full_name, module_name
from cacheness.keys.encode import digest_of, encode
from cacheness.keys.values.attributes import ABSENT, wrapped_by


def _data_of(fn: Any) -> list[bytes]:
    """Distinguish functions of one name: by the values they close over; and by the code if the name is `<lambda>`."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return []
    found = [info_of(code).digest] if code.co_name == "<lambda>" else []
    for variable, value in zip(code.co_freevars, closure_of(fn), strict=True):
        # Functions and classes among these values are code, which the version covers.
        if not isinstance(value, (types.FunctionType, type)):
            found.append(encode((variable, read(value, f"closure {variable}", {}).content)))
    return found


def pinned(fn: Any) -> Fingerprint:
    """Return a fingerprint that stays the same while the code changes."""
    bound: list[bytes] = []
    while isinstance(fn, (functools.partial, types.MethodType)) or wrapped_by(fn) is not ABSENT:
        if isinstance(fn, functools.partial):
            bound.append(digest_of((fn.args, fn.keywords), "partial"))
            fn = fn.func
        elif isinstance(fn, types.MethodType):
            bound.append(digest_of(fn.__self__, "self"))
            fn = fn.__func__
        else:
            fn = wrapped_by(fn)
    if inspect.getattr_static(fn, "__qualname__", None) is None:  # some objects have every attribute
        bound.append(digest_of(fn, "function"))
        fn = type(fn)
    bound += _data_of(fn)
    # Functions of one name in two modules are different; a script's module name is its file's.
    file = getattr(fn, "__globals__", {}).get("__file__")
    name = (module_name(fn.__module__, file), fn.__qualname__)
    return Fingerprint(blake3(encode(("pinned", name, bound))).digest(), full_name(fn), {}, ())
