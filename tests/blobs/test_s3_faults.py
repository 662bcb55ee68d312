"""Lines 22 to 31 of the list of faults, for both engines, against a real server behind a proxy."""

from __future__ import annotations

import os
import time
from urllib.parse import urlsplit

import pytest

from cacheness.blobs.filesystem import FilesystemStore
from cacheness.blobs.object_store import ObjectStore
from cacheness.blobs.s3_shared import S3Options
from cacheness.deadlines import Limits
from cacheness.errors import BlobMissing, CorruptEntry, StoreFull, StoreRefused, StoreUnavailable
from cacheness.records import BlobInfo
from cacheness.testing import servers
from cacheness.testing.proxy import Proxy

LIMITS = Limits(connect=1.0, stall=1.0, total=2.5, least_rate=4 << 20, cooldown=0.5)
#: What one call may take when the server is of no use: a last attempt may begin just before `total`.
PATIENCE = LIMITS.total + 2 * LIMITS.transfer(1 << 20) + 2.0
LARGE = 20 << 20

EMPTY_LISTING = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>cacheness</Name><Prefix></Prefix>
<KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"""


def error_body(code: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>So it is.</Message></Error>'.encode()
    )


def listing(prefix: str, names: list[str]) -> bytes:
    rest = "<LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size><ETag>x</ETag>"
    contents = "".join(f"<Contents><Key>{prefix}/{name}</Key>{rest}</Contents>" for name in names)
    return EMPTY_LISTING.replace(b"<KeyCount>", contents.encode() + b"<KeyCount>")


@pytest.fixture
def proxy(s3_url):
    with Proxy.before(s3_url) as proxy:
        yield proxy


def open_store(url: str, engine: str):
    if engine == "obstore":
        return ObjectStore.from_url(url, limits=LIMITS)
    return FilesystemStore.from_url(url + "&engine=s3fs", limits=LIMITS)


@pytest.fixture(params=["obstore", "s3fs"])
def store(request, proxy):
    store = open_store(proxy.url, request.param)
    yield store
    store.close()


@pytest.fixture
def direct(s3_url):
    store = ObjectStore.from_url(s3_url, limits=Limits())
    yield store
    store.close()


CALLS = {
    "write": lambda store: store.write("a/new", [b"new"]),
    "write_large": lambda store: store.write("a/large", [bytes(LARGE)]),
    "read": lambda store: store.read("a/b", 3),
    "stat": lambda store: store.stat("a/b"),
    "delete": lambda store: store.delete("a/b"),
    "scan": lambda store: list(store.scan()),
    "uploads": lambda store: list(store.uploads()),
}
ANY = b"HTTP/1.1\r\n"


@pytest.fixture(params=CALLS)
def call(request, direct):
    direct.write("a/b", [b"old"])
    return CALLS[request.param]


@pytest.fixture(params=["write", "read", "scan"])
def some_call(request, direct):
    direct.write("a/b", [b"old"])
    return CALLS[request.param]


# 22


def test_a_busy_server_is_asked_again(store, proxy, call) -> None:
    proxy.answer(ANY, 503, error_body("SlowDown"), times=1)
    call(store)
    assert proxy.connections > 1


@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (429, "TooManyRequests"), (408, "RequestTimeout")]
)
def test_whatever_passes_is_tried_again(store, proxy, direct, status, code) -> None:
    direct.write("a/b", [b"old"])
    proxy.answer(b"GET /", status, error_body(code), times=1)
    assert bytes(store.read("a/b", 3)) == b"old"


def test_a_server_that_stays_busy_is_unavailable_after_a_few_attempts(store, proxy, call) -> None:
    proxy.answer(ANY, 503, error_body("SlowDown"))
    with pytest.raises(StoreUnavailable, match="503"):
        call(store)
    assert len(proxy.requests) <= 3 * LIMITS.attempts


# 23


def test_a_dead_server_is_unavailable_and_soon_not_asked_any_more(store, proxy, call) -> None:
    proxy.refuse()
    with pytest.raises(StoreUnavailable):
        call(store)
    proxy.heal()
    with pytest.raises(StoreUnavailable, match="not called again"):
        store.stat("a/b")


def test_a_stalled_server_costs_one_call_its_deadline_and_the_next_ones_nothing(store, proxy, some_call) -> None:
    proxy.stall()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        some_call(store)
    assert time.monotonic() - began < PATIENCE
    connections = proxy.connections
    for _ in range(3):  # the circuit opens after three failures, or after the time that they took
        with pytest.raises(StoreUnavailable):
            store.stat("a/b")
    assert proxy.connections <= connections + 1


def test_a_server_that_comes_back_is_used_again(store, proxy, direct) -> None:
    direct.write("a/b", [b"old"])
    proxy.refuse()
    with pytest.raises(StoreUnavailable):
        store.read("a/b", 3)
    proxy.heal()
    time.sleep(LIMITS.cooldown)
    assert bytes(store.read("a/b", 3)) == b"old"


@pytest.mark.parametrize("engine", ["obstore", "s3fs"])
def test_a_host_that_does_not_exist_is_unavailable(s3_url, engine) -> None:
    store = open_store(
        "s3://bucket?endpoint_url=http://no-such-host.invalid&access_key_id=a&secret_access_key=b", engine
    )
    with pytest.raises(StoreUnavailable):
        store.read("a/b", 3)


# 24


def test_a_trickle_is_cut_off_by_the_total_deadline(store, proxy, direct) -> None:
    direct.write("a/b", [bytes(1 << 20)])
    proxy.throttle(20_000)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.read("a/b", 1 << 20)
    assert time.monotonic() - began < PATIENCE


def test_a_trickling_answer_to_a_write_is_cut_off(store, proxy) -> None:
    proxy.throttle(20)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.write("a/b", [b"x"])
    assert time.monotonic() - began < PATIENCE


# 25


@pytest.mark.parametrize("size", [100_000, LARGE])
@pytest.mark.parametrize("after", [10, 60_000])
def test_a_body_that_is_cut_is_read_again(store, proxy, direct, size, after) -> None:
    data = bytes(range(250)) * (size // 250)
    direct.write("a/b", [data])
    proxy.cut_response(after)
    assert bytes(store.read("a/b", len(data))) == data


# 26


@pytest.mark.parametrize("body", [b"", b"sho", b"a longer body than was asked for"])
def test_a_body_of_another_length_is_corrupt(store, proxy, direct, body) -> None:
    direct.write("a/b", [b"short"])
    stamps = {"Last-Modified": "Sun, 22 Nov 2026 14:31:01 GMT", "ETag": '"x"'}
    proxy.answer(b"GET /", 200, body, stamps)
    with pytest.raises(CorruptEntry):
        store.read("a/b", 5)


# 27


def test_a_write_whose_answer_is_lost_is_written_again(store, proxy, direct) -> None:
    proxy.drop_response(b"PUT /")
    store.write("a/b", [b"new"])
    assert bytes(direct.read("a/b", 3)) == b"new"


@pytest.mark.parametrize("step", [b"?uploads", b"partNumber=2", b"POST /"])
def test_a_large_write_survives_a_lost_answer_at_any_step(store, proxy, direct, step) -> None:
    data = bytes(range(250)) * (LARGE // 250)
    proxy.drop_response(step)
    store.write("a/b", [data])
    assert bytes(direct.read("a/b", len(data))) == data


# 28


def test_a_blob_deleted_behind_our_back_is_missing(store, direct) -> None:
    store.write("a/b", [b"old"])
    direct.delete("a/b")
    assert store.stat("a/b") is None
    with pytest.raises(BlobMissing):
        store.read("a/b", 3)


# 29


def test_a_refusal_is_a_matter_of_configuration_and_not_asked_again(store, proxy, call) -> None:
    proxy.answer(ANY, 403, error_body("AccessDenied"))
    with pytest.raises(StoreRefused) as caught:
        call(store)
    assert "credentials" in str(caught.value)
    assert len(proxy.requests) <= 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "InvalidAccessKeyId"),
        (400, "ExpiredToken"),
        (404, "NoSuchBucket"),
        (301, "PermanentRedirect"),
        (401, "Unauthorized"),
    ],
)
def test_every_kind_of_refusal_is_told_apart_from_trouble(store, proxy, some_call, status, code) -> None:
    proxy.answer(ANY, status, error_body(code), {"x-amz-bucket-region": "eu-west-1"})
    with pytest.raises(StoreRefused):
        some_call(store)


def test_a_redirection_to_nowhere_is_a_refusal(store, proxy) -> None:
    proxy.answer(ANY, 301, error_body("PermanentRedirect"))
    with pytest.raises(StoreRefused):
        list(store.uploads())


@pytest.mark.parametrize("engine", ["obstore", "s3fs"])
@pytest.mark.parametrize("what", CALLS)
def test_a_bucket_that_does_not_exist_is_refused_and_never_taken_for_empty(s3_url, engine, what) -> None:
    store = open_store(urlsplit(s3_url)._replace(netloc="no-such-bucket").geturl(), engine)
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        CALLS[what](store)
    store.close()


@pytest.mark.parametrize("engine", ["obstore", "s3fs"])
@pytest.mark.parametrize("what", CALLS)
def test_a_wrong_secret_is_refused_and_not_told(s3_url, engine, what) -> None:
    head, _, _ = s3_url.partition("&secret_access_key=")
    store = open_store(f"{head}&secret_access_key=a-wrong-secret", engine)
    with pytest.raises(StoreRefused) as caught:
        CALLS[what](store)
    assert "a-wrong-secret" not in f"{caught.value!r} {store!r}"
    store.close()


def test_a_clock_that_is_off_is_named_and_not_the_credentials(store, proxy, call) -> None:
    extra = b"<RequestTime>20260101T120000Z</RequestTime><ServerTime>2026-01-01T13:00:00Z</ServerTime></Error>"
    proxy.answer(ANY, 403, error_body("RequestTimeTooSkewed").replace(b"</Error>", extra))
    with pytest.raises(StoreRefused, match="the server's clock shows 2026-01-01T13:00:00Z") as caught:
        call(store)
    assert "Set the clock" in str(caught.value)
    assert "Check" not in str(caught.value)


def test_a_clock_that_is_behind_is_named_where_the_server_calls_it_denied(store, proxy, call) -> None:
    message = b"The difference between the request time and the server&#39;s time exceeds the maximum allowed."
    proxy.answer(ANY, 400, error_body("AccessDenied").replace(b"So it is.", message))
    with pytest.raises(StoreRefused, match="Set the clock"):
        call(store)


# 30


def test_an_empty_listing_does_not_hide_a_blob_from_who_asks_by_name(store, proxy, direct) -> None:
    direct.write("a/b", [b"old"])
    proxy.answer(b"list-type=2", 200, EMPTY_LISTING)
    assert list(store.scan()) == []
    assert store.stat("a/b") == BlobInfo("a/b", 3)


#: More names than a page of a listing has.
MANY = [f"a/{index:04d}" for index in range(1010)]


@pytest.fixture(scope="module")
def many_url(s3_server, shared_servers):
    """A prefix with objects of those names, which takes a second to write."""
    ours = "CACHENESS_TEST_S3_URL" not in os.environ
    with servers.fresh_prefix(s3_server, shared_servers.bucket if ours else None) as url:
        store = ObjectStore.from_url(url, limits=Limits())
        for name in MANY:
            store.write(name, [b"x"])
        store.close()
        yield url


@pytest.mark.xdist_group("listings of two pages")
class TestListingOfTwoPages:
    @pytest.fixture
    def s3_url(self, many_url):
        return many_url

    def test_a_listing_that_fails_on_its_second_page_goes_on_there(self, store, proxy) -> None:
        found = store.scan()
        first = [next(found).name for _ in range(5)]
        proxy.answer(b"list-type=2", 503, error_body("SlowDown"), times=1)
        assert first + [info.name for info in found] == MANY

    def test_a_listing_that_breaks_off_is_an_error_and_never_a_short_listing(self, store, proxy) -> None:
        found = store.scan()
        next(found)
        proxy.answer(b"list-type=2", 503, error_body("SlowDown"))
        with pytest.raises(StoreUnavailable):
            list(found)


def test_a_listing_out_of_order_is_refused(store, proxy, s3_url) -> None:
    prefix = S3Options.from_url(s3_url).prefix
    proxy.answer(b"list-type=2", 200, listing(prefix, ["a/1", "a/3", "a/2"]))
    with pytest.raises(StoreRefused, match="not sorted"):
        list(store.scan())


def test_an_object_that_is_shown_twice_while_it_is_written_over_counts_once(store, proxy, s3_url) -> None:
    prefix = S3Options.from_url(s3_url).prefix
    proxy.answer(b"list-type=2", 200, listing(prefix, ["a/1", "a/1", "a/2"]))
    assert [info.name for info in store.scan()] == ["a/1", "a/2"]


def test_names_that_only_others_use_are_listed_and_stop_nothing(store, proxy, s3_url) -> None:
    prefix = S3Options.from_url(s3_url).prefix
    names = ["a.b", "a/", "a/../b", "a//b", "a/\u00fc", "b"]
    proxy.answer(b"list-type=2", 200, listing(prefix, ["", *names]))
    assert [info.name for info in store.scan()] == names


# 31 and a full store


def test_a_blob_that_may_not_be_deleted_is_an_error_and_stays(store, proxy, direct) -> None:
    direct.write("a/b", [b"old"])
    proxy.answer(b"DELETE /", 403, error_body("AccessDenied"))
    with pytest.raises(StoreRefused):
        store.delete("a/b")
    assert direct.stat("a/b") == BlobInfo("a/b", 3)


@pytest.mark.parametrize(
    ("status", "code"), [(507, "InsufficientStorage"), (403, "QuotaExceeded"), (400, "EntityTooLarge")]
)
@pytest.mark.parametrize("what", ["write", "write_large"])
def test_a_full_bucket_is_full(store, proxy, status, code, what) -> None:
    proxy.answer(ANY, status, error_body(code))
    with pytest.raises(StoreFull):
        CALLS[what](store)


# a large upload that fails for good


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (503, "SlowDown")])
def test_a_large_upload_that_fails_is_not_left_behind(store, proxy, direct, status, code) -> None:
    proxy.answer(b"partNumber=2", status, error_body(code))
    with pytest.raises((StoreRefused, StoreUnavailable)):
        store.write("a/b", [bytes(LARGE)])
    assert direct.stat("a/b") is None
    assert list(direct.uploads()) == []


def test_an_upload_that_a_repair_aborted_is_begun_again(store, proxy, direct) -> None:
    data = bytes(range(250)) * (LARGE // 250)
    proxy.answer(b"?uploadId=", 404, error_body("NoSuchUpload"), times=1)
    store.write("a/b", [data])
    assert bytes(direct.read("a/b", len(data))) == data
