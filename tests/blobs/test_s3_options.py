from __future__ import annotations

import subprocess
import sys

import pytest

from cacheness.blobs.filesystem import FilesystemStore
from cacheness.blobs.object_store import ObjectStore
from cacheness.blobs.s3 import S3Options
from cacheness.config import redacted
from cacheness.deadlines import Limits
from cacheness.errors import ConfigError

ENGINES = {"obstore": ObjectStore.from_url, "s3fs": lambda url, limits: FilesystemStore.from_url(url, limits=limits)}


def test_a_url_says_everything() -> None:
    options = S3Options.from_url(
        "s3://bucket/some/prefix/?endpoint_url=https%3A%2F%2Fs3.example:9000&region=eu-west-1&access_key_id=id"
        "&secret_access_key=a%2Bb/c&session_token=t=&addressing=virtual&engine=s3fs&anonymous=false"
    )
    assert options == S3Options(
        bucket="bucket",
        prefix="some/prefix",
        engine="s3fs",
        endpoint_url="https://s3.example:9000",
        region="eu-west-1",
        access_key_id="id",
        secret_access_key="a+b/c",
        session_token="t=",
        addressing="virtual",
    )
    assert (options.key("a/b"), options.name("some/prefix/a/b")) == ("some/prefix/a/b", "a/b")


def test_a_plus_sign_in_a_secret_is_a_plus_sign() -> None:
    assert S3Options.from_url("s3://b?access_key_id=x&secret_access_key=a+b").secret_access_key == "a+b"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://bucket?endpiont_url=http://x", "endpoint_url"),
        ("s3://bucket?prefix=x", "not an option"),
        ("s3:///prefix", "no bucket"),
        ("s3://bucket?access_key_id=x", "come together"),
        ("s3://bucket?secret_access_key=x", "come together"),
        ("s3://bucket?engine=boto", "obstore, s3fs"),
        ("s3://bucket?addressing=dns", "path, virtual"),
        ("s3://bucket?anonymous=maybe", "true nor false"),
        ("s3://bucket?endpoint_url=localhost:9000", "http://host:port"),
        ("s3://key:secret@bucket", "options"),
    ],
)
def test_an_option_that_cannot_work_is_an_error_that_says_why(engine, url, why) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        ENGINES[engine](url, limits=Limits())
    assert "secret@" not in str(caught.value)


def test_secrets_show_nowhere(s3_url) -> None:
    secret = S3Options.from_url(s3_url).secret_access_key
    for engine in ENGINES.values():
        store = engine(s3_url, limits=Limits())
        assert secret not in f"{store!r} {S3Options.from_url(s3_url)!r} {redacted(s3_url)}"
        store.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_keys_in_the_url_are_never_mixed_with_those_of_the_environment(s3_url, engine, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    store = ENGINES[engine](s3_url if engine == "obstore" else s3_url + "&engine=s3fs", limits=Limits())
    store.write("a/b", [b"x"])
    assert bytes(store.read("a/b", 1)) == b"x"
    assert [info.name for info in store.scan()] == ["a/b"]
    store.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_keys_may_come_from_the_environment(s3_url, engine, monkeypatch) -> None:
    options = S3Options.from_url(s3_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", options.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options.secret_access_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", options.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    url = f"{s3_url.partition('?')[0]}?engine={engine}"
    store = ENGINES[engine](url, limits=Limits())
    store.write("a/b", [b"x"])
    assert list(store.uploads()) == []
    assert [info.name for info in store.scan()] == ["a/b"]
    store.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("memory://x?nonsense=1", "nonsense"),
        ("no-such-scheme://x", "no-such-scheme"),
        ("local:///tmp/x?auto_mkdri=true", "auto_mkdri"),
    ],
)
def test_other_filesystems_know_their_options_too(url, why) -> None:
    with pytest.raises(ConfigError, match=why):
        FilesystemStore.from_url(url, limits=Limits())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "use"),
    [
        ("s3fs", "FilesystemStore.from_url('s3://bucket?engine=s3fs', limits=Limits())"),
        ("botocore", "next(ObjectStore.from_url('s3://bucket', limits=Limits()).uploads())"),
    ],
)
def test_a_missing_library_is_named_by_its_own_name(missing, use) -> None:
    script = f"""
import sys
sys.modules[{missing!r}] = None
from cacheness.blobs.filesystem import FilesystemStore
from cacheness.blobs.object_store import ObjectStore
from cacheness.deadlines import Limits
from cacheness.errors import MissingExtra
try:
    {use}
except MissingExtra as error:
    assert error.extra == "s3", error
    assert "pip install {missing}" in str(error), error
else:
    raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_obstore_alone_serves_reads_and_writes_without_s3fs_and_botocore(s3_url) -> None:
    script = f"""
import sys
sys.modules["s3fs"] = sys.modules["botocore"] = sys.modules["aiohttp"] = None
from cacheness.blobs.object_store import ObjectStore
from cacheness.deadlines import Limits
store = ObjectStore.from_url({s3_url!r}, limits=Limits())
store.write("a/b", [b"x"])
assert bytes(store.read("a/b", 1)) == b"x"
assert [info.name for info in store.scan()] == ["a/b"]
store.delete("a/b")
assert store.stat("a/b") is None
"""
    subprocess.run([sys.executable, "-c", script], check=True)
