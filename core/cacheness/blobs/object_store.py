"""Store blobs in S3, through obstore."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from cacheness import forks
from cacheness.blobs.names import checked
from cacheness.blobs.s3_shared import (
    PAGE,
    PART,
    PARTS_AT_MOST,
    SKEWED,
    SMALL,
    S3Client,
    S3Options,
    botocore_session,
    check_upload,
    in_order,
    is_md5,
    is_of_the_clock,
    meaning,
    no_answer_of_s3,
    renewing,
)
from cacheness.buffers import allocate, views_of
from cacheness.circuit import Guard
from cacheness.deadlines import Limits
from cacheness.errors import (
    BlobMissing,
    CachenessError,
    ConfigError,
    CorruptEntry,
    MissingExtra,
    StoreRefused,
    StoreUnavailable,
)
from cacheness.logs import logger_of
from cacheness.protocols import BlobStore, Buffer
from cacheness.records import BlobInfo, Upload
from cacheness.transfers import failures_of

if TYPE_CHECKING:
    from obstore import ObjectMeta

T = TypeVar("T")

_log = logger_of(__name__)

CHUNK: Final = 1 << 20  #: bytes of a large blob that one request transfers
CONCURRENT_PARTS: Final = 4
#: of a profile's credentials; obstore renews them five minutes before they expire
READ_AGAIN: Final = timedelta(minutes=10)

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_PROVIDER: Final = re.compile(r"External AWS credential provider: (?:\w+: )?(.*)")
_CLOCK: Final = re.compile(r"<ServerTime>([\w:.+-]+)</ServerTime>")
_KIND: Final = re.compile(r"kind: (\w+)")


def usable_here() -> bool:
    """Return True when obstore works in this process: not in a child forked after its parent used it.

    In such a child obstore's threads are missing, and a call waits for ever, even with a new store object.
    """
    return ObjectStore.first_used_in in (None, os.getpid())


def _refuse_where_it_hangs() -> None:
    if not usable_here():
        raise StoreRefused("obstore hangs in a process forked after its parent used it; use engine=s3fs here")


class ObjectStore:
    """Objects below a prefix of a bucket. S3 makes an object visible only when it is complete."""

    first_used_in: ClassVar[int | None] = None  #: process id

    def __init__(self, options: S3Options, *, limits: Limits) -> None:
        _refuse_where_it_hangs()
        ObjectStore.first_used_in = os.getpid()
        self._options = options
        self._limits = limits
        self._guard = Guard(options.place, limits)
        self._clients: dict[tuple[float, bool, bool], S3Store] = {}
        self._lock = threading.RLock()
        forks.watch_forks(self)
        self._botocore: S3Client | None = None

    @classmethod
    def from_url(cls, url: str, *, limits: Limits) -> ObjectStore:
        """Open `s3://bucket/prefix?…`, with the options of `S3Options`."""
        return cls(S3Options.from_url(url), limits=limits)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options.place!r})"

    def write(self, name: str, buffers: Sequence[Buffer]) -> None:
        """Upload a blob; a large one in parts, which S3 joins at the end."""
        views, size = views_of(buffers)
        key = self._options.key(checked(name))
        if size <= PART:
            data = views[0] if len(views) == 1 else b"".join(views)
            client = partial(self._client, size)
            put = partial(obstore.put, path=key, file=data, use_multipart=False)
        else:
            part = max(PART, -(-size // PARTS_AT_MOST))
            # Each part is a separate request, so the time for one part is the deadline of each.
            client = partial(self._client, part, upload=True)
            put = partial(
                obstore.put,
                path=key,
                file=views,
                use_multipart=True,
                chunk_size=part,
                max_concurrency=CONCURRENT_PARTS,
            )
        what = f"write {name}"

        def put_and_check() -> None:
            etag = put(client())["e_tag"]
            if size > PART or not is_md5(etag, views):
                self._check_upload(what, key, size, etag)

        self._call(what, put_and_check)

    def read(self, name: str, size: int) -> Buffer:
        """Download a blob into one buffer."""
        return self._call(f"read {name}", partial(self._read, name, self._options.key(checked(name)), size))

    def stat(self, name: str) -> BlobInfo | None:
        """Return one object's name and size, or None."""
        key = self._options.key(checked(name))
        what = f"look at {name}"
        try:
            return self._info(name, what, lambda: obstore.head(self._client(0), key))
        except (BlobMissing, StoreRefused):
            pass  # the answer to a HEAD has no body, so it does not show whether the bucket is missing
        try:
            return self._info(name, what, lambda: obstore.get(self._client(0), key).meta)
        except BlobMissing:
            return None

    def delete(self, name: str) -> None:
        """Delete one object, if it is there."""
        key = self._options.key(checked(name))
        try:
            self._call(f"delete {name}", lambda: obstore.delete(self._client(0), key))
        except BlobMissing:
            return

    def delete_many(self, names: Collection[str]) -> dict[str, CachenessError]:
        """Delete objects, a thousand per request; if a request fails, one by one, so that each has a result."""
        keys = [self._options.key(checked(name)) for name in names]
        if len(keys) > 1:
            try:
                self._call(f"delete {len(keys)} blobs", lambda: obstore.delete(self._client(0, bulk=True), keys))
            except CachenessError as error:
                _log.debug("%s", error)
            else:
                return {}
        return failures_of(self.delete, names)

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """List objects in the order of their names, a thousand per request."""
        return in_order(self._scan(prefix, after), after)

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """List multipart uploads that are not completed; needs the extra `s3`."""
        return self._with_botocore().uploads(prefix)

    def abort(self, upload: Upload) -> None:
        """Delete an unfinished upload; needs the extra `s3`."""
        self._with_botocore().abort(upload)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Return bucket settings that harm blobs, each with what to do; needs the extra `s3`."""
        return self._with_botocore().rules()

    def close(self) -> None:
        """Close connections."""
        self._clients.clear()
        if self._botocore is not None:
            self._botocore.close()
            self._botocore = None

    def reset_after_fork(self) -> None:
        """Make a new lock, which a parent's thread may hold, and drop the parent's connections."""
        self._lock, self._botocore = threading.RLock(), None

    def _read(self, name: str, key: str, size: int) -> Buffer:
        found = obstore.get(self._client(size), key)
        if found.meta["e_tag"] is None:
            raise no_answer_of_s3(self._options.place, f"read {name}", "it has no ETag")
        if found.meta["size"] != size:
            raise CorruptEntry(f"blob {name} has {found.meta['size']} bytes where its row has {size}")
        if size <= CHUNK:
            return bytearray(found.bytes())
        buffer = allocate(size)
        done = 0
        with memoryview(buffer) as view:
            for chunk in found.stream(min_chunk_size=CHUNK):
                view[done : done + len(chunk)] = chunk
                done += len(chunk)
        if done != size:
            raise StoreUnavailable(f"cannot read {name} in {self._options.place}: {done} of {size} bytes came")
        return buffer

    def _info(self, name: str, what: str, request: Callable[[], ObjectMeta]) -> BlobInfo:
        def attempt() -> BlobInfo:
            found = request()
            if found["e_tag"] is None:
                raise no_answer_of_s3(self._options.place, what, "it has no ETag")
            return BlobInfo(name, found["size"])

        return self._call(what, attempt)

    def _check_upload(self, what: str, key: str, size: int, etag: str | None) -> None:
        try:
            found = obstore.head(self._client(0), key)
        except FileNotFoundError:
            there = None
        else:
            there = found["size"], found["e_tag"]
        check_upload(self._options.place, what, (size, etag), there)

    def _scan(self, prefix: str, after: str) -> Iterator[BlobInfo]:
        while True:
            try:
                page = self._call("list blobs", partial(self._page, prefix, after))
            except _OddName:
                yield from self._with_botocore().scan(prefix, after)
                return
            if not page:
                yield from self._look_again(prefix, after)
                return
            for name, size in page:
                after = name
                if name and name.startswith(prefix):
                    yield BlobInfo(name, size)
            if len(page) < PAGE:
                return

    def _look_again(self, prefix: str, after: str) -> Iterator[BlobInfo]:
        """Send one more request if obstore lists nothing: it accepts any XML or a login page as an empty list."""
        try:
            client = self._with_botocore()
        except MissingExtra:
            self.stat("is-this-s3")  # a login page is not an answer to this request either
            return
        yield from client.scan(prefix, after)

    def _page(self, prefix: str, after: str) -> list[tuple[str, int]]:
        # Each page is a separate listing that starts after the last name, so a page can be retried.
        folder = self._options.key(prefix).rpartition("/")[0]
        offset = self._options.key(after) if after else None
        for page in obstore.list(self._client(0), folder or None, offset=offset, chunk_size=PAGE):
            found = [(self._options.name(meta["path"]), meta["size"]) for meta in page]
            # obstore lists "a/" as "a", which is then out of order; `in_order` explains what that would cause.
            if found != sorted(found) or (found and found[0][0] <= after and after):
                raise _OddName(f"after {after!r}")
            return found
        return []

    def _client(self, size: int, *, upload: bool = False, bulk: bool = False) -> S3Store:
        # obstore has a timeout per client, not per call, so there is one client for each doubling of size.
        bound = self._limits.transfer(max(SMALL, 1 << (size - 1).bit_length()))
        with self._lock:
            kind = (bound, upload, bulk)
            if kind not in self._clients:
                self._clients[kind] = _open(self._options, self._limits, bound, upload=upload, bulk=bulk)
            return self._clients[kind]

    def _call(self, what: str, request: Callable[[], T]) -> T:
        def attempt() -> T:
            _refuse_where_it_hangs()
            try:
                return request()
            except (BaseError, FileNotFoundError) as error:
                raise _translated(error, self._options.place, what) from error

        renew = self._renew if self._options.may_be_renewed else None
        return self._guard.call(partial(renewing, attempt, renew))

    def _renew(self) -> None:
        with self._lock:
            self._clients.clear()  # new clients read the credentials again

    def _with_botocore(self) -> S3Client:
        with self._lock:
            if self._botocore is None:
                self._botocore = S3Client(self._options, self._guard, self._limits)
            return self._botocore


class _OddName(CachenessError):
    """A foreign object has a name that obstore cannot represent, and therefore cannot list."""


def _open(options: S3Options, limits: Limits, bound: float, *, upload: bool, bulk: bool) -> S3Store:
    client: dict[str, Any] = {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=limits.connect),
        "timeout": timedelta(seconds=bound),
    }
    if not upload:  # while a body is sent, no bytes arrive, so a read timeout would expire
        client["read_timeout"] = timedelta(seconds=limits.stall)
    settings: dict[str, Any] = {
        "virtual_hosted_style_request": options.addressing == "virtual",
        "skip_signature": options.anonymous,
        # Send one DELETE for one object: bulk deletion is a POST that some servers do not support.
        "disable_bulk_delete": not bulk,
    }
    if options.requester_pays:
        settings["request_payer"] = True
    if options.sse is not None:
        settings["server_side_encryption"] = options.sse
    if options.sse_kms_key_id is not None:
        settings["sse_kms_key_id"] = options.sse_kms_key_id
    if options.authorities is not None:
        client["root_certificate"] = _certificates(options.authorities)
    if options.region:
        settings["region"] = options.region
    if options.endpoint_url:
        endpoint = _endpoint(options, options.endpoint_url)
        # Otherwise the second name would come from the environment, and override the first.
        settings |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
    if options.access_key_id is not None:
        # A provider is used, because obstore would combine keys given by name with a session token
        # from the environment.
        settings["credential_provider"] = _Credentials(options)
    elif options.may_be_renewed and _may_have_profile():
        settings |= _profile(options)
    return S3Store(
        options.bucket,
        client_options=client,  # type: ignore[arg-type]
        # A part of a large upload is retried separately; other retries belong to the Guard.
        retry_config={"max_retries": 2 if upload else 0, "retry_timeout": timedelta(seconds=limits.total)},
        **settings,
    )


def _certificates(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"the certificates in {path} cannot be read: {error.strerror}") from error


class _Credentials:
    """Return the URL's keys, in obstore's format."""

    def __init__(self, options: S3Options) -> None:
        self._given = {
            "access_key_id": options.access_key_id,
            "secret_access_key": options.secret_access_key,
            "token": options.session_token,
            "expires_at": None,
        }

    def __call__(self) -> dict[str, str | None]:
        return self._given


def _may_have_profile() -> bool:
    """Return True when the configuration files of AWS's tools have settings, which obstore does not read."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return False  # these override the others
    files = ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config")
    return "AWS_PROFILE" in os.environ or any(
        os.path.exists(os.path.expanduser(os.environ.get(name, usual))) for name, usual in files
    )


def _profile(options: S3Options) -> dict[str, Any]:
    """Return the settings of a profile; none without botocore, which reads profiles and logs in by SSO."""
    try:
        session = botocore_session()
    except MissingExtra:
        return {}
    region = options.region or session.get_config_variable("region")
    return {"credential_provider": _ProfileCredentials(), **({"region": region} if region else {})}


class _ProfileCredentials:
    """Return a profile's credentials in obstore's format; they are read again every few minutes."""

    def __init__(self) -> None:
        self._credentials: Any = None

    def __call__(self) -> dict[str, Any]:
        if not hasattr(self._credentials, "refresh_needed"):  # these credentials renew themselves
            self._credentials = botocore_session().get_credentials()
        if self._credentials is None:
            raise StoreRefused("there are no credentials, neither in the URL nor in AWS_* nor in a profile")
        found = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": datetime.now(UTC) + READ_AGAIN,
        }


def _endpoint(options: S3Options, url: str) -> str:
    if options.addressing == "path":
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=f"{options.bucket}.{parts.netloc}").geturl()


def _translated(error: Exception, place: str, what: str) -> CachenessError:
    # obstore's errors have a text and no code.
    text = str(error)
    if "invalid path" in text:
        return _OddName(text)
    if "/api/token" in text:
        return StoreRefused(f"cannot {what} in {place}: there are no credentials, neither in the URL nor in AWS_*")
    if provider := _PROVIDER.search(text):
        return StoreRefused(f"cannot {what} in {place}: the credentials could not be read: {provider[1]}")
    status, code, kind = _STATUS.search(text), _CODE.search(text), _KIND.search(text)
    if status is None and isinstance(error, FileNotFoundError):
        return BlobMissing(f"cannot {what} in {place}: it is not there")
    if status is None and "redirect" in text:
        return meaning(place, what, status=301, detail="redirected, probably to another region")
    clock = _CLOCK.search(text)
    detail = f"the server's clock shows {clock[1]}" if clock else ""
    return meaning(
        place,
        what,
        code=SKEWED if is_of_the_clock(text) else code[1] if code else "",
        status=int(status[1]) if status else None,
        detail=detail if status else f"no answer ({kind[1] if kind else text.partition(chr(10))[0][:200]})",
    )


_conforms: type[BlobStore] = ObjectStore
