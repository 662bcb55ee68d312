from __future__ import annotations

import contextlib
import itertools
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cacheness.blobs.filesystem import FilesystemStore
from cacheness.blobs.object_store import ObjectStore
from cacheness.blobs.s3_shared import S3Options
from cacheness.config import redacted
from cacheness.deadlines import Limits
from cacheness.errors import ConfigError, StoreUnavailable
from cacheness.records import BlobInfo
from cacheness.testing.proxy import Proxy

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
        ("s3://bucket?requester_pays=1", "true nor false"),
        ("s3://bucket?sse=AES512", "AES256, aws:kms"),
        ("s3://bucket?sse=AES256&sse_kms_key_id=x", "takes sse=aws:kms"),
        ("s3://bucket?ca=/nowhere.pem", "not a file"),
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


def header_of(request: bytes, name: str) -> bytes | None:
    for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        key, _, value = line.partition(b": ")
        if key.lower() == name.encode():
            return value
    return None


@pytest.mark.parametrize("engine", ENGINES)
def test_who_pays_and_encryption_are_told_with_the_requests(s3_url: str, engine: str) -> None:
    with Proxy.before(s3_url) as proxy:
        url = f"{proxy.url}&engine={engine}&requester_pays=true&sse=aws:kms&sse_kms_key_id=some-key"
        store = ENGINES[engine](url, limits=Limits())
        store.write("a/small", [b"x"])
        store.write("a/large", [bytes(20 << 20)])
        assert bytes(store.read("a/small", 1)) == b"x"
        assert store.stat("a/large") == BlobInfo("a/large", 20 << 20)
        assert [info.name for info in store.scan()] == ["a/large", "a/small"]
        store.delete("a/small")
        store.close()
    requests = [request for request in proxy.requests if b" HTTP/1.1\r\n" in request]
    assert {method.split()[0] for method in requests} >= {b"PUT", b"GET", b"HEAD", b"POST", b"DELETE"}
    assert {header_of(request, "x-amz-request-payer") for request in requests} == {b"requester"}
    begun = [one for one in requests if one.startswith((b"PUT", b"POST")) and b"ploadId=" not in one.split(b"\r\n")[0]]
    assert len(begun) == 2
    for request in begun:
        assert header_of(request, "x-amz-server-side-encryption") == b"aws:kms"
        assert header_of(request, "x-amz-server-side-encryption-aws-kms-key-id") == b"some-key"


LOCKED = b"""<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>
<Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>30</Days></DefaultRetention></Rule></ObjectLockConfiguration>"""
LIFECYCLE = b"""<LifecycleConfiguration>
<Rule><ID>old</ID><Status>Enabled</Status><Filter><Prefix>%b</Prefix></Filter><Expiration><Days>7</Days></Expiration></Rule>
<Rule><ID>cold</ID><Status>Enabled</Status><Filter/><Transition><Days>9</Days><StorageClass>GLACIER</StorageClass></Transition></Rule>
<Rule><ID>other</ID><Status>Enabled</Status><Filter><Prefix>elsewhere/</Prefix></Filter><Expiration><Days>1</Days></Expiration></Rule>
<Rule><ID>off</ID><Status>Disabled</Status><Filter/><Expiration><Days>1</Days></Expiration></Rule>
</LifecycleConfiguration>"""
VERSIONED = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@pytest.mark.parametrize("engine", ENGINES)
def test_rules_of_a_bucket_that_do_harm_are_named(s3_url: str, engine: str) -> None:
    with Proxy.before(s3_url) as proxy:
        store = ENGINES[engine](f"{proxy.url}&engine={engine}", limits=Limits())
        assert list(store.rules()) == []
        prefix = S3Options.from_url(s3_url).prefix.encode()
        proxy.answer(b"?object-lock", 200, LOCKED)
        proxy.answer(b"?lifecycle", 200, LIFECYCLE % prefix)
        proxy.answer(b"?versioning", 200, VERSIONED)
        words = ["for 30 days", "'old' deletes", "'cold' moves", "keeps versions"]
        found = list(store.rules())
        assert len(found) == len(words)
        assert all(word in detail and advice for word, (detail, advice) in zip(words, found, strict=True)), found
        proxy.heal()
        for right in (b"?object-lock", b"?lifecycle", b"?versioning"):
            proxy.answer(right, 403, DENIED)
        assert list(store.rules()) == []
        store.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of an authority that nobody knows, for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of our own")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(secret)
    return path


@contextmanager
def behind_tls(target: str, certificate: Path) -> Iterator[str]:
    """The endpoint of an S3 server, in front of which somebody speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    parts = urlsplit(target)

    class Pass(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as client,
                socket.create_connection((parts.hostname or "", parts.port or 0)) as server,
            ):
                client.settimeout(0.01)  # what TLS holds back is not seen by select
                server.settimeout(0.01)
                for here, there in itertools.cycle(((client, server), (server, client))):
                    with contextlib.suppress(TimeoutError):
                        if not (data := here.recv(1 << 16)):
                            return
                        there.sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Pass) as tls:
        thread = threading.Thread(target=tls.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{tls.server_address[1]}"
        finally:
            tls.shutdown()
            thread.join()


@pytest.mark.parametrize("engine", ENGINES)
def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
    s3_url: str, engine: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = unquote(dict(option.split("=", 1) for option in urlsplit(s3_url).query.split("&"))["endpoint_url"])
    limits = Limits(attempts=1, connect=2.0, stall=2.0, statement=2.0)
    with behind_tls(endpoint, certificate) as secure:
        url = f"{s3_url.replace(quote(endpoint, safe=''), quote(secure, safe=''))}&engine={engine}"
        assert secure in unquote(url)
        with contextlib.closing(ENGINES[engine](f"{url}&ca={certificate}", limits=limits)) as store:
            store.write("a/b", [b"x"])
            assert bytes(store.read("a/b", 1)) == b"x"
            assert list(store.uploads()) == []
        with contextlib.closing(ENGINES[engine](url, limits=limits)) as store, pytest.raises(StoreUnavailable):
            store.read("a/b", 1)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        with contextlib.closing(ENGINES[engine](url, limits=limits)) as store:
            assert bytes(store.read("a/b", 1)) == b"x"
