"""What both S3 engines share: the options of a URL, the meaning of errors, and rare requests."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, fields
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from cacheness.circuit import Guard
from cacheness.deadlines import Limits
from cacheness.errors import (
    BlobMissing,
    CachenessError,
    ConfigError,
    MissingExtra,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from cacheness.lazy_dataclass import dataclass
from cacheness.protocols import Buffer
from cacheness.records import BlobInfo, Upload

T = TypeVar("T")
Object = tuple[int, str | None]  #: its size and ETag

PAGE: Final = 1000  #: objects in one page of a listing; S3's maximum
SMALL: Final = 1 << 20  #: bytes that one short request transfers
PART: Final = 8 << 20  #: bytes in one part of a large upload
PARTS_AT_MOST: Final = 10_000

#: The parameter that requests the next page of a listing.
_CURSORS: Final = ("ContinuationToken", "KeyMarker", "UploadIdMarker")
#: Keys that botocore's result always has, whatever the body of the answer was.
_WITHOUT_A_BODY: Final = frozenset({"ResponseMetadata", "RequestCharged"})
_FULL: Final = frozenset(
    {"EntityTooLarge", "InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
)
#: NoSuchUpload: a repair fenced our session, and deleted our upload as abandoned.
_TRY_AGAIN: Final = frozenset(
    {"InternalError", "NoSuchUpload", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown"}
)
_EXPIRED: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired"}
)
#: Requests where 404 means that the blob is not there; for others it means that this is not S3.
_OF_A_BLOB: Final = ("read", "look at", "delete", "abort")
#: The permission that a request needs. Without s3:ListBucket, S3 answers 403 for a missing object too.
_RIGHTS: Final = {
    "write": "s3:PutObject",
    "read": "s3:GetObject (and s3:ListBucket, if the object is not there)",
    "look at": "s3:GetObject (and s3:ListBucket, if the object is not there)",
    "delete": "s3:DeleteObject",
    "list blobs": "s3:ListBucket",
    "list uploads": "s3:ListBucketMultipartUploads",
    "abort": "s3:AbortMultipartUpload",
}


SKEWED: Final = "RequestTimeTooSkewed"


class CredentialsExpired(StoreRefused):
    """The server rejects these credentials, or they have expired; new ones may be available by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """The options of `s3://bucket/prefix?…`; any other is a ConfigError.

    Missing options come from the standard AWS_* environment, as the engine reads it.
    """

    bucket: str
    prefix: str = ""
    engine: str = "obstore"  #: or "s3fs"
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    addressing: str = "path"  #: or "virtual": the bucket is part of the host's name
    anonymous: bool = False  #: do not sign requests
    requester_pays: bool = False  #: the requester pays for the transfer
    #: encryption by the server: "AES256", "aws:kms" or "aws:kms:dsse"; None: the bucket's default
    sse: str | None = None
    sse_kms_key_id: str | None = None  #: the KMS key, with the last two
    ca: str | None = None  #: a file with the certificates of trusted authorities; default AWS_CA_BUNDLE

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_url(cls, url: str) -> S3Options:
        """Parse a URL. The values of options are percent-encoded."""
        parts = urlsplit(url)
        options = parse_query(parts.query, [f.name for f in fields(cls) if f.name not in ("bucket", "prefix")])
        if parts.username or parts.password:
            raise ConfigError("credentials go into the URL's options: s3://bucket?access_key_id=…&secret_access_key=…")
        flags = {name: _flag(name, options.pop(name, "false")) for name in ("anonymous", "requester_pays")}
        given: dict[str, Any] = {**flags, **options}
        return cls(bucket=parts.netloc, prefix=unquote(parts.path).strip("/"), **given)

    @property
    def place(self) -> str:
        """Return the bucket's location, for messages."""
        where = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        return f"{where} at {self.endpoint_url}" if self.endpoint_url else where

    def key(self, name: str) -> str:
        """Return the object key of a blob's name."""
        return f"{self.prefix}/{name}" if self.prefix else name

    @property
    def may_be_renewed(self) -> bool:
        """Return True when the credentials come from the environment, a profile or a machine's role."""
        return self.access_key_id is None and not self.anonymous

    @property
    def each_request(self) -> dict[str, str]:
        """Return the headers that botocore sends with every request."""
        return {"RequestPayer": "requester"} if self.requester_pays else {}

    @property
    def each_upload(self) -> dict[str, str]:
        """Return the additional headers of every request that creates an object."""
        given = {"ServerSideEncryption": self.sse, "SSEKMSKeyId": self.sse_kms_key_id}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def authorities(self) -> str | None:
        """Return the file with the trusted certificates; None for the system's."""
        return self.ca or os.environ.get("AWS_CA_BUNDLE") or None

    def name(self, key: str) -> str:
        """Return the blob's name of an object key."""
        return key[len(self.prefix) + 1 :] if self.prefix else key


def _concerns(rule: Mapping[str, Any], prefix: str) -> bool:
    about = rule.get("Filter", {})
    wanted = str(about.get("Prefix", about.get("And", {}).get("Prefix", rule.get("Prefix", ""))))
    return wanted.startswith(prefix) or prefix.startswith(wanted)


def _flag(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise ConfigError(f"{name}={value!r} is neither true nor false")
    return value == "true"


def parse_query(query: str, known: list[str]) -> dict[str, str]:
    """Parse the options of a URL. `+` is a plus sign, because secret keys contain it."""
    found = {}
    for option in filter(None, query.split("&")):
        name, _, value = option.partition("=")
        if name not in known:
            raise ConfigError(f"{name!r} is not an option of this blob store. Known: {', '.join(sorted(known))}")
        found[name] = unquote(value)
    return found


def meaning(place: str, what: str, *, code: str = "", status: int | None = None, detail: str = "") -> CachenessError:
    """Return our error for an answer of S3, or for a missing answer."""
    said = " ".join(str(word) for word in (status, code, detail) if word) or "no answer"
    text = f"cannot {what} in {place}: {said}"
    if code in _FULL or status == 507:
        return StoreFull(f"{text}. Nothing was stored; free space or raise the quota")
    if code == SKEWED:
        return StoreRefused(
            f"{text}. The clocks of this machine and of the server differ by more than S3 allows, 15 minutes:"
            f" here it is {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC. Set the clock; the credentials are not at fault"
        )
    if status is None or status in (408, 429) or status >= 500 or code in _TRY_AGAIN:
        return StoreUnavailable(text)
    if code in _EXPIRED:
        return CredentialsExpired(f"{text}. Renew the credentials, then they are read again")
    if status == 404 and code != "NoSuchBucket" and what.startswith(_OF_A_BLOB):
        return BlobMissing(text)
    if code == "AccessDenied":
        right = next((right for request, right in _RIGHTS.items() if what.startswith(request)), "")
        text += f". This needs the right {right} in the policy of the bucket or the role" if right else ""
    return StoreRefused(f"{text}. Check the bucket's name and region, the credentials, and what they may do")


def is_of_the_clock(text: str) -> bool:
    """Return True when the error is a wrong clock on the client; some servers report that as AccessDenied."""
    return SKEWED not in text and "difference between the request time and the server" in text


def renewing(request: Callable[[], T], renew: Callable[[], None] | None) -> T:
    """Run a request; repeat it once with fresh credentials if the server reports them as expired."""
    try:
        return request()
    except CredentialsExpired:
        if renew is None:
            raise
    renew()
    return request()


def no_answer_of_s3(place: str, what: str, why: str) -> StoreUnavailable:
    """Return the error for an answer that comes from a login page, a proxy or another server, never from S3."""
    return StoreUnavailable(f"cannot {what} in {place}: the answer is not one of S3: {why}. Check what is in between")


def is_md5(etag: str | None, buffers: Iterable[Buffer]) -> bool:
    """Return True when an ETag proves that these bytes arrived: most servers use the MD5 of a single request."""
    try:
        digest = hashlib.md5(usedforsecurity=False)
    except ValueError:  # this machine's OpenSSL has no MD5
        return False
    for buffer in buffers:
        digest.update(buffer)
    return etag is not None and etag.strip('"') == digest.hexdigest()


def check_upload(place: str, what: str, sent: Object, found: Object | None) -> None:
    """Compare the answer to an upload with what the server has now. Raises StoreUnavailable if they differ."""
    if sent[1] is None or (found and found[1] is None):
        raise no_answer_of_s3(place, what, "it has no ETag")
    if found is None:
        raise StoreUnavailable(f"cannot {what} in {place}: the server took it, and does not have it")
    # Some servers change the ETag of a multipart object later; no other upload uses this name.
    if found[0] != sent[0] or (sent[0] <= PART and found[1] != sent[1]):
        raise StoreUnavailable(
            f"cannot {what} in {place}: {sent[0]} bytes were sent, with the ETag {sent[1]},"
            f" and the server has {found[0]} bytes with the ETag {found[1]}"
        )


def in_order(infos: Iterator[BlobInfo], after: str) -> Iterator[BlobInfo]:
    """Yield a listing, and raise an error if it is not sorted, as listings of directory buckets are not.

    Repair reads listing and rows in step; out of order, it would take live blobs for orphans.
    """
    for info in infos:
        if info.name == after:
            continue  # some servers list an object twice if it is overwritten during the listing
        if info.name < after:
            raise StoreRefused(
                f"the bucket lists {info.name!r} after {after!r}; a listing that is not sorted by name cannot be used"
            )
        after = info.name
        yield info


class S3Client:
    """The requests that need botocore: unfinished uploads, and listings of unusual names."""

    def __init__(self, options: S3Options, guard: Guard, limits: Limits) -> None:
        self._options = options
        self._guard = guard
        self._limits = limits
        self._client = _botocore_client(options, limits)

    def scan(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        """List objects, one page at a time, with any name."""
        options = self._options
        arguments = {"Prefix": options.key(prefix), "MaxKeys": PAGE, **options.each_request}
        if after:
            arguments["StartAfter"] = options.key(after)
        for page in self._pages(self._list_objects, "list blobs", arguments):
            for found in page.get("Contents", ()):
                name = options.name(found["Key"])
                if name:  # the prefix itself, a folder that a person created
                    yield BlobInfo(name, found["Size"])

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """List multipart uploads that are not completed."""
        options = self._options
        for page in self._pages(
            self._list_uploads, "list uploads", {"Prefix": options.key(prefix), **options.each_request}
        ):
            for found in page.get("Uploads", ()):
                yield Upload(options.name(found["Key"]), found["UploadId"])

    def abort(self, upload: Upload) -> None:
        """Delete an unfinished upload, if it is there."""
        options = self._options
        where = {"Bucket": options.bucket, "Key": options.key(upload.name), "UploadId": upload.handle}
        where |= options.each_request

        def abort() -> None:
            with contextlib.suppress(self._client.exceptions.NoSuchUpload):
                self._client.abort_multipart_upload(**where)

        self._call(f"abort the upload of {upload.name}", abort)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Return the bucket settings that harm blobs, each with what to do."""
        about = {"Bucket": self._options.bucket}
        lock = self._configuration(self._client.get_object_lock_configuration, about).get("ObjectLockConfiguration", {})
        retention = lock.get("Rule", {}).get("DefaultRetention", {})
        if retention:
            time = f"{retention['Days']} days" if "Days" in retention else f"{retention.get('Years', '?')} years"
            yield (
                f"object lock keeps every blob for {time}, deleted or not",
                "use a bucket without a default retention: blobs are written once and deleted often",
            )
        ours = [
            rule
            for rule in self._configuration(self._client.get_bucket_lifecycle_configuration, about).get("Rules", ())
            if rule.get("Status") == "Enabled" and _concerns(rule, self._options.key(""))
        ]
        for rule in ours:
            if "Days" in rule.get("Expiration", {}) or "Date" in rule.get("Expiration", {}):
                yield (
                    f"the lifecycle rule {rule.get('ID', '')!r} deletes blobs by age, and their entries turn to misses",
                    "take the rule away, and give results a ttl, or the cache a quota",
                )
            if rule.get("Transitions"):
                yield (
                    f"the lifecycle rule {rule.get('ID', '')!r} moves blobs to another storage class",
                    "except this prefix, if objects of that class have to be restored before they can be read",
                )
        versioning = self._configuration(self._client.get_bucket_versioning, about).get("Status")
        if versioning == "Enabled" and not any("NoncurrentVersionExpiration" in rule for rule in ours):
            yield (
                "the bucket keeps versions, so deleted blobs still take space",
                "add a lifecycle rule with NoncurrentVersionExpiration of one day",
            )

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _configuration(self, request: Callable[..., dict[str, Any]], arguments: dict[str, str]) -> dict[str, Any]:
        """Return a setting of the bucket; an empty one where there is none, or the server does not return it."""
        try:
            return self._call("look at the bucket's rules", partial(request, **arguments))
        except (StoreRefused, BlobMissing):
            return {}

    def _list_objects(self, **arguments: Any) -> dict[str, Any]:
        page: dict[str, Any] = self._client.list_objects_v2(**arguments)
        return page

    def _list_uploads(self, **arguments: Any) -> dict[str, Any]:
        try:
            page: dict[str, Any] = self._client.list_multipart_uploads(**arguments)
        except self._client.exceptions.NoSuchUpload:
            return {"IsTruncated": False}  # some servers answer this when there is no upload
        return page

    def _pages(
        self, request: Callable[..., dict[str, Any]], what: str, arguments: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        while True:
            page = self._call(what, partial(request, Bucket=self._options.bucket, **arguments))
            if not page.keys() - _WITHOUT_A_BODY:
                raise no_answer_of_s3(self._options.place, what, "it is not a listing")
            yield page
            if not page.get("IsTruncated"):
                return
            following = {name: page[f"Next{name}"] for name in _CURSORS if f"Next{name}" in page}
            if not following:
                raise StoreUnavailable(
                    f"cannot {what} in {self._options.place}: a page is followed by another, without its token"
                )
            arguments = {**arguments, **following}

    def _call(self, what: str, request: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
        from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

        def attempt() -> T:
            try:
                return request()
            except (BotoCoreError, ClientError, ResponseParserError, RecursionError) as error:
                raise from_botocore(error, self._options.place, what) from error

        renew = self._renew if self._options.may_be_renewed else None
        return self._guard.call(partial(renewing, attempt, renew))

    def _renew(self) -> None:
        self._client = _botocore_client(self._options, self._limits)


def from_botocore(error: Exception, place: str, what: str) -> CachenessError:
    """Return our error for an exception of botocore."""
    from botocore.exceptions import (
        ClientError,
        CredentialRetrievalError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
    )
    from botocore.parsers import ResponseParserError

    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        server_time = error.response.get("Error", {}).get("ServerTime")
        detail = f"the server's clock shows {server_time}" if server_time else ""
        if is_of_the_clock(str(error)):
            code = SKEWED
        return meaning(place, what, code="" if code.isdigit() else code, status=status, detail=detail)
    # botocore raises this for a redirection without a target; within a request it is wrapped.
    if isinstance(error, RecursionError) or isinstance(getattr(error, "kwargs", {}).get("error"), RecursionError):
        return meaning(place, what, status=301, detail="redirected, probably to another region")
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ParamValidationError)):
        return StoreRefused(f"cannot {what} in {place}: {error}")
    if isinstance(error, ResponseParserError):
        return no_answer_of_s3(place, what, "it is not XML")
    return StoreUnavailable(f"cannot {what} in {place}: {type(error).__name__}: {error}")


def botocore_settings(options: S3Options, limits: Limits) -> Mapping[str, Any]:
    """Settings of botocore, also under s3fs: short timeouts and few attempts."""
    return {
        "connect_timeout": limits.connect,
        "read_timeout": limits.stall,
        # More connections than a machine has threads; beyond that, each call would log that the pool is full.
        "max_pool_connections": 64,
        # The Guard retries; botocore's five attempts would each take the whole time.
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        # The answer to a range request may carry the checksum of the whole object: some servers send it.
        "response_checksum_validation": "when_required",
        "request_checksum_calculation": "when_required",
        "s3": {"addressing_style": options.addressing},
    }


def with_shared_models(session: Any) -> Any:
    """Return the session, with descriptions of services that this process has read before.

    Reading them takes most of the time of opening a client: 180 of 200 ms.
    """
    session.register_component("data_loader", _models(session.get_config_variable("data_path")))
    return session


@cache
def _models(path: str | None) -> Any:
    from botocore.loaders import create_loader  # type: ignore[import-untyped]

    return create_loader(path)


def botocore_session() -> Any:
    """Return a session that reads the environment and the configuration of AWS's tools now."""
    try:
        import botocore.session  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtra.of(error, "botocore", "s3", "looking for unfinished uploads in a bucket") from error
    return with_shared_models(botocore.session.get_session())


def _botocore_client(options: S3Options, limits: Limits) -> Any:
    session = botocore_session()
    from botocore import UNSIGNED
    from botocore.config import Config  # type: ignore[import-untyped]

    settings = dict(botocore_settings(options, limits))
    if options.anonymous:
        settings["signature_version"] = UNSIGNED
    return session.create_client(
        "s3",
        region_name=options.region or ("us-east-1" if options.endpoint_url else None),
        endpoint_url=options.endpoint_url,
        aws_access_key_id=options.access_key_id,
        aws_secret_access_key=options.secret_access_key,
        aws_session_token=options.session_token,
        verify=options.ca,
        config=Config(**settings),
    )


def _check(options: S3Options) -> None:
    if not options.bucket:
        raise ConfigError("the URL names no bucket: write s3://bucket/prefix")
    for name, choices in (
        ("engine", ("obstore", "s3fs")),
        ("addressing", ("path", "virtual")),
        ("sse", (None, "AES256", "aws:kms", "aws:kms:dsse")),
    ):
        if getattr(options, name) not in choices:
            known = ", ".join(choice for choice in choices if choice is not None)
            raise ConfigError(f"{name}={getattr(options, name)!r} is not known: one of {known}")
    if options.sse_kms_key_id is not None and not (options.sse or "").startswith("aws:kms"):
        raise ConfigError("sse_kms_key_id= names a key of KMS, which takes sse=aws:kms or sse=aws:kms:dsse")
    if options.ca is not None and not os.path.isfile(options.ca):
        raise ConfigError(f"ca={options.ca!r} is not a file with certificates")
    if (options.access_key_id is None) != (options.secret_access_key is None):
        raise ConfigError("access_key_id and secret_access_key come together; one of them is missing")
    endpoint = urlsplit(options.endpoint_url or "https://localhost")
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname:
        raise ConfigError(f"endpoint_url={options.endpoint_url!r} is not a URL: write http://host:port or https://host")
