"""Store blobs in S3, through s3fs: slower than obstore, for systems where obstore cannot run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from cacheness import forks
from cacheness.blobs.names import checked
from cacheness.blobs.s3_shared import (
    PAGE,
    PART,
    PARTS_AT_MOST,
    S3Client,
    S3Options,
    botocore_settings,
    check_upload,
    from_botocore,
    in_order,
    is_md5,
    no_answer_of_s3,
    renewing,
    with_shared_models,
)
from cacheness.buffers import allocate, views_of
from cacheness.circuit import Guard
from cacheness.deadlines import Limits
from cacheness.errors import BlobMissing, CachenessError, CorruptEntry, MissingExtra, StoreRefused, StoreUnavailable
from cacheness.logs import logger_of
from cacheness.protocols import BlobStore, Buffer
from cacheness.records import BlobInfo, Upload
from cacheness.transfers import failures_of

try:
    import s3fs  # type: ignore[import-untyped]
    from aiobotocore.session import AioSession  # type: ignore[import-untyped]
    from aiohttp import ClientError as HttpError
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
    from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]
    from fsspec.asyn import sync  # type: ignore[import-untyped]
except ImportError as error:
    raise MissingExtra.of(error, "s3fs", "s3", "engine=s3fs") from error

T = TypeVar("T")

_log = logger_of(__name__)

CHUNK: Final = 1 << 20
OPEN_SECONDS: Final = 30.0  #: to load botocore's model of S3, and to find credentials
CONCURRENT_PARTS: Final = 2  #: each is in memory twice during the upload
_ERRORS: Final = (OSError, BotoCoreError, ClientError, HttpError, ResponseParserError, RecursionError)


#: Kept for ever in a forked child, because s3fs closes connections when it is collected.
_inherited: list[Any] = []


class S3fsStore:
    """Objects below a prefix of a bucket; accepts the same URLs as `ObjectStore`.

    The requests run on fsspec's event loop, in a thread that fsspec starts again after a fork. They
    use s3fs's client and not its file interface, which sends every request twice, reads too far
    ahead, publishes half a file when a write fails, and has no deadline.
    """

    def __init__(self, options: S3Options, *, limits: Limits) -> None:
        self._options = options
        self._limits = limits
        self._guard = Guard(options.place, limits)
        self._filesystem = _open(options, limits)
        self._renewed: Any = None  #: the previous filesystem
        self._client: S3Client | None = None
        forks.watch_forks(self)

    @classmethod
    def from_url(cls, url: str, *, limits: Limits) -> S3fsStore:
        """Open `s3://bucket/prefix?…`, with the options of `S3Options`."""
        return cls(S3Options.from_url(url), limits=limits)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options.place!r})"

    def write(self, name: str, buffers: Sequence[Buffer]) -> None:
        """Upload a blob; a large one in parts, which S3 joins at the end."""
        views, size = views_of(buffers)
        what = f"write {name}"
        self._call(what, size, partial(self._write, what, self._options.key(checked(name)), views, size))

    def read(self, name: str, size: int) -> Buffer:
        """Download a blob into one buffer."""
        return self._call(f"read {name}", size, partial(self._read, name, self._options.key(checked(name)), size))

    def stat(self, name: str) -> BlobInfo | None:
        """Return one object's name and size, or None."""
        key = self._options.key(checked(name))
        what = f"look at {name}"
        try:
            return self._call(what, 0, partial(self._stat, name, "head_object", key))
        except (BlobMissing, StoreRefused):
            pass  # the answer to a HEAD has no body, so it does not show whether the bucket is missing
        try:
            return self._call(what, 0, partial(self._stat, name, "get_object", key))
        except BlobMissing:
            return None

    def delete(self, name: str) -> None:
        """Delete one object, if it is there."""
        key = self._options.key(checked(name))
        try:
            self._call(f"delete {name}", 0, partial(self._delete, name, key))
        except BlobMissing:
            return

    def delete_many(self, names: Collection[str]) -> dict[str, CachenessError]:
        """Delete objects, a thousand per request; those missing from the answer one by one."""
        named = {self._options.key(checked(name)): name for name in names}
        keys = list(named)
        for start in range(0, len(keys) if len(keys) > 1 else 0, PAGE):
            some = keys[start : start + PAGE]
            try:
                gone = self._call(f"delete {len(some)} blobs", 0, partial(self._delete_many, some))
            except CachenessError as error:
                _log.debug("%s", error)
                break
            for key in gone:
                named.pop(key, None)
        return failures_of(self.delete, named.values())

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """List objects in the order of their names, a thousand per request, never from a cache."""
        return in_order(self._with_botocore().scan(prefix, after), after)

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """List multipart uploads that are not completed."""
        return self._with_botocore().uploads(prefix)

    def abort(self, upload: Upload) -> None:
        """Delete an unfinished upload."""
        self._with_botocore().abort(upload)

    def rules(self) -> Iterator[tuple[str, str]]:
        """Return bucket settings that harm blobs, each with what to do; needs the extra `s3`."""
        return self._with_botocore().rules()

    def close(self) -> None:
        """Close connections; s3fs closes its connections when it is collected."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def reset_after_fork(self) -> None:
        """In a forked child, open another filesystem when needed: the parent still uses this one's connections."""
        _inherited.append(self._filesystem)
        self._filesystem = self._client = None

    async def _request(self, method: str, **arguments: Any) -> Any:
        client = await self._filesystem.set_session()
        return await getattr(client, method)(Bucket=self._options.bucket, **arguments, **self._options.each_request)

    async def _write(self, what: str, key: str, views: list[memoryview], size: int) -> None:
        is_small = size <= PART
        if is_small:
            answer = await self._request("put_object", Key=key, Body=b"".join(views), **self._options.each_upload)
        else:
            answer = await self._upload(what, key, views, size)
        etag = answer.get("ETag")
        if is_small and is_md5(etag, views):
            return
        try:
            found = await self._request("head_object", Key=key)
        except ClientError as error:
            if not isinstance(from_botocore(error, self._options.place, "look at it"), BlobMissing):
                raise
            there = None
        else:
            there = found["ContentLength"], found.get("ETag")
        check_upload(self._options.place, what, (size, etag), there)

    async def _stat(self, name: str, method: str, key: str) -> BlobInfo:
        found = await self._request(method, Key=key)
        if "Body" in found:
            found["Body"].close()
        if "ETag" not in found:
            raise no_answer_of_s3(self._options.place, f"look at {name}", "it has no ETag")
        return BlobInfo(name, found["ContentLength"])

    async def _delete(self, name: str, key: str) -> None:
        about = (await self._request("delete_object", Key=key))["ResponseMetadata"]
        if about["HTTPStatusCode"] != 204 and about["HTTPHeaders"].get("content-length", "0") != "0":
            raise no_answer_of_s3(self._options.place, f"delete {name}", "it has a body")

    async def _delete_many(self, keys: Sequence[str]) -> set[str]:
        answer = await self._request("delete_objects", Delete={"Objects": [{"Key": key} for key in keys]})
        return {deleted["Key"] for deleted in answer.get("Deleted", ())}

    async def _read(self, name: str, key: str, size: int) -> Buffer:
        response = await self._request("get_object", Key=key)
        body = response["Body"]
        try:
            if "ETag" not in response:
                raise no_answer_of_s3(self._options.place, f"read {name}", "it has no ETag")
            if response["ContentLength"] != size:
                raise CorruptEntry(f"blob {name} has {response['ContentLength']} bytes where its row has {size}")
            buffer = allocate(size)
            done = 0
            with memoryview(buffer) as view:
                while done < size:
                    chunk = await body.read(min(CHUNK, size - done))
                    if not chunk:
                        raise StoreUnavailable(
                            f"cannot read {name} in {self._options.place}: {done} of {size} bytes came"
                        )
                    view[done : done + len(chunk)] = chunk
                    done += len(chunk)
            return buffer
        finally:
            body.close()

    async def _upload(self, what: str, key: str, views: list[memoryview], size: int) -> dict[str, Any]:
        begun = await self._request("create_multipart_upload", Key=key, **self._options.each_upload)
        if "UploadId" not in begun:
            raise no_answer_of_s3(self._options.place, what, "it has no UploadId")
        where = {"Key": key, "UploadId": begun["UploadId"]}
        parts: list[dict[str, Any]] = []
        running: set[asyncio.Task[dict[str, Any]]] = set()
        try:
            for number, body in enumerate(_cut(views, max(PART, -(-size // PARTS_AT_MOST))), start=1):
                running.add(asyncio.create_task(self._upload_part(what, where, number, body)))
                if len(running) == CONCURRENT_PARTS:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    parts += [task.result() for task in done]
            parts += await asyncio.gather(*running)
            parts.sort(key=lambda part: part["PartNumber"])
            answer: dict[str, Any] = await self._request(
                "complete_multipart_upload", MultipartUpload={"Parts": parts}, **where
            )
        except BaseException:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self._request("abort_multipart_upload", **where)
            raise
        return answer

    async def _upload_part(self, what: str, where: dict[str, Any], number: int, body: bytes) -> dict[str, Any]:
        answer = await self._request("upload_part", PartNumber=number, Body=body, **where)
        if "ETag" not in answer:
            raise no_answer_of_s3(self._options.place, what, "it has no ETag")
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _call(self, what: str, size: int, request: Callable[[], Awaitable[T]]) -> T:
        def attempt() -> T:
            if self._filesystem is None:
                self._filesystem = _open(self._options, self._limits)
            try:
                result: T = sync(self._filesystem.loop, request, timeout=self._limits.transfer(size))
            except _ERRORS as error:
                raise from_botocore(error, self._options.place, what) from error
            return result

        renew = self._renew if self._options.may_be_renewed else None
        return self._guard.call(partial(renewing, attempt, renew))

    def _renew(self) -> None:
        # Other threads may use the old one; its connections close when it is collected.
        self._renewed, self._filesystem = self._filesystem, _open(self._options, self._limits)

    def _with_botocore(self) -> S3Client:
        if self._client is None:
            self._client = S3Client(self._options, self._guard, self._limits)
        return self._client


def _cut(views: list[memoryview], size: int) -> Iterator[bytes]:
    """Return the bytes of the views in order, cut into parts of `size` bytes."""
    part: list[memoryview] = []
    wanted = size
    for view in views:
        rest = view
        while rest:
            part.append(rest[:wanted])
            rest = rest[wanted:]
            wanted -= len(part[-1])
            if not wanted:
                yield b"".join(part)
                part, wanted = [], size
    if part:
        yield b"".join(part)


def _open(options: S3Options, limits: Limits) -> Any:
    filesystem = s3fs.S3FileSystem(
        session=with_shared_models(AioSession()),
        anon=options.anonymous,
        key=options.access_key_id,
        secret=options.secret_access_key,
        token=options.session_token,
        endpoint_url=options.endpoint_url,
        client_kwargs={
            **({"region_name": options.region} if options.region else {}),
            **({"verify": options.ca} if options.ca else {}),
        },
        config_kwargs=dict(botocore_settings(options, limits)),
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    try:
        sync(filesystem.loop, filesystem.set_session, timeout=OPEN_SECONDS)
    except _ERRORS as error:
        raise from_botocore(error, options.place, "open the store") from error
    return filesystem


_conforms: type[BlobStore] = S3fsStore
