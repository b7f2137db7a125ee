"""Input in object stores: what is new or changed is fetched into a cache, which then holds what the store does, and is read.

`<cache>/s3/bucket/key`: an object as a file of its size and time. Everything that is promised of files holds for these.
"""

import fnmatch
import glob
import logging
import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pyarrow as pa

from storage import atomic, objects, tabular, urls
from storage.errors import InputChanging, InvalidInput, NoRatings, StorageError
from storage.objects import Bucket, Object

logger = logging.getLogger(__name__)
_TRIES = 3
"""How often everything is listed anew because something changed while it was fetched."""
_NO_PATH = "a key is fetched as a file of that path: copy it to one without //, . and .. between slashes"
_OTHERS = 4 * 3600.0
"""Seconds to wait for another process that fetches: what it has fetched need not be fetched again."""


def objects_of(url: str) -> list[Object]:
    """The data files that the URL of a file, folder or glob stands for, as `tabular.files_of` has it.

    Raises `NoRatings`, `StoreFailed`, and `InvalidInput` for keys that are no paths.
    """
    bucket, key = Bucket.of(url)
    try:
        found = _within(bucket, key)
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{url}: {error}", hint=_NO_PATH, path=url) from error
    for one in [*found, Object(key.rstrip("/"), 0, 0)]:
        if one.key and any(part in ("", ".", "..") for part in one.key.split("/")):
            raise InvalidInput(f"{bucket.url(one.key)} is no path", hint=_NO_PATH, path=url)
    if not found:
        raise NoRatings(
            f"{url} has no data files", hint="is the key right? a file, a folder or a quoted glob", path=url
        )
    return found


def _within(bucket: Bucket, key: str) -> list[Object]:
    if not glob.has_magic(key):
        one = bucket.find(key) if key and not key.endswith("/") else None
        base = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
        inside = [] if one else bucket.below(base)
        return [one] if one else [at for at in inside if tabular.is_data(PurePosixPath(at.key.removeprefix(base)))]
    parts = key.split("/")
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    matching = [one for one in bucket.below("/".join(parts[:fixed])) if _matches(one.key.split("/"), parts)]
    return [one for one in matching if PurePosixPath(one.key).name[0] not in "_."]


def path_of(url: str, cache: Path) -> Path:
    """Where the cache has what a URL names."""
    scheme, place, key = urls.split(url)
    return cache.joinpath(scheme, place, *key.split("/"))


def fetch(wanted: Collection[str], cache: Path, settle: float) -> None:
    """Let the cache hold what the URLs name, and nothing else.

    Objects must have been left alone for `settle` seconds. Raises `InputChanging`, `NoRatings`, `StoreFailed`, `DiskFull`.
    """
    atomic.folder(cache)
    with atomic.lock(cache / "lock", _OTHERS, "fetching"):
        for _ in range(_TRIES):
            listed = {url: one for source in wanted for url, one in _settled(source, settle)}
            if changed := _copied(listed, cache):
                logger.info("input.changed", extra={"url": changed, "instead": "everything is listed anew"})
                continue
            _tidied({path_of(url, cache) for url in listed}, cache)
            return
    hint = "write it under another name (beginning with . or _) and copy it when it is whole, or run later"
    raise InputChanging(f"{changed} changed while it was fetched", hint=hint, path=changed)


def clear(cache: Path) -> None:
    """Remove everything that was fetched."""
    if cache.is_dir():
        _tidied((), cache)


@contextmanager
def named(cache: Path) -> Iterator[None]:
    """Let errors on files of the cache name the URLs that these came from."""
    try:
        yield
    except StorageError as error:
        error.args = (url_in(str(error), cache),)
        error.hint = url_in(error.hint, cache)
        error.where = {name: url_in(at, cache) if isinstance(at, str) else at for name, at in error.where.items()}
        raise


def url_in(text: str, cache: Path) -> str:
    """The text with URLs in place of paths in the cache."""

    return re.sub(rf"{re.escape(str(cache))}/({'|'.join(urls.SCHEMES)})/", r"\1://", text)


def _settled(source: str, settle: float) -> list[tuple[str, Object]]:
    """The objects of a URL, once none of them is younger than `settle` seconds."""
    bucket, _ = Bucket.of(source)
    found = objects_of(source)
    pause = min(settle, settle - (time.time() - max(one.modified_ns for one in found) / 1e9))
    if pause > 0:
        time.sleep(pause)
        if objects_of(source) != found:
            raise InputChanging(
                f"{source} changes just now", hint="run later, or raise input.settle_seconds", path=source
            )
    return [(bucket.url(one.key), one) for one in found]


def _copied(listed: dict[str, Object], cache: Path) -> str:
    """Fetch what the cache has not as it is listed; the URL of an object that is no longer so, if there is one."""
    missing = [url for url, one in listed.items() if not _held(path_of(url, cache), one)]
    size = sum(listed[url].size for url in missing)
    if size > atomic.free(cache):
        raise atomic.full(cache, "the input is not fetched where it will not fit", size)
    began, changed = time.perf_counter(), list[str]()

    def copy(url: str) -> None:
        one = listed[url]
        try:
            with atomic.new_file(path_of(url, cache)) as draft:
                if not Bucket.of(url)[0].download(one, draft):
                    raise _Changed
                os.utime(draft, ns=(one.modified_ns, one.modified_ns))
        except _Changed:
            changed.append(url)

    objects.each(copy, missing)
    told = {"files": len(listed), "fetched": len(missing), "bytes": size, "seconds": time.perf_counter() - began}
    logger.info("input.fetched", extra=told)
    return min(changed, default="")


class _Changed(Exception):
    """The object is not what was listed any more."""


def _held(path: Path, one: Object) -> bool:
    if not path.is_file():
        return False
    found = path.stat()
    return found.st_size == one.size and found.st_mtime_ns == one.modified_ns


def _tidied(wanted: Collection[Path], cache: Path) -> None:
    """Remove what is not in the store any more, drafts of killed fetches, and folders that are left empty."""
    for path in sorted(cache.rglob("*"), reverse=True):
        if path.parent == cache and not path.is_dir():
            continue  # the lock
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in wanted:
            path.unlink()


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a key match those of a glob as those of a path would: `**` is any folders, none hidden."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        here = _matches(parts, pattern[1:])
        return here or (bool(parts) and not parts[0].startswith(".") and _matches(parts[1:], pattern))
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
