"""Explain a miss: compare the components of two keys."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from cacheness import html
from cacheness.keys import FunctionCode, Key, merged, not_as_left
from cacheness.lazy_dataclass import dataclass
from cacheness.printable import printable
from cacheness.records import MICROSECONDS, Entry

#: How a change of each component is described: both sides known, only the new one, only the old one.
_SENTENCES = {
    "arg": ("arg `{name}` {before} -> {after}", "arg `{name}` {after} is new", "arg `{name}` {before} is gone"),
    "code": ("code of `{name}` changed", "code of `{name}` is reached now", "code of `{name}` is no longer reached"),
    "value": ("value of `{name}` changed", "value of `{name}` counts now", "value of `{name}` no longer counts"),
    "bound": ("the {name} changed", "the {name} is new", "the {name} is gone"),
    "library": ("{name} {before} -> {after}", "{name} {after} is used now", "{name} {before} is no longer used"),
    "version": ("version {before} -> {after}", "version {after} is new", "version {before} is gone"),
    "order": ("`{name}` has the same items in another order",) * 3,
    "function": ("`{before}` is called `{after}` now",) * 3,
    "prefix": ("prefix {before} -> {after}", "prefix {after} is new", "prefix {before} is gone"),
}

_DECIDES = ", which can decide the result"


@dataclass(frozen=True, slots=True)
class Change:
    """A component that differs between two keys."""

    #: arg, file (of an argument), code, value, bound (in a partial or method), library, version, prefix,
    #: function (another name for the same code); order: the same items in another order
    kind: str
    name: str
    before: str | None  #: None: it was absent
    after: str | None  #: None: it is absent now

    def __str__(self) -> str:
        if self.kind == "output":
            return f"file {self.name}, which the function wrote or read, is not as it was left"
        if self.kind == "file":
            return _of_file(self.name, self.before, self.after)
        if self.kind == "arg" and self.before == self.after:
            return f"arg `{self.name}` changed"
        changed, new, gone = _SENTENCES[self.kind]
        sentence = new if self.before is None else gone if self.after is None else changed
        return sentence.format(name=self.name, before=self.before, after=self.after)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether a call would hit, and if not, what differs from the nearest earlier entry."""

    hit: bool  #: True when the call would return a cached result
    key: str  #: 64 hexadecimal digits
    function: str  #: module:qualified name
    changes: tuple[Change, ...]  #: compared with the nearest entry
    nearest: str | None  #: key of that entry, or of the hit
    age: float | None  #: of that entry, in seconds
    unfollowed: tuple[str, ...]  #: what is not visible, or counts by its type only
    files: tuple[str, ...] = ()  #: arguments, or strings in them, that count by the content of a file
    folders: tuple[str, ...] = ()  #: strings that name a folder
    incomplete: tuple[str, ...] = ()  #: of what is not followed, the parts that can decide the result
    text: tuple[str, ...] = ()  #: strings that name a file or folder and count by their text only
    # It drew or seeded, or another thread did.
    moved: tuple[str, ...] = ()  #: generators of random numbers that moved while that entry was computed
    mode: str = ""  #: why the cache's mode makes it a miss although the result exists; "" otherwise
    past: str = ""  #: why an existing result is not served: expired, or disputed; "" if there is none
    accepted: str = ""  #: the evidence with which a result of earlier code is served; "" for a result of today's code

    def __str__(self) -> str:
        lines = [self.sentence()]
        lines += [f"  counts by its content: {line}" for line in self.files]
        lines += [f"  names a folder: {line}" for line in self.folders]
        lines += [f"  counts by its name: {line}" for line in self.text]
        lines += [f"  not followed: {line}{_DECIDES * (line in self.incomplete)}" for line in self.unfollowed]
        lines += [f"  moved while that entry was computed: the process-wide generator of {name}" for name in self.moved]
        return "\n".join(map(printable, lines))

    def _repr_html_(self) -> str:
        return html.of_rows(self.function, [self.sentence()], [[line.strip()] for line in str(self).splitlines()[1:]])

    def sentence(self) -> str:
        """Return the explanation in one line."""
        return printable(self._sentence())

    def _sentence(self) -> str:
        name = self.function.replace(":", ".")
        if self.mode:
            return f"miss: {self.mode}"
        if self.hit:
            earlier = f", which earlier code made; {self.accepted}" if self.accepted else ""
            return f"hit: entry {_brief(self.nearest)} of `{name}` from {_ago(self.age)}{earlier}"
        if self.past:
            return f"miss: {self.past}; entry {_brief(self.nearest)} of `{name}` from {_ago(self.age)} is not served"
        if self.nearest is None:
            return f"miss: no earlier entry of `{name}`"
        changes = "; ".join(map(str, self.changes)) or "what leads to what in the code changed"
        return f"miss: {changes}; nearest entry {_brief(self.nearest)} from {_ago(self.age)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as data for JSON."""
        return asdict(self)


#: Return the code that made entries, by their `fn`.
Codes: TypeAlias = Mapping[bytes, FunctionCode]


def explain(key: Key, candidates: Iterable[Entry], codes: Codes, now: int, past: str = "") -> Explanation:
    """Compare a key with entries of the same function, or of its former name.

    Args:
        now: microseconds since the epoch.
        past: why the key's own entry is not served.
    """
    parts = key.all_components
    mine = _parts_of(parts, key.prefix)
    nearest: Entry | None = None
    changes: tuple[Change, ...] = ()
    for entry in sorted(candidates, key=lambda entry: entry.created_at, reverse=True):
        if entry.key == key.digest:
            nearest = entry
            changes = tuple(Change("output", name, None, None) for name in not_as_left(entry.outputs or ""))
            break
        found = tuple(_changes_since(entry, codes, key, mine))
        if nearest is None or len(found) < len(changes):
            nearest, changes = entry, found
    return Explanation(
        hit=nearest is not None and nearest.key == key.digest and not changes and not past,
        key=key.hex,
        function=key.function or "these arguments",
        changes=changes,
        nearest=None if nearest is None else nearest.cache_key,
        age=None if nearest is None else max(now - nearest.created_at, 0) / MICROSECONDS,
        unfollowed=tuple(parts.get("unfollowed", ())),
        incomplete=tuple(parts.get("incomplete", ())),
        files=tuple(f"arg `{arg}`: {name}" for arg, name in _named_in(parts, "files")),
        folders=tuple(f"arg `{arg}`: {name}" for arg, name in _named_in(parts, "folders")),
        text=tuple(f"arg `{arg}`: {name}" for arg, name in _named_in(parts, "text")),
        past=past,
        moved=() if nearest is None else tuple(json.loads(nearest.components).get("moved", ())),
    )


def changes_of_code(entry: Entry, codes: Codes, key: Key) -> Iterator[Change]:
    """Return the differences in code from an entry, whatever its arguments were."""
    ours = ("arg", "file", "prefix")
    return (c for c in _changes_since(entry, codes, key, _parts_of(key.all_components, "")) if c.kind not in ours)


def _changes_since(entry: Entry, codes: Codes, key: Key, mine: _Parts) -> Iterator[Change]:
    code = None if entry.fn is None else codes.get(entry.fn)
    then = _parts_of(merged(entry.components, code), entry.prefix)
    if entry.fn is not None and code is None:
        # Its code is unknown: the row was lost, or does not match the signed digest.
        then = {**then, **{kind: mine[kind] for kind in ("code", "value", "bound", "library")}}
    if entry.function == key.function:
        yield from _changes(then, mine)
        return
    before, after = (name.replace(":", ".") for name in (entry.function, key.function))
    yield Change("function", "", before, after)
    modules = [name.partition(":")[0] for name in (entry.function, key.function)]
    for kind in ("code", "value"):
        named = {_renamed(name, modules[0], modules[1]): part for name, part in then[kind].items()}
        then = {**then, kind: named}
    own = _renamed(before, modules[0], modules[1])
    then = {**then, "code": {name: part for name, part in then["code"].items() if name != own}}
    now = {**mine, "code": {name: part for name, part in mine["code"].items() if name != after}}
    yield from _changes(then, now)


def _renamed(name: str, before: str, after: str) -> str:
    return f"{after}.{name[len(before) + 1 :]}" if name.startswith(f"{before}.") else name


#: A component's digest, its name, and its digest without order.
_Part = tuple[str, str, str]
_Parts = Mapping[str, Mapping[str, _Part]]


def _parts_of(found: Mapping[str, Any], prefix: str) -> _Parts:
    """Return the components by kind and name."""
    version = found.get("version")
    return {
        "version": {} if version is None else {"": (version, repr(version), version)},
        "prefix": {"": (prefix, repr(prefix), prefix)} if prefix else {},
        "code": _named(found.get("code", {}), {}),
        "value": _named(found.get("values", {}), found.get("loose", {})),
        "bound": _named(found.get("bound", {}), {}),
        "library": _named(found.get("versions", {}), {}),
        "arg": {
            name: (digest, words, loose[0] if loose else digest)
            for name, (digest, words, *loose) in found.get("args", {}).items()
        },
        "file": {name: _files_in(files) for name, files in found.get("files", {}).items() if files.get("files")},
    }


def _named_in(parts: Mapping[str, Any], kind: str) -> Iterator[tuple[str, str]]:
    """Return each argument with each of its files, folders, or names that count by their text."""
    for arg, files in parts.get("files", {}).items():
        for name in files.get(kind, ()):
            yield arg, name


def _files_in(files: Mapping[str, Any]) -> _Part:
    """Return the digests of an argument's files, and their names."""
    named: Mapping[str, str] = files["files"]
    digests = json.dumps(named, sort_keys=True)
    return digests, ", ".join(sorted(named)), digests


def _of_file(name: str, before: str | None, after: str | None) -> str:
    # One side alone has a file; the other may have named the same one before it existed, or another.
    if before is None:
        return f"arg `{name}`: file {after}, where the nearest entry had none"
    if after is None:
        return f"arg `{name}`: no file, where the nearest entry had {before}"
    if before == after:
        return f"arg `{name}`: file {after} changed"
    return f"arg `{name}`: another file: {after}, where the nearest entry had {before}"


def _named(digests: Mapping[str, str], loose: Mapping[str, str]) -> dict[str, _Part]:
    return {name: (digest, digest, loose.get(name, digest)) for name, digest in digests.items()}


def _changes(before: _Parts, after: _Parts) -> Iterator[Change]:
    for kind, now in after.items():
        then = before[kind]
        # A file is more specific than the argument that names it.
        files = {*after["file"], *before["file"]} if kind == "arg" else ()
        for name in sorted({*then, *now}.difference(files)):
            old, new = then.get(name), now.get(name)
            if (old and old[0]) != (new and new[0]):
                same_items = old is not None and new is not None and old[2] == new[2]
                yield Change("order" if same_items else kind, name, old and old[1], new and new[1])


def _brief(key: str | None) -> str:
    return f"{key[:4]}…" if key else "none"


def _ago(seconds: float | None) -> str:
    seconds = seconds or 0.0
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
