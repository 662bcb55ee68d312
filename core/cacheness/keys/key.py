"""A key: the digest that names a result, and its components."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import lru_cache, partial
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from blake3 import blake3

from cacheness.errors import CodecError
from cacheness.keys import code
from cacheness.keys.code.function_code import FunctionCode, as_json, canonical, joined, merged
from cacheness.keys.decode import decode, describe, label_of, rebuilt
from cacheness.keys.encode import FORMAT, LONG, Digest, Encoder, encode, encode_code, is_registered
from cacheness.keys.error_paths import deciding
from cacheness.keys.inputs import Inputs
from cacheness.keys.outcome import Outcome
from cacheness.keys.values.builtins import SCALARS
from cacheness.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from cacheness.keys.code.fingerprint import Fingerprint

T = TypeVar("T")

#: Names that are options in every method, so an argument of that name must be in `args={…}`.
RESERVED: Final = frozenset(
    {
        "args",
        "prefix",
        "version",
        "function",
        "ttl",
        "tags",
        "default",
        "compute_seconds",
        "provenance",
        "by_value",
        "key",
    }
)
#: A longer encoding is stored in the row as its digest.
KEPT: Final = 4096
#: Arguments with files of which each subset is also looked up by name; of more, each one and all.
_EACH_SET: Final = 3
#: The most files of an argument in a row.
_NAMED: Final = 8
#: What the encodings contain of functions, of objects that say what counts of them, and of what is shortened.
_OF_CODE: Final = (b"@4:code", b"@3:own", b"@a:registered", *(b"#%c" % tag for tag in b"([{<>@"))
#: Encodings of arguments that seed nothing.
_NO_SEEDS: Final = frozenset({encode(None), encode(False)})
#: The prefix of a longer encoding that is kept to describe it.
_HEAD: Final = 256


#: Short arguments, names and functions whose part in keys is remembered: most calls repeat them.
_REMEMBERED: Final = 1024
#: Bytes of the longest encoding of an argument that is.
_SHORT: Final = 64
#: The start of a key's encoding: five fields, of which the first is the format.
_KEY_HEAD: Final = b"(5:i%x;" % FORMAT
#: The start of the encoding of 32 bytes.
_OF_DIGEST: Final = b"b20:"
#: Of an argument that cannot contain a file name.
_NO_INPUTS: Final = Inputs()


@dataclass(slots=True, eq=False)
class _Argument:
    """An argument's state when the key was made."""

    digest: bytes
    encoding: bytes  #: its beginning, if it is long
    whole: bool
    inputs: Inputs  #: the files that counted
    label: str = ""  #: of a Digest
    loose: bytes = b""  #: the digest without the order of dictionaries, if there are any
    unfollowed: Sequence[str] = ()  #: what is not visible
    _kept: bytes = b""
    _part: str = ""

    @property
    def kept(self) -> bytes:
        """Return the row's content, encoded: the value if it can be rebuilt, otherwise its digest."""
        self._format()
        return self._kept

    @property
    def part(self) -> str:
        """Return, for `explain`, a short digest, a description, and a short digest without order if there is one."""
        self._format()
        return self._part

    def _format(self) -> None:
        if self._part:
            return
        value = rebuilt(self.encoding) if self.whole else None
        label = self.label or label_of(self.encoding) if value is None else ""
        self._kept = _labelled(self.digest, label) if value is None else self.encoding
        described = self.label or value or describe(self.encoding, self.digest)
        loose = f',"{self.loose.hex()[:16]}"' if self.loose else ""
        self._part = f'["{self.digest.hex()[:16]}",{as_json(described)}{loose}]'

    @property
    def may_hold_code(self) -> bool:
        """Whether it may hold a function, or an object with methods."""
        is_short = self.whole or not self.encoding  # of a Digest, nothing is known but that a value has it
        return not is_short or any(sign in self.encoding for sign in _OF_CODE)


class Key:
    """The name of one result, and its components. `make_key` and `UnifiedCache.key` create it.

    Args:
        digest: 32 bytes.
        function: module:qualified name, "" without a function.
        prefix: the `prefix=` option.
        args: the canonical encoding of the arguments and options.
        components: canonical JSON of the components.
        code: the code of the function.
        origin: components that are not encoded yet.
    """

    __slots__ = (
        *("_args", "_as_text", "_code", "_components", "_origin"),
        *("alias", "digest", "function", "outputs", "own", "prefix"),
    )

    def __init__(
        self,
        digest: bytes,
        function: str = "",
        prefix: str = "",
        args: bytes | None = None,
        components: str | None = None,
        *,
        code: FunctionCode | None = None,
        origin: _Origin | None = None,
    ) -> None:
        self.digest = digest  #: 32 bytes
        self.function = function  #: module:qualified name
        self.prefix = prefix
        self.outputs = ""  #: for the entry: the files that its function wrote, in their final state
        self.own: bytes | None = None  #: for the entry of a graph's task: digest of the task itself
        self.alias: bytes | None = None  #: for the same: its digest with those of its input values
        self._args = args
        self._components = components
        self._code = code
        self._origin = origin
        self._as_text: dict[frozenset[str], Key] | None = None

    @property
    def hex(self) -> str:
        """Return the key as 64 hexadecimal digits, as every method of a cache accepts it."""
        return self.digest.hex()

    @property
    def args(self) -> bytes:
        """Return the canonical encoding of the arguments with which `put(**args)` makes this key again."""
        if self._args is None:
            self._args = encode({}) if self._origin is None else self._origin.args(self.prefix)
        return self._args

    @property
    def components(self) -> str:
        """Return canonical JSON for `explain`: digests and short descriptions of the arguments and options."""
        if self._components is None:
            self._components = "{}" if self._origin is None else self._origin.components()
        return self._components

    @property
    def code(self) -> FunctionCode | None:
        """Return the code of the function; None if it does not count."""
        if self._code is None and self._origin is not None and self._origin.function is not None:
            self._code = self._origin.function.code
        return self._code

    @property
    def all_components(self) -> dict[str, Any]:
        """Return all components of the key for `explain`, those of the code included."""
        return merged(self.components, self.code)

    @property
    def inputs(self) -> Mapping[str, Inputs]:
        """Return the files that counted, folders, and names that may become files, by argument, if there are any."""
        if self._origin is None:
            return {}
        arguments = self._origin.arguments
        return {n: a.inputs for n, a in arguments.items() if a.inputs}

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Return what can decide the result and is not visible, by name; empty for a key read from an entry."""
        unfollowed = () if self._origin is None else self._origin.unfollowed()
        return deciding(unfollowed) if unfollowed else ()

    @property
    def fingerprint(self) -> bytes | None:
        """Return the function's fingerprint, 32 bytes; None without one, and for a key read from an entry."""
        function = None if self._origin is None else self._origin.function
        return None if function is None else function.digest

    @property
    def draws(self) -> Sequence[str]:
        """Return the random numbers that this call draws without a seed, as text."""
        return () if self._origin is None else self._origin.draws()

    @property
    def argument_names(self) -> frozenset[str]:
        """Return the names of the arguments that count."""
        return frozenset() if self._origin is None else frozenset(self._origin.arguments)

    @property
    def may_hold_code(self) -> bool:
        """Whether an argument may hold a function, or an object with methods, that the body can call."""
        arguments = () if self._origin is None else self._origin.arguments.values()
        return any(argument.may_hold_code for argument in arguments)

    def under(self, fingerprint: bytes, parameters: Mapping[str, Mapping[str, str]]) -> bytes | None:
        """Return the key, 32 bytes, of the same call under another fingerprint.

        Args:
            fingerprint: of the other code.
            parameters: of those that differ there, by name: {"was": another name}, or {"default":
                the digest of the value that they must have}, in hexadecimal digits, if they are
                absent there.

        Returns:
            None if an argument that is absent there has another value than its default.
        """
        if self._origin is None:
            return None
        digests: dict[str, bytes] = {}
        for name, argument in self._origin.arguments.items():
            change = parameters.get(name, {})
            if "default" not in change:
                digests[change.get("was", name)] = argument.digest
            elif argument.digest.hex() != change["default"]:
                return None
        return _digest(fingerprint, self._origin.version, self.prefix, digests)

    def as_text(self) -> Mapping[frozenset[str], Key]:
        """Return the keys of the same call in which the files of some arguments count by their names only.

        A result whose function wrote these files is stored under such a key. Call this before the
        function, which may change its arguments.

        Returns:
            The names of those arguments -> the key.
        """
        if self._as_text is None:
            self._as_text = {} if self._origin is None else self._origin.keys_as_text(self.prefix)
        return self._as_text

    def after(self, outcome: Outcome, moved: Sequence[str] = ()) -> Key:
        """Return the key for a result whose function wrote files, with a record of these files.

        Args:
            outcome: what the function did to files.
            moved: process-wide generators of random numbers that moved during the call; they are only shown.
        """
        chosen = frozenset(name for name in outcome.as_text if self.inputs[name].found)
        stored = self.as_text()[chosen] if chosen else self
        made = copy(stored)
        made.outputs = outcome.outputs
        if moved:
            made._note("moved", list(moved))  # noqa: SLF001 - of this class
        return made

    def _note(self, name: str, value: Any) -> None:
        self._components = canonical(json.loads(self.components) | {name: value})

    def __copy__(self) -> Key:
        made = Key(
            self.digest, self.function, self.prefix, self._args, self._components, code=self._code, origin=self._origin
        )
        made._as_text = self._as_text
        return made

    def __repr__(self) -> str:
        return f"Key({self.hex})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(type(self), code=self.code)
        return (make, (self.digest, self.function, self.prefix, self.args, self.components))


class _Origin:
    """The components of a key. Formatted only when an entry is written or explained."""

    __slots__ = ("arguments", "function", "version", "with_files")

    def __init__(
        self,
        arguments: Mapping[str, _Argument],
        version: str | None,
        function: Fingerprint | None,
        with_files: dict[str, Any],
    ) -> None:
        self.arguments, self.version, self.function = arguments, version, function
        self.with_files = with_files  #: the arguments with files, until they are formatted

    def unfollowed(self) -> Sequence[str]:
        """Return what is not visible of the function, and of functions and classes in the arguments."""
        function = self.function
        in_arguments = [argument for argument in self.arguments.values() if argument.unfollowed]
        if not in_arguments and (function is None or not (function.unfollowed or function.chance)):
            return ()
        found = [] if function is None else [*function.unfollowed]
        return list(dict.fromkeys([*found, *self._unfollowed_in_call()]))

    def _unfollowed_in_call(self) -> list[str]:
        found: list[str] = []
        if self.function is not None and self.function.chance:
            found += self.draws()
        hidden = {name: argument.unfollowed for name, argument in self.arguments.items() if argument.unfollowed}
        return found + [line for name in sorted(hidden) for line in hidden[name]]

    def draws(self) -> Sequence[str]:
        """Return what the call draws without a seed."""
        if self.function is None or not self.function.chance:
            return ()
        given = {name: argument.encoding not in _NO_SEEDS for name, argument in self.arguments.items()}
        return code.random_calls.of_call(self.function.chance, given)

    def keys_as_text(self, prefix: str) -> dict[frozenset[str], Key]:
        """Return a key for each set of arguments whose files count by their names."""
        texts = {name: _encoded_argument(name, value, Inputs(as_text=True)) for name, value in self.with_files.items()}
        self.with_files.clear()
        return {
            chosen: _key(
                {**self.arguments, **{name: texts[name] for name in chosen}}, prefix, self.version, self.function, {}
            )
            for chosen in sets_of(sorted(texts))
        }

    def args(self, prefix: str) -> bytes:
        """Return for the row: options, and arguments, those named like an option separately."""
        kept = {name: self.arguments[name].kept for name in sorted(self.arguments)}
        if not RESERVED.isdisjoint(kept):
            clashing = {name: kept.pop(name) for name in RESERVED.intersection(kept)}
            kept["args"] = _mapping({name: clashing[name] for name in sorted(clashing)})
        if prefix:
            kept["prefix"] = _part(prefix)
        if self.version is not None:
            kept["version"] = _part(self.version)
        if self.function is not None:
            kept["function"] = _labelled(self.function.digest, self.function.name)
        return _mapping(kept)

    def components(self) -> str:
        """Return for `explain` all components but the code, which many keys share."""
        found: dict[str, Any] = {}
        if self.version:
            found["version"] = self.version
        named = {n: _files_of(a.inputs) for n, a in self.arguments.items() if a.inputs is not _NO_INPUTS}
        if files := {name: files for name, files in named.items() if files}:
            found["files"] = files
        if lines := self._unfollowed_in_call():
            known = () if self.function is None or self.function.code is None else self.function.unfollowed
            unfollowed = [line for line in dict.fromkeys(lines) if line not in known]
            found["unfollowed"], found["incomplete"] = unfollowed, deciding(unfollowed)
        parts = {name: argument.part for name, argument in self.arguments.items()}
        return canonical(found, {"args": joined(parts)} if parts else {})


def make_key(
    *,
    args: Mapping[str, Any],
    prefix: str = "",
    version: str | None = None,
    function: Callable[..., Any] | Digest | None = None,
) -> Key:
    """Return the key of a result.

    Args:
        args: the arguments, by name.
        prefix: a group of results.
        version: counts in place of the function's code; the function's name still counts.
        function: the function that computes the result, if there is one.

    Raises:
        UnhashableArgument: an argument has no encoding.
    """
    source = _source(function, version)
    # Names given by a user are labels; only a function reads files.
    reads = function is not None
    arguments = {name: _argument(name, value, reads=reads) for name, value in args.items()}
    with_files = {name: args[name] for name, argument in arguments.items() if argument.inputs.found}
    return _key(arguments, prefix, version, source, with_files)


def _key(
    arguments: Mapping[str, _Argument],
    prefix: str,
    version: str | None,
    source: Fingerprint | None,
    with_files: dict[str, Any],
) -> Key:
    digests = {name: argument.digest for name, argument in arguments.items()}
    digest = _digest(None if source is None else source.digest, version, prefix, digests)
    origin = _Origin(arguments, version, source, with_files)
    return Key(digest, "" if source is None else source.name, prefix, origin=origin)


def _digest(fingerprint: bytes | None, version: str | None, prefix: str, digests: Mapping[str, bytes]) -> bytes:
    # By name: the order of arguments does not count. What `encode` returns for these five fields, if no encoder is
    # registered for their types: such an encoder is for arguments, and must not make different keys equal.
    named = _mapping({name: _OF_DIGEST + digests[name] for name in sorted(digests)})
    return blake3(_shortened(_head(fingerprint, _part(version), _part(prefix)) + named)).digest()


def _part(text: str | None) -> bytes:
    """Return the encoding of a text; a subclass of `str` has its own."""
    if text is None:
        return b"N"
    return _text(text) if type(text) is str else encode_code(text)


def _shortened(encoding: bytes) -> bytes:
    """Return an encoding, or its digest if it is long, as `encode` does."""
    return encoding if len(encoding) <= LONG else b"#%b%b" % (encoding[:1], blake3(encoding).digest())


def _mapping(items: Mapping[str, bytes]) -> bytes:
    """Return the encoding of a dictionary whose values are encoded."""
    pieces = [b"{%x:" % len(items)]
    for name, encoding in items.items():
        pieces += (_text(name) if type(name) is str else encode_code(name), encoding)
    return _shortened(b"".join(pieces))


def _labelled(digest: bytes, label: str) -> bytes:
    """Return the encoding of a digest with its label, as stored in a row. In a key, labels do not count."""
    encoder = Encoder()
    encoder.tagged("digest", digest, label)
    return bytes(encoder.out)


@lru_cache(maxsize=_REMEMBERED)
def _head(fingerprint: bytes | None, version: bytes, prefix: bytes) -> bytes:
    code = b"N" if fingerprint is None else b"b%x:%b" % (len(fingerprint), fingerprint)
    return b"".join([_KEY_HEAD, code, version, prefix])


@lru_cache(maxsize=_REMEMBERED)
def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) > LONG:
        return b"s#%x:%b" % (len(encoded), blake3(encoded).digest())
    return b"s%x:%b" % (len(encoded), encoded)


def sets_of(names: Sequence[T]) -> Iterator[frozenset[T]]:
    """Return the sets of names to look up: each subset of a few, each name and all of many."""
    for size in range(1, len(names) + 1):
        if len(names) <= _EACH_SET or size in (1, len(names)):
            yield from map(frozenset, combinations(names, size))


def _files_of(inputs: Inputs) -> dict[str, Any]:
    """Return for `explain` files with short digests, folders, and names of files that count by their text."""
    files = {name: counted.digest.hex()[:16] for name, counted in islice(inputs.found.items(), _NAMED)}
    found = {"files": files, "folders": inputs.folders[:_NAMED], "text": dict(islice(inputs.unread.items(), _NAMED))}
    return {kind: what for kind, what in found.items() if what}


def arguments_of(entry_args: bytes) -> dict[str, Any]:
    """Return an entry's arguments and options, from which `put(**…)` and `get(**…)` make the same key.

    Args:
        entry_args: the field `args` of the entry.
    """
    found = decode(entry_args)
    if not isinstance(found, dict):
        raise CodecError("an entry's arguments are not a mapping")
    return found


def call_of(entry_args: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an entry's arguments by name, and separately the options `function`, `version` and `prefix`.

    Args:
        entry_args: the field `args` of the entry.
    """
    found = arguments_of(entry_args)
    arguments = {name: value for name, value in found.items() if name not in RESERVED}
    given = found.get("args", {})
    if not isinstance(given, dict):
        raise CodecError("an entry's arguments are not a mapping")
    options = {name: found.get(name) for name in ("function", "version", "prefix")}
    return arguments | given, options


def digest_of_argument(name: str, value: Any) -> bytes:
    """Return the digest with which an argument of a function counts in its key.

    Args:
        name: the argument's name.
        value: its value.
    """
    return _argument(name, value, reads=True).digest


def _argument(name: str, value: Any, *, reads: bool) -> _Argument:
    """Return how an argument counts; with `reads`, files that it names count by their content."""
    kind = type(value)
    if kind is Digest:
        return _Argument(value.digest, b"", False, _NO_INPUTS, label=value.label or "value")
    encoding_of = SCALARS.get(kind)
    # The full encoding takes ten times as long.
    if encoding_of is not None and not is_registered((kind,)) and len(scalar := encoding_of(value)) <= _SHORT:
        return _short(scalar)
    return _encoded_argument(name, value, Inputs() if reads else None)


def _encoded_argument(name: str, value: Any, inputs: Inputs | None) -> _Argument:
    encoder = Encoder(inputs)
    encoder.run(value, f"args.{name}")
    encoding = bytes(encoder.out)
    inputs = _NO_INPUTS if inputs is None or not (inputs or inputs.unread) else inputs
    loose = encoder.loose() if encoder.orders else b""
    if len(encoding) <= _SHORT and inputs is _NO_INPUTS and not loose and not encoder.unfollowed:
        return _short(encoding)
    whole = len(encoding) <= KEPT
    kept = encoding if whole else encoding[:_HEAD]
    return _Argument(blake3(encoding).digest(), kept, whole, inputs, loose=loose, unfollowed=encoder.unfollowed)


@lru_cache(maxsize=_REMEMBERED)
def _short(encoding: bytes) -> _Argument:
    return _Argument(blake3(encoding).digest(), encoding, True, _NO_INPUTS)


def _source(function: Callable[..., Any] | Digest | None, version: str | None) -> Fingerprint | None:
    if function is None:
        return None
    if isinstance(function, Digest):
        return code.fingerprint.Fingerprint(function.digest, function.label, {}, ())
    return code.fingerprint.fingerprint(function) if version is None else code.pinned.pinned(function)
