"""Answers that S3 does not give, but a login page, a proxy in between or another server does, for both engines."""

from __future__ import annotations

import sys

import pytest

from cacheness.blobs.filesystem import FilesystemStore
from cacheness.blobs.object_store import ObjectStore
from cacheness.deadlines import Limits
from cacheness.errors import BlobMissing, CachenessError, StoreRefused, StoreUnavailable
from cacheness.testing.proxy import Proxy

#: The circuit stays closed, or it would refuse what the answer is to refuse.
LIMITS = Limits(connect=1.0, stall=0.5, attempts=1, failures=1_000, total=1_000.0)
LARGE = bytes(range(250)) * (36 << 10)  # two parts
ANY = b"HTTP/1.1\r\n"
PAGE = b"<!DOCTYPE html><html><body>Please log in.</body></html>"
HTML = {"Content-Type": "text/html"}
STAMPS = {"Last-Modified": "Sun, 22 Nov 2026 14:31:01 GMT", "ETag": '"x"'}
ERROR = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code><Message>So it is.</Message></Error>'
CUT = b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTrunc'

ANSWERS = {
    "page": (200, PAGE, HTML),
    "page that is no XML": (200, PAGE.replace(b"</body>", b"<br>"), HTML),
    "nothing": (200, b"", {}),
    "204": (204, b"", {}),
    "304": (304, b"", STAMPS),
    "error": (200, ERROR, {}),
    "text": (200, b"ok", {}),
    "cut XML": (200, CUT, {}),
    "redirection": (302, b"", {"Location": "/login"}),
    "too short": (200, b"ol", {"Content-Length": "3"}),
    "no number": (200, b"old", {**STAMPS, "Content-Length": "three"}),
    "page of an error": (403, PAGE, HTML),
}

CALLS = {
    "write": lambda store: store.write("a/new", [b"new"]),
    "write_large": lambda store: store.write("a/large", [LARGE]),
    "read": lambda store: store.read("a/b", 3),
    "stat": lambda store: store.stat("a/b"),
    "delete": lambda store: store.delete("a/b"),
    "scan": lambda store: list(store.scan()),
    "uploads": lambda store: list(store.uploads()),
}
#: obstore does not say with what status a deletion was answered: the blob is an orphan then, which a repair finds.
NOT_SEEN = {"page", "page that is no XML", "nothing", "204", "error", "text", "cut XML", "redirection", "too short"}
#: What S3 itself answers to a deletion, or nearly.
DELETED = {"nothing", "204"}


@pytest.fixture
def proxy(s3_url):
    with Proxy.before(s3_url) as proxy:
        yield proxy


@pytest.fixture(params=["obstore", "s3fs"])
def engine(request):
    return request.param


@pytest.fixture
def store(engine, proxy):
    kind = ObjectStore if engine == "obstore" else FilesystemStore
    store = kind.from_url(f"{proxy.url}&engine={engine}", limits=LIMITS)
    yield store
    store.close()


@pytest.fixture
def direct(s3_url):
    store = ObjectStore.from_url(s3_url, limits=Limits())
    yield store
    store.close()


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_that_is_none_is_an_error_of_the_tree_and_never_a_result(store, engine, proxy, direct, kind) -> None:
    direct.write("a/b", [b"old"])
    if kind == "redirection":
        proxy.answer(b" /login ", 200, PAGE, HTML)
    proxy.answer(ANY, *ANSWERS[kind])
    for name, call in CALLS.items():
        if name == "delete" and kind in (NOT_SEEN if engine == "obstore" else DELETED):
            continue
        with pytest.raises(CachenessError) as caught:
            pytest.fail(f"{name} returned {call(store)!r}")
        assert not isinstance(caught.value, BlobMissing), name
        assert "\n" not in str(caught.value)
    proxy.heal()
    assert bytes(store.read("a/b", 3)) == b"old"
    assert [info.name for info in direct.scan()] == ["a/b"]


@pytest.mark.parametrize("call", ["write", "scan", "uploads"])
def test_not_found_is_not_the_answer_to_a_write_or_a_listing(store, proxy, call) -> None:
    proxy.answer(ANY, 404, PAGE, HTML)
    with pytest.raises(StoreRefused, match="404"):
        CALLS[call](store)


def test_an_empty_listing_is_believed_where_it_is_one(store) -> None:
    assert list(store.scan()) == []


def test_an_empty_listing_without_botocore_is_believed_only_where_s3_answers(s3_url, proxy, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    store = ObjectStore.from_url(proxy.url, limits=LIMITS)
    assert list(store.scan()) == []
    proxy.answer(ANY, 200, PAGE, HTML)
    with pytest.raises(StoreUnavailable, match="not one of S3"):
        list(store.scan())
    store.close()


# A put is acknowledged when the object is there.


def test_an_etag_that_is_the_md5_proves_a_put_and_costs_no_request(store, proxy, direct) -> None:
    store.write("a/b", [b"n", b"ew"])
    assert not any(request.startswith((b"HEAD", b"GET")) for request in proxy.requests)
    assert bytes(direct.read("a/b", 3)) == b"new"


def test_another_etag_is_read_back(store, proxy) -> None:
    """Encryption by the server's own keys makes them."""
    proxy.answer(b"PUT /", 200, b"", {"ETag": '"of-a-key"'})
    proxy.answer(b"HEAD /", 200, b"", {**STAMPS, "ETag": '"of-a-key"', "Content-Length": "3"})
    store.write("a/b", [b"new"])
    assert sum(request.startswith(b"HEAD") for request in proxy.requests) == 1


@pytest.mark.parametrize("there", [None, b"old", b"older"])
def test_a_put_that_the_server_answers_and_does_not_keep_is_an_error(store, proxy, direct, there) -> None:
    if there is not None:
        direct.write("a/b", [there])
    proxy.answer(b"PUT /", 200, b"", {"ETag": '"of-a-key"'})
    with pytest.raises(StoreUnavailable, match="does not have it" if there is None else "and the server has"):
        store.write("a/b", [b"new"])


def test_a_large_upload_is_read_back(store, proxy, direct) -> None:
    body = b"<CompleteMultipartUploadResult><ETag>&quot;x-2&quot;</ETag></CompleteMultipartUploadResult>"
    proxy.answer(b"?uploadId=", 200, body)
    with pytest.raises(StoreUnavailable, match="does not have it"):
        store.write("a/large", [LARGE])
    proxy.heal()
    store.write("a/large", [LARGE])
    assert bytes(direct.read("a/large", len(LARGE))) == LARGE
