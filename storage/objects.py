"""Object stores: list, read, write and remove, tried again where that may help, with errors that say what to do.

Credentials are found by the SDKs themselves: environment, their files, the role of the machine. Nothing here logs them.
"""

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from storage import urls
from storage.errors import StoreFailed, StoreForbidden, StoreMissing

logger = logging.getLogger(__name__)
T = TypeVar("T")
TRIES, PAUSE, LONGEST = 6, 0.25, 8.0
"""How often a request is made; seconds before the second, doubled before each further one, and at most."""
SILENCE = 20
"""Seconds without a byte after which a request has failed."""
PATIENCE = 60.0
"""Seconds after which a request that has failed is not made again."""
_ended = threading.Event()
"""One of the things that are done at once has failed: the others are not tried again."""
_BLOCK = 2**23
_AT_ONCE = 8
_PROFILE = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE")
_GIVEN = (
    *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)
_SECRETS = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
_FORBIDDEN = re.compile(
    "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT|INVALID_CLIENT_TOKEN|UNRECOGNIZED_CLIENT|TOO_SKEWED|Token"
    "|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED|OAuth2|Authoriz|Authentic|Forbidden|EXPIRED"
)
_MISSING = re.compile("NO_SUCH_BUCKET|NoSuchBucket|ContainerNotFound|bucket does not exist", re.IGNORECASE)
_FINAL = re.compile(r"HTTP status (3|4(?!29|08))\d\d|INVALID_|NO_SUCH_UPLOAD")
_ACTIONS = {
    "HeadObject": "s3:GetObject and s3:ListBucket",
    "GetObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
}
"""The permission that an operation of S3 takes, by the name that the SDK has for the operation."""


@dataclass(frozen=True)
class Object:
    """An object as it is listed."""

    key: str
    """Within its bucket."""
    size: int
    modified_ns: int
    """Nanoseconds since 1970, UTC, by the store's clock."""


@dataclass(frozen=True)
class Bucket:
    """A bucket, or container, of a store."""

    scheme: str
    name: str

    @classmethod
    def of(cls, url: str) -> tuple["Bucket", str]:
        """The bucket that a URL names, and the key in it."""
        scheme, name, key = urls.split(url)
        return cls(scheme, name), key

    def url(self, key: str) -> str:
        """The URL of an object in it."""
        return f"{self.scheme}://{self.name}/{key}"

    def find(self, key: str) -> Object | None:
        """The object of that key; None where there is none, or a folder. Raises `StoreMissing` where there is no bucket."""
        info = self._again(key, lambda: self._files.get_file_info(self._path(key)))
        if info.type == fs.FileType.NotFound:
            self._demand_bucket()
        return self._object(info) if info.type == fs.FileType.File else None

    def below(self, folder: str) -> list[Object]:
        """All objects whose keys begin with the folder's, in order of key; none where there is no such folder."""
        selector = fs.FileSelector(self._path(folder.rstrip("/")), recursive=True, allow_not_found=True)
        found = self._again(folder, lambda: self._files.get_file_info(selector))
        if not found:
            self._demand_bucket()
        return sorted((self._object(one) for one in found if one.type == fs.FileType.File), key=lambda one: one.key)

    def download(self, one: Object, target: Path) -> bool:
        """Copy an object into a file; False where it is not what was listed any more, and then the file is worth nothing."""
        try:
            source = self._again(one.key, lambda: self._files.open_input_file(self._path(one.key)))
            before = self._again(one.key, source.metadata)
            if source.size() != one.size:
                return False
            with target.open("wb") as file:
                for at in range(0, one.size, _BLOCK):
                    file.write(self._again(one.key, partial(source.read_at, min(_BLOCK, one.size - at), at)))
            again = self._again(one.key, lambda: self._files.open_input_file(self._path(one.key)))
            return bool(again.metadata() == before and target.stat().st_size == one.size)
        except FileNotFoundError:
            return False

    def read(self, key: str) -> bytes | None:
        """The bytes of a small object, None where there is none."""
        try:
            return bytes(self._again(key, lambda: self._files.open_input_stream(self._path(key)).read()))
        except FileNotFoundError:
            return None

    def write(self, key: str, source: Path | bytes) -> None:
        """Store a file, or bytes, as an object: whole, or after an error perhaps not at all."""
        self._again(key, lambda: self._write(key, source))

    def remove(self, key: str) -> None:
        """Remove an object; that it is gone already is as good."""

        def remove() -> None:
            with suppress(FileNotFoundError):  # after a try whose reply was lost
                self._files.delete_file(self._path(key))

        self._again(key, remove)

    def _write(self, key: str, source: Path | bytes) -> None:
        out = self._files.open_output_stream(self._path(key))
        if isinstance(source, bytes):
            out.write(source)
        else:
            with source.open("rb") as file:
                while block := file.read(_BLOCK):
                    out.write(block)
        out.close()

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/")

    @cached_property
    def _root(self) -> str:
        return self.name.partition("@")[0]

    @cached_property
    def _files(self) -> Any:
        return _opened(self.scheme, self.name)

    def _object(self, info: Any) -> Object:
        return Object(info.path.removeprefix(f"{self._root}/"), info.size or 0, info.mtime_ns or 0)

    def _demand_bucket(self) -> None:
        info = self._again("", lambda: self._files.get_file_info(self._root))
        if info.type == fs.FileType.NotFound:
            raise StoreMissing(
                f"there is no bucket {self.url('')}", hint="is its name right, and the region or endpoint?"
            )

    def _again(self, key: str, call: Callable[[], T]) -> T:
        """What a request gives, made again with growing pauses where it failed of something that may pass."""
        began = time.monotonic()
        for tried in range(1, TRIES + 1):
            try:
                return call()
            except (FileNotFoundError, pa.ArrowInvalid):
                raise
            except (OSError, pa.ArrowException) as error:
                failed, passing = _failure(self.url(key), error)
                late = tried == TRIES or time.monotonic() - began > PATIENCE or _ended.is_set()
                if not passing or late:
                    raise failed from error
                pause = min(LONGEST, PAUSE * 2 ** (tried - 1)) * random.uniform(0.5, 1)  # noqa: S311 (no secret)
                logger.info("store.again", extra={"url": self.url(key), "after": pause, "why": _reason(error)})
                _ended.wait(pause)
        raise AssertionError("not reached")


def each(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Do something for each item, some at once; the first error ends it."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    _ended.clear()
    try:
        for done in as_completed([pool.submit(work, item) for item in items]):
            done.result()
    finally:
        _ended.set()
        pool.shutdown(cancel_futures=True)
        _ended.clear()


def _opened(scheme: str, name: str) -> Any:
    """The file system of a store, as the usual variables of its SDK say."""
    if scheme == "s3":
        _, endpoint = _endpoint()
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None
        return fs.S3FileSystem(
            endpoint_override=endpoint or None,
            region=region,
            request_timeout=SILENCE,
            connect_timeout=SILENCE / 2,
            allow_delayed_open=True,  # or a small object would take three requests
            background_writes=False,
            tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE") or None,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),  # `_again` does
        )
    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=SILENCE))
    account = name.partition("@")[2].partition(".")[0] or os.environ.get("AZURE_STORAGE_ACCOUNT", "")
    if not account:
        hint = "set AZURE_STORAGE_ACCOUNT, or write abfs://container@account.dfs.core.windows.net/folder"
        raise StoreMissing(f"{scheme}://{name} does not say of which account it is", hint=hint)
    key, token = os.environ.get("AZURE_STORAGE_KEY"), os.environ.get("AZURE_STORAGE_SAS_TOKEN")
    return fs.AzureFileSystem(account, account_key=key, sas_token=None if key else token)


def _failure(url: str, error: Exception) -> tuple[StoreFailed, bool]:
    """The error for a request that failed, and whether it may pass by itself."""
    scheme, reason = url.partition(":")[0], _reason(error)
    if _MISSING.search(reason):
        return StoreMissing(f"{url}: there is no such bucket: {reason}", hint="is its name right?"), False
    if re.search("status 301|Redirect|region .* is wrong", reason):
        return StoreFailed(f"{url} is in another region: {reason}", hint="set AWS_REGION"), False
    if _FORBIDDEN.search(reason):
        operation = re.search(r"during (\w+) operation", reason)
        action = _ACTIONS.get(operation[1]) if operation else None
        needed = (
            f"allow {action} on it (docs/howto/s3.md has the policy)" if action else "what is needed: docs/howto/s3.md"
        )
        found = "" if scheme != "s3" or _has_credentials() else "no credentials were found; "
        return StoreForbidden(f"{url} is forbidden: {found}{reason}", hint=f"{_HOW if found else ''}{needed}"), False
    if "Timeout" in reason or "timed out" in reason:
        return StoreFailed(f"{url} is too slow: {reason}", hint=f"run it again; {_where(scheme)}"), True
    if "onnect" in reason or "resolve" in reason:
        return StoreFailed(f"{url} cannot be reached: {reason}", hint=_where(scheme)), True
    return StoreFailed(f"{url} failed: {reason}", hint="run it again later"), not _FINAL.search(reason)


def _endpoint() -> tuple[str, str]:
    """The variable that says which S3 is asked, and what it says; both are empty where it is that of AWS."""
    given = [(name, os.environ[name]) for name in _ENDPOINTS if os.environ.get(name)]
    return given[0] if given else ("", "")


def _where(scheme: str) -> str:
    """What may be wrong where no answer came, with whom was asked."""
    if scheme != "s3":
        return "is the network up?"
    name, endpoint = _endpoint()
    if not name:
        return f"AWS was asked: is the network up? Another store is named by {_ENDPOINTS[0]}"
    return f"{re.sub('//[^/]*@', '//', endpoint)} was asked: is {name} right, and the network up?"


_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""The first that is set counts."""
_HOW = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role; "


def _has_credentials() -> bool:
    """Whether there are any but those of a machine's role, which only a request can tell."""
    files = [os.environ.get(name, "") for name in _PROFILE] + [str(Path.home() / ".aws" / "credentials")]
    return any(os.environ.get(name) for name in _GIVEN) or any(name and Path(name).is_file() for name in files)


def _reason(error: Exception) -> str:
    """What the SDK says, in a line, without anything that the environment has as a secret."""
    text = re.sub(r"; Details: .*", "", str(error))
    text = re.sub(r"sig=[^&\s]+", "sig=...", " ".join(text.split()))
    for name, value in os.environ.items():
        if len(value) > 7 and _SECRETS.search(name):
            text = text.replace(value, "...")
    return re.sub(r"^When .*? in bucket '[^']*': ", "", text)
