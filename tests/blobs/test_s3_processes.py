"""What happens to S3 stores when processes are killed and forked, and what they take of memory."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from cacheness.blobs.filesystem import FilesystemStore
from cacheness.blobs.object_store import ObjectStore
from cacheness.deadlines import Limits
from cacheness.testing.contracts.blobs import NAME
from cacheness.testing.proxy import Proxy

ENGINES = ("obstore", "s3fs")
LARGE = 32 << 20

OPEN = """
import os, sys
from cacheness.blobs.filesystem import FilesystemStore
from cacheness.blobs.local import LocalBlobStore
from cacheness.blobs.object_store import ObjectStore, usable_here
from cacheness.deadlines import Limits

def open_store(url):
    if "://" not in url:
        return LocalBlobStore(url, limits=Limits())
    if "engine=s3fs" in url or not usable_here():
        return FilesystemStore.from_url(url, limits=Limits())
    return ObjectStore.from_url(url, limits=Limits())
"""


@pytest.fixture
def store(s3_url):
    store = ObjectStore.from_url(s3_url, limits=Limits())
    yield store
    store.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("looker", ENGINES)
def test_a_writer_killed_in_a_large_upload_leaves_an_upload_that_can_be_aborted(s3_url, engine, looker) -> None:
    script = f"{OPEN}\nopen_store(sys.argv[1]).write(sys.argv[2], [bytes({LARGE})])"
    with Proxy.before(s3_url) as proxy:
        proxy.stall_before(b"partNumber=3")
        url = f"{proxy.url}&engine={engine}"
        with subprocess.Popen([sys.executable, "-c", script, url, NAME]) as writer:
            while not any(b"partNumber=3" in request for request in proxy.requests):
                assert writer.poll() is None
            writer.send_signal(signal.SIGKILL)
    url = f"{s3_url}&engine={looker}"
    store = (ObjectStore if looker == "obstore" else FilesystemStore).from_url(url, limits=Limits())
    assert list(store.scan()) == []
    assert store.stat(NAME) is None
    (upload,) = store.uploads()
    assert upload.name == NAME
    assert list(store.uploads("default/ab/")) == [upload]
    assert list(store.uploads("default/cd/")) == []
    store.abort(upload)
    store.abort(upload)
    assert list(store.uploads()) == []
    store.close()


FORK = """
store = open_store(sys.argv[1])
store.write("parent", [b"old"])
child = os.fork()
if child == 0:
    os.alarm = __import__("signal").alarm(30)
    mine = open_store(sys.argv[1])
    print(type(mine).__name__, usable_here(), flush=True)
    assert bytes(mine.read("parent", 3)) == b"old"
    mine.write("child", [bytes(20 << 20)])
    assert [info.name for info in mine.scan()] == ["child", "parent"]
    assert list(mine.uploads()) == []
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert store.stat("child").size == 20 << 20
assert bytes(store.read("parent", 3)) == b"old"
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_forked_child_works_through_s3fs_and_its_parent_goes_on(s3_url, engine) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN + FORK, f"{s3_url}&engine={engine}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["S3fsStore", str(engine == "s3fs")]


def test_obstore_refuses_to_open_where_it_would_hang(s3_url) -> None:
    script = """
from cacheness.errors import StoreRefused
open_store(sys.argv[1]).write("parent", [b"old"])
child = os.fork()
if child == 0:
    try:
        ObjectStore.from_url(sys.argv[1], limits=Limits())
    except StoreRefused:
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    subprocess.run([sys.executable, "-c", OPEN + script, s3_url], check=True)


PEAK = """
def status(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(what))

size = 128 << 20
store = open_store(sys.argv[1])
store.write("warm", [bytes(9 << 20)])
store.read("warm", 9 << 20)
value = bytearray(os.urandom(1 << 20)) * 128 if sys.argv[2] == "write" else None
before = status("VmRSS") - (size if value else 0)
if value:
    store.write("value", [memoryview(value)[:100], memoryview(value)[100:]])
else:
    kept = store.read("value", size)
print((status("VmHWM") - before) / size)
"""


@pytest.mark.parametrize("kind", ["local", *ENGINES])
def test_large_values_are_never_held_twice(s3_url, tmp_path, kind) -> None:
    where = str(tmp_path / "blobs") if kind == "local" else f"{s3_url}&engine={kind}"
    for what in ("write", "read"):
        command = [sys.executable, "-c", OPEN + PEAK, where, what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) < 1.3, what


@pytest.mark.parametrize("engine", ENGINES)
def test_stores_work_when_called_from_a_running_event_loop(s3_url, engine) -> None:
    url = f"{s3_url}&engine={engine}"
    store = (ObjectStore if engine == "obstore" else FilesystemStore).from_url(url, limits=Limits())

    async def use() -> bytes:
        store.write(NAME, [b"one"])
        return bytes(await asyncio.to_thread(store.read, NAME, 3)) + bytes(store.read(NAME, 3))

    assert asyncio.run(use()) == b"oneone"
    assert bytes(store.read(NAME, 3)) == b"one"
    store.close()


@pytest.mark.parametrize(("engine", "said"), [("obstore", "engine=s3fs"), ("s3fs", "")])
def test_a_store_object_that_a_child_inherits_works_there_or_refuses(s3_url, engine, said) -> None:
    script = f"""{OPEN}
import signal
from cacheness.errors import StoreRefused
store = open_store(sys.argv[1])
store.write(sys.argv[2], [b"parent"])
list(store.scan())
child = os.fork()
if not child:
    signal.alarm(30)
    try:
        for _ in range(5):
            assert store.read(sys.argv[2], 6) == b"parent"
            assert [info.name for info in store.scan()] == [sys.argv[2]]
        text = ""
    except StoreRefused as error:
        text = str(error)
    os._exit(sys.argv[3] not in text or bool(text) != bool(sys.argv[3]))
for _ in range(50):
    assert store.read(sys.argv[2], 6) == b"parent"
    assert [info.name for info in store.scan()] == [sys.argv[2]]
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", script, f"{s3_url}&engine={engine}", NAME, said]
    assert subprocess.run(command, check=False, timeout=90).returncode == 0
