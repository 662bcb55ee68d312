"""Encode values that refer to a file's content: paths of other libraries, fsspec, Zarr, HDF5.

They count by the content that one would read through them, and are rejected if that is not visible.
Types are recognised by their class names, so that no library is imported for them.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from cacheness.keys.encode import Encoder, handles_family
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.values.attributes import add_attributes, held
from cacheness.keys.values.files import File, add_path, add_remote, digest_of_file, encoding_of, remote_content
from cacheness.keys.values.objects import instance

#: Keys of a mapping or store that are read one by one.
_MOST_KEYS: Final = 100_000
#: Files below the folder of a loader of templates, all of which are checked for each key.
_MOST_TEMPLATES: Final = 10_000


def is_of(kind: type, *names: str) -> bool:
    """Return True when a class, or a base class, has this name: `package:Name`, in the package or below."""
    for base in kind.__mro__:
        for name in names:
            package, _, qualname = name.partition(":")
            if base.__qualname__ == qualname and (base.__module__ + ".").startswith(package + "."):
                return True
    return False


def family(*names: str) -> Callable[[Callable[[Encoder, Any], None]], Callable[[Encoder, Any], None]]:
    """Let a function encode instances of these classes."""
    return handles_family(lambda kind: is_of(kind, *names))


def counted(encoder: Encoder, name: str, add: Callable[[Encoder], None]) -> None:
    """Append what `add` appends, and record that it counted, to be checked again."""

    def again() -> bytes:
        other = Encoder()
        add(other)
        return bytes(other.out)

    start = len(encoder.out)
    names, encoder.names = encoder.names, False
    try:
        add(encoder)
    finally:
        encoder.names = names
    if encoder.inputs is not None:
        encoder.inputs.count(name, bytes(encoder.out[start:]), again)


def add_file_of(encoder: Encoder, system: Any, path: str) -> None:
    """Append the content of a file on a file system of fsspec."""
    if is_local(system):
        add_path(encoder, system._strip_protocol(path))  # noqa: SLF001 - public in all but name
    else:
        counted(encoder, path, lambda inner: add_remote(inner, system, path, path))


def is_local(system: Any) -> bool:
    """Return True when a file system of fsspec is local."""
    return is_of(type(system), "fsspec.implementations.local:LocalFileSystem")


# paths


@handles_family(lambda kind: issubclass(kind, pathlib.Path))
def _own_path(encoder: Encoder, value: pathlib.Path) -> None:
    encoder.tagged("path", type(value), getattr(value, "__dict__", None))
    add_path(encoder, os.fspath(value))


@family("upath:UPath")
def _remote_path(encoder: Encoder, value: Any) -> None:
    encoder.tagged("path", type(value))
    add_file_of(encoder, value.fs, value.path)


@handles_family(lambda kind: hasattr(kind, "__fspath__") and kind is not File)
def _path_like(encoder: Encoder, value: os.PathLike[Any]) -> None:
    try:
        path = os.fsdecode(os.fspath(value))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise Unencodable(f"{type(value).__qualname__} does not show its file ({error})") from error
    encoder.open("path like", 2)
    names, encoder.names = encoder.names, False  # its text counts in addition to the content
    try:
        instance(encoder, value)
    finally:
        encoder.names = names
    add_path(encoder, path)


# fsspec


@family("fsspec.core:OpenFile")
def _open_file(encoder: Encoder, value: Any) -> None:
    if "r" not in value.mode or "+" in value.mode:
        raise Unencodable(f"file {value.path} is opened for writing")
    encoder.tagged("OpenFile", value.mode, value.compression, value.encoding, value.errors, value.newline)
    add_file_of(encoder, value.fs, value.path)


@family("fsspec.spec:AbstractBufferedFile", "fsspec.implementations.local:LocalFileOpener")
def _opened(_: Encoder, value: Any) -> None:
    raise Unencodable(f"{value!r:.80} is an open file: pass the path, or what fsspec.open returns")


@family("fsspec.mapping:FSMap")
def _mapper(encoder: Encoder, value: Any) -> None:
    counted(encoder, str(value.root), lambda inner: _add_tree(inner, value.fs, value.root))


def _add_tree(encoder: Encoder, system: Any, root: str) -> None:
    try:
        if is_local(system):
            encoder.out += encoding_of(root) if os.path.exists(root) else b"N"
            return
        system.invalidate_cache()
        found = system.find(root)
        if len(found) > _MOST_KEYS:
            raise Unencodable(f"{root} has more than {_MOST_KEYS} files")
        contents = {path[len(root) :].lstrip("/"): remote_content(system, path) for path in sorted(found)}
        encoder.tagged("mapper", contents)
    except OSError as error:
        raise Unencodable(f"{root} cannot be read ({error})") from error


# Zarr


@family("zarr:Array", "zarr:AsyncArray", "zarr:Group", "zarr:AsyncGroup")
def _zarr(encoder: Encoder, value: Any) -> None:
    store, path = value.store, value.path
    encoder.tagged("zarr", type(value).__name__, path)
    add_store(encoder, store, path)


@family(
    *(f"zarr:{name}Store" for name in ("Local", "Directory", "Fsspec", "FS", "Memory", "Zip")), "icechunk:IcechunkStore"
)
def _zarr_store(encoder: Encoder, value: Any) -> None:
    encoder.tagged("zarr store", type(value).__name__)
    add_store(encoder, value, "")


def add_store(encoder: Encoder, store: Any, path: str) -> None:
    """Append the content of a Zarr store below a path. Raises Unencodable for a store that is not visible."""
    kind = type(store)
    if is_of(kind, "icechunk:IcechunkStore"):
        encoder.add(snapshot_of(store))
    elif (root := local_root(store)) is not None:
        add_path(encoder, os.path.join(root, path) if path else root)
    elif is_of(kind, "zarr:FsspecStore", "zarr:FSStore"):
        root = f"{store.path}/{path}".rstrip("/")
        counted(encoder, root, lambda inner: _add_tree(inner, store.fs, root))
    elif is_of(kind, "zarr:MemoryStore") and hasattr(store, "_store_dict"):
        inside = {k: v.to_bytes() for k, v in store._store_dict.items() if k.startswith(path)}  # noqa: SLF001
        encoder.add(inside)
    else:
        raise Unencodable(f"a Zarr store of type {kind.__module__}.{kind.__qualname__}, whose content cannot be seen")


def local_root(store: Any) -> str | None:
    """Return the folder or file on this machine that contains a Zarr store, None for other stores."""
    if is_of(type(store), "zarr:LocalStore"):
        return str(os.fspath(store.root))
    if is_of(type(store), "zarr:DirectoryStore", "zarr:ZipStore"):
        return str(os.fspath(store.path))
    if is_of(type(store), "zarr:FsspecStore", "zarr:FSStore") and is_local(_synchronous(store.fs)):
        return str(store.path)
    return None


def _synchronous(system: Any) -> Any:
    # Zarr wraps a file system without coroutines in one that has them.
    return getattr(system, "sync_fs", system) if is_of(type(system), "fsspec:AsyncFileSystemWrapper") else system


def snapshot_of(store: Any) -> Any:
    """Return the snapshot that an Icechunk store reads. Raises Unencodable if changes are not committed."""
    session = store.session
    if getattr(session, "has_uncommitted_changes", False):
        raise Unencodable("an Icechunk session with changes that are not committed")
    return ("icechunk", session.snapshot_id)


# HDF5 and NetCDF


@family("h5py:File", "h5py:Group", "h5py:Dataset", "h5netcdf:File", "h5netcdf:Group", "h5netcdf:Variable")
def _hdf5(encoder: Encoder, value: Any) -> None:
    file = getattr(value, "file", None) or getattr(value, "_root", value)
    if getattr(file, "mode", "r") != "r":
        raise Unencodable(f"the HDF5 file {file.filename} is open for writing")
    encoder.tagged("hdf5", type(value).__name__, value.name)
    add_path(encoder, os.fsdecode(file.filename))


@family("netCDF4:Dataset", "netCDF4:Group", "netCDF4:Variable")
def _netcdf(encoder: Encoder, value: Any) -> None:
    group = value.group() if hasattr(value, "group") and callable(value.group) else value
    encoder.tagged("netcdf", type(value).__name__, getattr(value, "name", ""), getattr(group, "path", ""))
    add_path(encoder, group.filepath())


@family("xarray.backends:FileManager", "xarray.backends:PickleableFileManager")
def _file_manager(encoder: Encoder, value: Any) -> None:
    if getattr(value, "_mode", "r") != "r" or not hasattr(value, "_args"):
        raise Unencodable("an open file of xarray whose content cannot be seen")
    encoder.open("xarray file", 3)
    encoder.add(value._opener)  # noqa: SLF001 - xarray has no public names for what a file was opened with
    encoder.add(value._kwargs)  # noqa: SLF001
    first, *rest = value._args or (None,)  # noqa: SLF001
    if not isinstance(first, str | os.PathLike):
        encoder.add([first, *rest])
        return
    path = os.fspath(first)
    if "://" in path:
        encoder.add([File(path), *rest])
    else:
        add_path(encoder, path)
        encoder.add(rest)


# templates

#: Attributes of a loader: where its files are, and its state.
_PLACES: Final = frozenset({"searchpath", "_template_root", "_archive", "_loader", "directories"})
_FOUND: Final = frozenset({"_collection", "_uri_cache", "_mutex"})


@family("jinja2:FileSystemLoader", "jinja2:PackageLoader", "mako:TemplateLookup")
def _templates(encoder: Encoder, value: Any) -> None:
    said = held(value)
    places = said.get("searchpath") or said.get("directories") or [said.get("_archive") or said.get("_template_root")]
    encoder.open("templates", 2 + len(places))
    encoder.add(type(value))
    add_attributes(encoder, value, {name: part for name, part in said.items() if name not in _PLACES | _FOUND})
    for place in map(os.fspath, filter(None, places)):
        if os.path.isfile(place):
            add_path(encoder, place)  # an archive
        else:
            counted(encoder, place, lambda inner, place=place: _add_templates(inner, place))  # type: ignore[misc]


def _add_templates(encoder: Encoder, folder: str) -> None:
    found = dict(islice(_files_below(folder), _MOST_TEMPLATES + 1))
    if len(found) > _MOST_TEMPLATES:
        raise Unencodable(f"a loader of templates from {folder}, which has more than {_MOST_TEMPLATES} files")
    encoder.add({name: digest_of_file(found[name]) for name in sorted(found)})


def _leads_back(within: str, name: str) -> bool:
    """Return True when a link leads to its folder or one above, so that following it would not end."""
    path = os.path.join(within, name)
    return os.path.islink(path) and f"{os.path.realpath(within)}{os.sep}".startswith(os.path.realpath(path) + os.sep)


def _files_below(folder: str) -> Iterator[tuple[str, str]]:
    # A loader may start at the root of a project, which has other files than templates.
    for within, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [n for n in folders if n[:1] != "." and n != "__pycache__" and not _leads_back(within, n)]
        for name in names:
            path = os.path.join(within, name)
            if os.path.isfile(path):
                yield os.path.relpath(path, folder), path
