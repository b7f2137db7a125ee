"""The state folder as a whole: which version of recjob it is of, and whether only its owner writes to it.

`<state>/version.json` is noted by whoever first holds the lock. Nothing here is heavy: every command begins with it.
"""

import json
import stat
from pathlib import Path

from storage import atomic
from storage.errors import CorruptState, NoPermission, StateVersion

VERSION = 1
_NAME = "version.json"


def check(root: Path) -> int:
    """The version of a state folder, 0 where none is noted yet; touches nothing.

    Raises `StateVersion` where a newer recjob has written it, `NoPermission` where everybody may write to it.
    """
    if root.is_dir() and root.stat().st_mode & stat.S_IWOTH:
        raise NoPermission(f"everybody may write to {root}, and so decide what is published", hint=f"chmod o-w {root}")
    path = root / _NAME
    try:
        noted = int(json.loads(path.read_text(encoding="utf-8"))["state_version"])
    except (FileNotFoundError, NotADirectoryError):  # whoever takes the lock says what is wrong with the latter
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptState(
            f"{path} cannot be read: {error}", hint=f'write {{"state_version": {VERSION}}} into it'
        ) from error
    if noted > VERSION:
        message = f"{root} was written by a newer recjob: its version is {noted}, this recjob knows up to {VERSION}"
        raise StateVersion(message, hint="use the newer recjob, or another state folder; nothing was changed")
    return noted


def note(root: Path, recjob_version: str) -> None:
    """Note that everything in the folder is of this version now."""
    atomic.write_json(root / _NAME, {"state_version": VERSION, "recjob_version": recjob_version})
