"""Credentials that expire in mid run, for both engines, wherever they come from."""

from __future__ import annotations

import json

import pytest

from cacheness.blobs.filesystem import FilesystemStore
from cacheness.blobs.object_store import ObjectStore
from cacheness.blobs.s3_shared import S3Options
from cacheness.deadlines import Limits
from cacheness.errors import StoreRefused
from cacheness.testing.proxy import Proxy

OLD = "AKIDTHATEXPIRES"
EXPIRED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>ExpiredToken</Code><Message>It has expired.</Message></Error>'
)
CALLS = {
    "write": lambda store: store.write("a/new", [b"new"]),
    "write_large": lambda store: store.write("a/large", [bytes(9 << 20)]),
    "read": lambda store: store.read("a/b", 3),
    "stat": lambda store: store.stat("a/b"),
    "delete": lambda store: store.delete("a/c"),
    "scan": lambda store: list(store.scan()),
    "uploads": lambda store: list(store.uploads()),
}


@pytest.fixture(params=["environment", "file", "process"])
def give(request, monkeypatch, tmp_path):
    """Put credentials where AWS's tools look for them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    credentials, config, printed = (tmp_path / name for name in ("credentials", "config", "printed"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    def give(key: str, secret: str) -> None:
        if request.param == "environment":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        elif request.param == "file":
            credentials.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
        else:
            config.write_text(f"[profile team]\ncredential_process = cat {printed}\nregion = us-east-1\n")
            printed.write_text(json.dumps({"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret}))
            monkeypatch.setenv("AWS_PROFILE", "team")

    return give


@pytest.mark.parametrize("engine", ["obstore", "s3fs"])
def test_credentials_that_are_renewed_in_mid_run_are_used(s3_url, give, engine) -> None:
    options = S3Options.from_url(s3_url)
    with Proxy.before(s3_url) as proxy:
        url = f"{proxy.url.partition('?')[0]}?endpoint_url=http://127.0.0.1:{proxy.port}&engine={engine}"
        give(options.access_key_id, options.secret_access_key)
        kind = ObjectStore if engine == "obstore" else FilesystemStore
        store = kind.from_url(url, limits=Limits())
        store.write("a/b", [b"old"])
        for call in CALLS.values():
            proxy.heal()
            give(OLD, "of the old key")
            proxy.answer(options.access_key_id.encode() + b"/", 400, EXPIRED)  # those in use
            proxy.answer(OLD.encode(), 400, EXPIRED)
            with pytest.raises(StoreRefused, match="ExpiredToken"):
                call(store)
            proxy.heal()
            proxy.answer(OLD.encode(), 400, EXPIRED)
            give(options.access_key_id, options.secret_access_key)
            call(store)
        assert bytes(store.read("a/b", 3)) == b"old"
        store.close()


def test_credentials_that_cannot_be_read_are_a_refusal_that_says_why(s3_url, monkeypatch, tmp_path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config"
    config.write_text("[profile team]\ncredential_process = sh -c 'echo the login has expired >&2; exit 1'\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "team")
    endpoint = S3Options.from_url(s3_url).endpoint_url
    store = ObjectStore.from_url(f"s3://bucket?endpoint_url={endpoint}", limits=Limits())
    with pytest.raises(StoreRefused, match="the login has expired"):
        store.read("a/b", 3)
    store.close()
