"""All or nothing: files, folders and links that appear whole, and the lock between runs.

A draft lives beside its target under a name starting with `.draft-`, is synced to disk, and is renamed last; then the
folder is synced too. Whoever dies in between leaves a draft, which `sweep` removes.
"""

import errno
import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from storage.errors import Busy, DiskFailed, DiskFull, NoPermission

DRAFT = ".draft-"
FILE_MODE, FOLDER_MODE, PUBLISHED_MODE = 0o640, 0o750, 0o440
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no room: on the disk, in the quota, within the limit of a file."""
_MOMENT = 0.3
"""Seconds: whoever asks whether the lock is held shares it for a moment, and a run that starts just then is not to fail."""
_BUSY = "wait for it, or pass --wait SECONDS"
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def new_file(target: Path, mode: int = FILE_MODE) -> Iterator[Path]:
    """Yield a draft path; when the block ends well the draft becomes `target`, replacing what was there."""
    folder(target.parent)
    draft = target.parent / f"{DRAFT}{uuid.uuid4().hex}-{target.name}"
    try:
        with _disk_errors(target, draft):
            yield draft
            _sync(draft, mode)
            os.replace(draft, target)
            sync_folder(target.parent)
    finally:
        with _disk_errors(draft):
            draft.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a draft folder; when the block ends well it becomes `target`, which must not exist yet."""
    folder(target.parent)
    draft = target.parent / f"{DRAFT}{uuid.uuid4().hex}-{target.name}"
    try:
        with _disk_errors(target, draft):
            draft.mkdir(mode=FOLDER_MODE)
            yield draft
            for path in sorted(draft.rglob("*"), reverse=True):
                if path.is_dir():
                    sync_folder(path)
                else:
                    _sync(path, FILE_MODE)
            sync_folder(draft)
            os.rename(draft, target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def flip(link: Path, target: Path) -> None:
    """Point the symlink `link` at `target` (written relative to the link's folder) in one step."""
    with _disk_errors(link):
        draft = link.parent / f"{DRAFT}{uuid.uuid4().hex}-{link.name}"
        try:
            os.symlink(os.path.relpath(target, link.parent), draft)
            os.replace(draft, link)
            sync_folder(link.parent)
        finally:
            draft.unlink(missing_ok=True)


def write_json(target: Path, document: object) -> None:
    """Replace `target` by `document` as indented JSON, whole or not at all."""
    with new_file(target) as draft:
        draft.write_text(json.dumps(document, indent=1, default=str, sort_keys=True) + "\n", encoding="utf-8")


def folder(path: Path) -> Path:
    """Make the folder `path` and its parents where missing, not open to others."""
    with _disk_errors(path):
        for missing in reversed([part for part in (path, *path.parents) if not part.exists()]):
            missing.mkdir(mode=FOLDER_MODE, exist_ok=True)
            sync_folder(missing.parent)
    return path


@contextmanager
def lock(path: Path, wait: float, holder: str) -> Iterator[None]:
    """Hold the one lock of a state folder; `holder` names this run to whoever finds it taken.

    The lock belongs to the process: the kernel frees it when the process ends, however it ends.
    Raises `Busy` when it is not free within `wait` seconds, and `DiskFailed` at once where the folder cannot be worked in.
    """
    _usable(path.parent)
    note = path.with_suffix(".json")
    held = FileLock(path, timeout=max(wait, _MOMENT), mode=FILE_MODE)
    try:
        held.acquire()
    except Timeout as error:
        alone = f"another run holds {path}{_described(note)}"
        raise Busy(alone if is_locked(path) else f"shards are being scored: they share {path}", hint=_BUSY) from error
    except OSError as error:
        raise failure(path, error) from error
    try:
        write_json(note, {"run": holder, "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")})
        yield
    finally:
        held.release()


@contextmanager
def shared_lock(path: Path, wait: float) -> Iterator[None]:
    """Share the lock of a state folder: whoever wants it alone is kept out, and is not where somebody else shares it.

    Raises `Busy` when a run holds it for longer than `wait` seconds, and `DiskFailed` as `lock` does.
    """
    _usable(path.parent)
    with _disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    try:
        until = time.monotonic() + max(wait, _MOMENT)
        while not _shares(handle):
            if time.monotonic() > until:
                raise Busy(f"another run holds {path}{_described(path.with_suffix('.json'))}", hint=_BUSY)
            time.sleep(_MOMENT / 6)
        yield
    finally:
        os.close(handle)  # frees it


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock alone; whoever may read the folder may ask."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not _shares(handle)
    finally:
        os.close(handle)


def sweep(root: Path, *, below: bool = True) -> list[Path]:
    """Remove the drafts that killed runs left in `root` and, unless told otherwise, below it; only while holding the lock."""
    drafts = sorted(root.rglob(f"{DRAFT}*") if below else root.glob(f"{DRAFT}*"))
    for draft in drafts:
        if draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)
    return drafts


def put_aside(path: Path, folder: Path) -> Path:
    """Move a file that must not be used any more into `folder`, under a name that says when; returns where it is now."""
    aside = folder / f"{path.name}.aside-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    with _disk_errors(path):
        os.rename(path, aside)
        sync_folder(folder)
    return aside


def remove(path: Path) -> None:
    """Remove a file or a folder. A folder is first renamed to a draft, so that no half of it is taken for the whole."""
    with _disk_errors(path):
        if path.is_dir() and not path.is_symlink():
            draft = path.parent / f"{DRAFT}{uuid.uuid4().hex}-{path.name}"
            os.rename(path, draft)
            shutil.rmtree(draft)
        else:
            path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries (new names) to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync(path: Path, mode: int) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


def _shares(handle: int) -> bool:
    """Share the lock of an open file, as filelock has it, until that is closed; False where somebody holds it alone."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter is what some network file systems say
        return False
    return True


def _described(note: Path) -> str:
    try:
        held = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return f": {held['run']}, pid {held['pid']}, since {held['since']}"


@contextmanager
def _disk_errors(path: Path, draft: Path | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failure(path, error, written=size(draft) if draft else 0) from error


def failure(path: Path, error: OSError, written: int = 0) -> DiskFailed:
    """What an error of the system means for `path`, of which `written` bytes were on disk already."""
    if error.errno in FULL:
        return full(path, error.strerror or str(error), written)
    if error.errno in _FORBIDDEN:
        hint = "run as the owner of the state folder, and let it be writable"
        return NoPermission(f"cannot write {path}: {error.strerror}", hint=hint, path=path)
    hint = "free space, permissions and the disk's health"
    return DiskFailed(f"cannot write {path}: {error.strerror or error}", hint=hint, path=path)


def full(path: Path, why: str, needed: int = 0) -> DiskFull:
    """No room for `path`, which needs at least `needed` bytes (0: unknown)."""
    left = free(path)
    wanted = f"at least {needed:,} bytes are needed, " if needed else ""
    return DiskFull(
        f"no room for {path}: {why}; {wanted}{left:,} bytes are free",
        hint="free some space, or lower publish.retention_dates, keep_files or keep_models; then run it again",
        **({"needed_bytes": needed} if needed else {}),
        path=path,
        free_bytes=left,
    )


def free(path: Path) -> int:
    """Bytes that may still be written where `path` is, or will be."""
    return shutil.disk_usage(next(part for part in (path, *path.absolute().parents) if part.exists())).free


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where there is nothing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _usable(root: Path) -> None:
    """Make the state folder where it is missing; raise where it is no folder, somebody else's or read-only.

    A link of one's own to a folder of one's own is followed: that is how state is kept on another disk.
    """
    if os.path.lexists(root) and not root.is_dir():
        what = f"a link to {os.readlink(root)}, which is no folder" if root.is_symlink() else "a file"
        raise DiskFailed(f"the state folder {root} is {what}", hint="state_dir names a folder", path=root)
    folder(root)
    owners = {root.lstat().st_uid, root.stat().st_uid} - {os.geteuid()}
    if owners and os.geteuid():
        owner = f"belongs to the user with id {owners.pop()}, this is {os.geteuid()}"
        raise NoPermission(f"the state folder {root} {owner}", hint="run as its owner, or name another", path=root)
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        raise NoPermission(f"the state folder {root} cannot be written", hint="chmod u+rwx, or name another", path=root)
