"""All or nothing: files, folders and links that appear whole, and the lock between runs.

A draft lives beside its target under a name starting with `.draft-`, is synced to disk, and is renamed last; then the
folder is synced too. Whoever dies in between leaves a draft, which `sweep` removes.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from storage.errors import Busy, DiskFailed

DRAFT = ".draft-"
FILE_MODE, FOLDER_MODE, PUBLISHED_MODE = 0o640, 0o750, 0o440


@contextmanager
def new_file(target: Path, mode: int = FILE_MODE) -> Iterator[Path]:
    """Yield a draft path; when the block ends well the draft becomes `target`, replacing what was there."""
    with _disk_errors(target):
        folder(target.parent)
        draft = target.parent / f"{DRAFT}{uuid.uuid4().hex}-{target.name}"
        try:
            yield draft
            _sync(draft, mode)
            os.replace(draft, target)
            sync_folder(target.parent)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a draft folder; when the block ends well it becomes `target`, which must not exist yet."""
    with _disk_errors(target):
        folder(target.parent)
        draft = target.parent / f"{DRAFT}{uuid.uuid4().hex}-{target.name}"
        draft.mkdir(mode=FOLDER_MODE)
        try:
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
        os.symlink(os.path.relpath(target, link.parent), draft)
        os.replace(draft, link)
        sync_folder(link.parent)


def write_json(target: Path, document: object) -> None:
    """Replace `target` by `document` as indented JSON, whole or not at all."""
    with new_file(target) as draft:
        draft.write_text(json.dumps(document, indent=1, default=str, sort_keys=True) + "\n", encoding="utf-8")


def folder(path: Path) -> Path:
    """Make the folder `path` and its parents where missing, not open to others."""
    with _disk_errors(path):
        for missing in reversed([part for part in (path, *path.parents) if not part.exists()]):
            missing.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return path


@contextmanager
def lock(path: Path, wait: float, holder: str) -> Iterator[None]:
    """Hold the one lock of a state folder; `holder` names this run to whoever finds it taken.

    The lock belongs to the process: the kernel frees it when the process ends, however it ends.
    Raises `Busy` when it is not free within `wait` seconds.
    """
    folder(path.parent)
    note = path.with_suffix(".json")
    held = FileLock(path, timeout=wait, mode=FILE_MODE)
    try:
        held.acquire()
    except Timeout as error:
        raise Busy(f"another run holds {path}{_described(note)}", hint="wait for it, or pass --wait SECONDS") from error
    except OSError as error:
        raise DiskFailed(f"cannot lock {path}: {error.strerror}", hint="is the state folder writable?") from error
    try:
        write_json(note, {"run": holder, "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")})
        yield
    finally:
        held.release()


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock."""
    if not path.exists():
        return False
    probe = FileLock(path, timeout=0, mode=FILE_MODE)
    try:
        with probe:
            return False
    except Timeout:
        return True


def sweep(root: Path) -> list[Path]:
    """Remove the drafts that killed runs left under `root`; call it only while holding the lock."""
    drafts = sorted(root.rglob(f"{DRAFT}*"))
    for draft in drafts:
        if draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)
    return drafts


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


def _described(note: Path) -> str:
    try:
        held = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return f": {held['run']}, pid {held['pid']}, since {held['since']}"


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskFailed(
            f"cannot write {path}: {error.strerror or error}", hint="free space, permissions and the disk's health"
        ) from error
