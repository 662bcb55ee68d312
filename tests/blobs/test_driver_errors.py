"""A driver that gains an error must not leak it."""

from __future__ import annotations

import botocore.exceptions
import obstore.exceptions
import pytest

from cacheness.blobs import object_store
from cacheness.blobs.s3_shared import CredentialsExpired, from_botocore, meaning
from cacheness.errors import BlobMissing, CachenessError, StoreFull, StoreRefused, StoreUnavailable


def test_every_error_of_obstore_has_the_one_root_that_is_caught() -> None:
    found = [value for value in vars(obstore.exceptions).values() if isinstance(value, type)]
    assert found
    for kind in found:
        assert issubclass(kind, (obstore.exceptions.BaseError, FileNotFoundError)), kind
        assert isinstance(object_store._translated(kind("text"), "a place", "read"), CachenessError)


def test_every_error_of_botocore_has_one_of_the_roots_that_are_caught() -> None:
    roots = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError)
    leaking = [
        kind
        for kind in vars(botocore.exceptions).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, roots)
    ]
    # Warnings, and mistakes in botocore's own description of a service.
    assert {kind.__name__ for kind in leaking} <= {
        "ImminentRemovalWarning",
        "MissingServiceIdError",
        "UndefinedModelAttributeError",
        "UnsupportedTLSVersionWarning",
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (botocore.exceptions.NoCredentialsError(), StoreRefused),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), StoreUnavailable),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), StoreUnavailable),
        (botocore.exceptions.ClientError({}, "GetObject"), StoreUnavailable),
        (TimeoutError(), StoreUnavailable),
    ],
)
def test_what_botocore_s_errors_mean(error, expected) -> None:
    assert type(from_botocore(error, "a place", "read")) is expected


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchKey", BlobMissing),
        (404, "", BlobMissing),
        (404, "NoSuchBucket", StoreRefused),
        (404, "NoSuchUpload", StoreUnavailable),
        (403, "AccessDenied", StoreRefused),
        (403, "QuotaExceeded", StoreFull),
        (400, "EntityTooLarge", StoreFull),
        (400, "ExpiredToken", CredentialsExpired),
        (507, "", StoreFull),
        (409, "OperationAborted", StoreUnavailable),
        (412, "PreconditionFailed", StoreRefused),
        (429, "", StoreUnavailable),
        (500, "InternalError", StoreUnavailable),
        (503, "SlowDown", StoreUnavailable),
        (None, "", StoreUnavailable),
    ],
)
def test_what_answers_mean(status, code, expected) -> None:
    assert type(meaning("a place", "read", status=status, code=code)) is expected
