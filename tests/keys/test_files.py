"""Files count by their content, wherever they are and however they are named."""

from __future__ import annotations

import os
import pathlib
import socket
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import fsspec
import pytest

from cacheness import File, UnhashableArgument
from cacheness.keys import digest_of
from cacheness.keys.values import files


def write(path: pathlib.Path, text: str = "x") -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def age(path: pathlib.Path, seconds: float = 10) -> None:
    """Let a file look as if it had been written a while ago."""
    was = path.stat()
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns - int(seconds * 1e9)))


def test_a_path_counts_by_the_content_of_the_file(tmp_path: pathlib.Path) -> None:
    one, other = write(tmp_path / "one"), write(tmp_path / "sub" / "other")
    assert digest_of(one) == digest_of(other)
    other.write_text("y")
    assert digest_of(one) != digest_of(other)


def test_a_plain_string_is_a_string(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "one")
    before = digest_of(str(path))
    path.write_text("y")
    assert digest_of(str(path)) == before


def test_a_path_that_says_it_is_pure_counts_by_its_text(tmp_path: pathlib.Path) -> None:
    assert digest_of(pathlib.PurePosixPath("a")) != digest_of(pathlib.PurePosixPath("b"))


def test_a_file_rewritten_at_once_with_the_same_size_is_noticed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "busy"
    seen = set()
    for n in range(50):
        path.write_text(f"{n:04d}")
        seen.add(digest_of(path))
    assert len(seen) == 50


def test_an_unchanged_file_is_read_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "one")
    monkeypatch.setattr(files, "_RECENT_NS", -1)
    before = digest_of(path)
    monkeypatch.setattr(files, "_read", lambda path: pytest.fail("read again"))
    assert digest_of(path) == before


def test_a_file_replaced_under_its_old_time_is_noticed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "one", "old")
    was = path.stat()
    monkeypatch.setattr(files, "_RECENT_NS", -1)
    before = digest_of(path)
    path.write_text("new")
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert digest_of(path) != before


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "one")
    read = files._read

    def read_and_change(name: str) -> bytes:
        digest = read(name)
        path.write_text("longer")
        return digest

    monkeypatch.setattr(files, "_read", read_and_change)
    with pytest.raises(UnhashableArgument, match=r"args\.path: file .*one changed while it was being read"):
        digest_of(path, "args.path")


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: File(p), lambda p: File(f"file://{p}")])
def test_a_missing_file_is_named(tmp_path: pathlib.Path, wrap: Any) -> None:
    with pytest.raises(UnhashableArgument, match=r"nowhere cannot be read .*No such file"):
        digest_of(wrap(tmp_path / "nowhere"))


def test_a_file_that_is_no_file_is_refused(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(UnhashableArgument, match=f"{name} is neither a regular file nor a directory"):
                digest_of(tmp_path / name)


def test_a_path_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(UnhashableArgument):
        digest_of(pathlib.Path("a\0b"))


def test_a_directory_counts_by_its_tree(tmp_path: pathlib.Path) -> None:
    for name in ("one", "other"):
        write(tmp_path / name / "a")
        write(tmp_path / name / "sub" / "b", "b")
    before = digest_of(tmp_path / "one")
    assert before == digest_of(tmp_path / "other")
    changes = []
    for change in (
        lambda d: (d / "sub" / "b").write_text("c"),
        lambda d: (d / "sub" / "b").rename(d / "sub" / "c"),
        lambda d: (d / "sub" / "c").rename(d / "c"),
        lambda d: (d / "empty").mkdir(),
        lambda d: (d / "a").unlink(),
    ):
        change(tmp_path / "other")
        changes.append(digest_of(tmp_path / "other"))
    assert len({before, *changes}) == 6


def test_a_tree_and_a_file_of_its_words_differ(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "tree" / "a", "bc")
    write(tmp_path / "tree2" / "ab", "c")
    assert digest_of(tmp_path / "tree") != digest_of(tmp_path / "tree2")


def test_links_count_by_what_they_lead_to_and_circles_are_refused(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "tree" / "a")
    (tmp_path / "link").symlink_to(path)
    assert digest_of(tmp_path / "link") == digest_of(path)
    (tmp_path / "tree" / "up").symlink_to(tmp_path / "tree")
    with pytest.raises(UnhashableArgument, match="leads back to itself"):
        digest_of(tmp_path / "tree")


def test_a_pattern_counts_by_all_it_matches(tmp_path: pathlib.Path) -> None:
    for name in ("one", "other"):
        write(tmp_path / name / "a.csv", "a")
        write(tmp_path / name / "b.csv", "b")
        write(tmp_path / name / "c.txt", name)
    one = digest_of(File(tmp_path / "one" / "*.csv"))
    assert one == digest_of(File(f"file://{tmp_path}/other/*.csv"))
    write(tmp_path / "other" / "c.csv", "c")
    assert one != digest_of(File(tmp_path / "other" / "*.csv"))
    with pytest.raises(UnhashableArgument, match=r"no file matches .*\.parquet"):
        digest_of(File(tmp_path / "*.parquet"))


def test_a_name_with_brackets_is_a_name_when_it_exists(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "a[1].csv")
    before = digest_of(File(path))
    path.write_text("y")
    assert digest_of(File(path)) != before


@pytest.fixture
def memory() -> Any:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def test_a_remote_object_counts_by_its_content(memory: Any) -> None:
    memory.pipe({"/bucket/one": b"x", "/bucket/other": b"x"})
    one, other = File("memory://bucket/one"), File("memory://bucket/other")
    assert digest_of(one) == digest_of(other)
    memory.pipe("/bucket/other", b"y")
    assert digest_of(one) != digest_of(other)


def test_remote_patterns_count_by_all_they_match(memory: Any) -> None:
    memory.pipe({"/bucket/a.csv": b"a"})
    before = digest_of(File("memory://bucket/*.csv"))
    memory.pipe("/bucket/b.csv", b"b")
    assert digest_of(File("memory://bucket/*.csv")) != before
    with pytest.raises(UnhashableArgument, match="no file matches"):
        digest_of(File("memory://bucket/*.parquet"))


def test_a_missing_remote_object_is_named(memory: Any) -> None:
    with pytest.raises(UnhashableArgument, match="memory://bucket/nowhere cannot be read"):
        digest_of(File("memory://bucket/nowhere"))


def test_a_file_can_be_opened_and_used_as_a_path(tmp_path: pathlib.Path, memory: Any) -> None:
    path = write(tmp_path / "one")
    assert pathlib.Path(File(f"file://{path}")).read_text() == "x"
    with File(path).open() as stream:
        assert stream.read() == b"x"
    memory.pipe("/one", b"y")
    with File("memory://one").open() as stream:
        assert stream.read() == b"y"


def test_files_of_one_url_are_equal() -> None:
    assert File("a") == File("a") != File("b")
    assert len({File("a"), File("a")}) == 1


def test_an_object_in_s3_counts_by_its_tag(s3_url: str) -> None:
    parts = urlsplit(s3_url)
    query = dict(parse_qsl(parts.query))
    options = {
        "key": query["access_key_id"],
        "secret": query["secret_access_key"],
        "client_kwargs": {"endpoint_url": query["endpoint_url"]},
    }
    place = f"s3://{parts.netloc}{parts.path}"
    system, _ = fsspec.core.url_to_fs(place, **options)
    system.pipe({f"{place}/one": b"x", f"{place}/other": b"x"})
    one, other = File(f"{place}/one", **options), File(f"{place}/other", **options)
    assert digest_of(one) == digest_of(other)
    system.pipe(f"{place}/other", b"y")
    assert digest_of(one) != digest_of(other)
    with pytest.raises(UnhashableArgument, match=r"nowhere cannot be read"):
        digest_of(File(f"{place}/nowhere", **options))
