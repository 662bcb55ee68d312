"""Check the arguments of cache calls, and convert them for the layers below."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

from cacheness import options
from cacheness.config import Config, redacted
from cacheness.errors import ConfigError
from cacheness.keys import RESERVED, Digest, Key, make_key
from cacheness.memoize import CachedOptions, Options
from cacheness.options import check_names
from cacheness.records import Entry
from cacheness.references import key_of_values
from cacheness.results.fields import is_text
from cacheness.units import Duration, seconds_of

#: Characters of a prefix, a version or a tag. Longer data belongs in an argument.
TEXT_LENGTH: Final = 4096
TEXT_SHOWN: Final = 300  #: characters of a stored reason
HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
FIRST_DIGITS: Final = re.compile(r"[0-9a-fA-F]{4,64}")  #: of a key
DIGEST_BYTES: Final = 32

Function: TypeAlias = Callable[..., Any] | Digest
#: What names one result: a key, its digest in bytes or 64 hexadecimal digits, or an entry.
KeyLike: TypeAlias = Key | str | bytes | Entry


#: The default directory of a cache.
HERE: Final = ".cacheness"


def configured(place: Config | str | os.PathLike[str] | None, parameters: Mapping[str, Any]) -> Config:
    """Return the given configuration, or one for a directory and parameters; None for no cache."""
    if isinstance(place, Config):
        if parameters:
            raise TypeError("give a Config or its parameters, not both")
        return place
    check_names("UnifiedCache", "parameter", parameters, Config.__dataclass_fields__)
    chosen: Any = dict(parameters)
    if place is None:
        return Config(**chosen | {"mode": "off"})
    if not isinstance(place, str | os.PathLike):
        raise TypeError(f"{place!r:.80} is neither a Config nor the path of a directory")
    if place == HERE:
        return Config(**chosen)
    if "cache_dir" in chosen:
        raise TypeError("UnifiedCache() got its directory twice: by itself and as cache_dir=")
    if isinstance(place, str) and "://" in place:
        raise ConfigError(f"{redacted(place)!r} is not a directory: {_meant_by(place)}")
    chosen["cache_dir"] = place
    return Config(**chosen)


def _meant_by(url: str) -> str:
    """Return the parameters to write instead of a URL that was given as a directory."""
    try:
        Config(metadata_backend=url)
    except ConfigError as error:
        if url.startswith("sqlite"):
            return str(error)
        return "give a URL as metadata_backend= or blob_store="
    return "give the URL of a database as metadata_backend=, and that of a bucket as blob_store="


def key_of(
    method: str,
    key: KeyLike | None,
    named: Mapping[str, Any],
    *,
    args: Mapping[str, Any] | None,
    prefix: str,
    version: str | None,
    function: Function | None,
) -> Key:
    """Return the key for a call: given as such, or made from arguments and options."""
    is_alone = not named and prefix == "" and args is None and version is None and function is None
    if key is not None and is_alone:  # most calls with a key
        return key if isinstance(key, Key) else Key(digest_named(key))
    if not RESERVED.isdisjoint(named):
        name = min(RESERVED.intersection(named))
        raise TypeError(f"{method}() has no option {name!r}; an argument of that name goes into args={{{name!r}: ...}}")
    if prefix != "" or version is not None or args is not None:
        _check_options(method, args, prefix, version)
    if key is None:
        if args and (both := set(args).intersection(named)):
            raise TypeError(f"{method}() got argument {min(both)!r} twice: by name and in args=")
        return key_of_values(
            {**(args or {}), **named},
            lambda given: make_key(args=given, prefix=prefix, version=version, function=function),
        )
    if args or named or prefix or version is not None or function is not None:
        raise TypeError(f"{method}() takes a key or the arguments that make one, not both")
    return key if isinstance(key, Key) else Key(digest_named(key))


def _check_options(method: str, args: object, prefix: str, version: str | None) -> None:
    wrong = not is_text(prefix) or not (version is None or is_text(version))
    if wrong or not (args is None or isinstance(args, Mapping)):
        raise TypeError(
            f"{method}() takes prefix= and version= as text and args= as a mapping, not"
            f" prefix={prefix!r:.40}, version={version!r:.40}, args={args!r:.40}"
        )
    for name, text in (("prefix", prefix), ("version", version or "")):
        _check_text(method, name, text)


def _check_text(method: str, name: str, text: str) -> None:
    if not is_text(text) or len(text) > TEXT_LENGTH:
        raise ValueError(
            f"{method}() takes {name}= of at most {TEXT_LENGTH:,} characters without NUL and surrogates, not"
            f" {text!r:.40} of {len(text):,}: longer text goes into an argument"
        )


def digest_named(key: KeyLike) -> bytes:
    """Return the digest of a key in any form; the key's components are unknown."""
    digest = _digest_in(key)
    if digest is None:
        wrong = ValueError if isinstance(key, str | bytes) else TypeError
        such_as = f": name={key!r:.80}" if isinstance(key, str) else ""
        raise wrong(
            f"{key!r:.80} is not a key: give what cache.key() or put() returned, or the 64 hexadecimal digits of"
            f" entry['cache_key']. Arguments are given by name{such_as}"
        )
    return digest


def first_digits(text: str) -> str:
    """Return the first digits of a key, in lower case. Raises ValueError for other text."""
    if not FIRST_DIGITS.fullmatch(text):
        raise ValueError(
            f"{text!r:.70} is not a key or its first digits: give at least four of its 64 hexadecimal digits"
        )
    return text.lower()


def check_order(value: Any, key: Any) -> None:
    """Raise TypeError when a put has its key first and its value second."""
    if _digest_in(key) is None and (isinstance(value, str) or _digest_in(value) is not None):
        raise TypeError(
            f"put() takes the value first and then its key, and {key!r:.80} is not a key: put(value, key), or arguments"
            " by name: put(value, x=1)"
        )


def _digest_in(thing: Any) -> bytes | None:
    """Return the digest from what names one result; None for anything else."""
    if isinstance(thing, Key):
        return thing.digest
    if isinstance(thing, Entry):
        return thing.key
    if isinstance(thing, str):
        return bytes.fromhex(thing) if HEX_KEY.fullmatch(thing) else None
    return thing if isinstance(thing, bytes) and len(thing) == DIGEST_BYTES else None


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags, sorted, each once."""
    if isinstance(tags, str):
        raise TypeError(f"tags={tags!r} is a string; give a list of tags: tags=[{tags!r}]")
    if tags == ():  # of most puts
        return ()
    tags = list(tags)
    for tag in tags:
        if not tag or not is_text(tag) or "\n" in tag or len(tag) > TEXT_LENGTH:
            raise ValueError(
                f"tag {tag!r:.40} cannot be used: a tag is text without line breaks and NUL, not empty, and of at most"
                f" {TEXT_LENGTH:,} characters"
            )
    return tuple(sorted(map(str.__str__, set(tags))))


def checked_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of a decorator, at the decoration and not at the first call that uses them."""
    defaults = Options()
    check_names("cached", "option", given, CachedOptions.__annotations__)
    chosen = {n: options.checked(n, value, optional=getattr(defaults, n) is None) for n, value in given.items()}
    if "tags" in chosen:
        chosen["tags"] = checked_tags(chosen["tags"])
    for name in ("prefix", "version"):
        options.checked(name, chosen.get(name), partial(_check_text, "cached", name), optional=True)
    return chosen


def is_full_name(function: str) -> bool:
    """Return True when a name is a module and a qualified name, joined by a colon."""
    return all(function.partition(":")[::2])


def functions_called(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return those of the known functions that a name selects, as each command and method takes it.

    "module:name" or "module.name" is one function, "name" alone that of any module, "module:" all of a module, and
    "module", "package" or "module.Class" all below it.
    """
    known = list(known)
    if name in known:
        return (name,)
    if name.endswith(":"):
        return tuple(function for function in known if function.startswith(name))
    dotted = name.replace(":", ".") + "."
    return tuple(
        function
        for function in known
        if f"{function.replace(':', '.')}.".startswith(dotted) or function.partition(":")[2] == name
    )


def one_function(name: str, candidates: tuple[str, ...]) -> tuple[str, ...]:
    """Return the target of a deletion by name, if it is unambiguous: one function, or all of a module "module:"."""
    if name in candidates:
        return (name,)
    if len(candidates) <= 1 or name.endswith(":"):
        return candidates
    raise ValueError(
        f"function={name!r} could be {len(candidates)} functions: {', '.join(candidates)}. Nothing was deleted; give"
        ' one of these names, or "module:" for all of a module'
    )


def canonical_json(mapping: Mapping[str, Any]) -> str:
    """Return the same text for equal mappings; values that JSON cannot represent are written as text."""
    return json.dumps(mapping, sort_keys=True, separators=(",", ":"), default=str) if mapping else "{}"


def shown(text: str, most: int = TEXT_SHOWN) -> str:
    """Return text that every store accepts and one line of a terminal shows; truncated if long."""
    return "".join(char if char.isprintable() else " " for char in text[:most])


def lifetime_of(ttl: Duration) -> float:
    """Return a lifetime in seconds."""
    seconds = seconds_of(ttl)
    if not seconds > 0:
        raise ValueError(f"ttl={ttl!r} must be greater than 0")
    return seconds
