"""What can go wrong on disk. Each error says what and where, and its hint what to do next.

StorageError
├── InvalidInput        the ratings, movies or users cannot be used as they are
│   ├── NoRatings         there is nothing to read, or nothing before the watermark
│   ├── InputChanging     a file is written or replaced while it is read
│   ├── InputLimit        a file unpacks to more than a file of ratings would
│   └── UnlikelyInput     far fewer rows than before, none of late, or a file that changed without being written
├── Busy                another run holds the lock
├── DiskFailed          the disk reports an error
│   ├── DiskFull          no room, now or foreseen
│   └── NoPermission      the state folder is read-only, somebody else's, or open to everybody
├── StoreFailed         an object store does not answer, or only with errors, however often it is asked
│   ├── StoreForbidden    no credentials, or they do not allow it
│   ├── StoreMissing      there is no such bucket
│   └── CatalogueFailed   an Iceberg catalogue does not answer, or would not have the tables
├── CorruptState        recjob's own files do not pass their integrity check
│   ├── AuditFailed       a published file that was built breaks a rule of the tables
│   ├── StateVersion      the state folder was written by a newer recjob
│   └── StoreConflict     the state folder and its copy in an object store each have what the other has not
├── NotFound            no such run, model, date or user
└── QueryRefused        not exactly one SELECT, or over a limit
"""

import re


def shape(text: str) -> str:
    """What a value of the input looks like: letters as x, digits as 9. Messages are kept in logs, and it may be of a person."""
    return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "9", text))


def shapes(message: str) -> str:
    """A message of Arrow's CSV reader, with the line or value that it quotes as its shape."""
    return re.sub(r"(got \d+: |invalid value )(.*)", lambda found: found[1] + shape(found[2]), message, flags=re.DOTALL)


class StorageError(Exception):
    """Base of everything `storage` raises on purpose.

    `kind` is the stable name shown to users; `hint` is the next step.
    """

    kind = "E_STORAGE"

    def __init__(self, message: str, hint: str = "", **where: object) -> None:
        super().__init__(message)
        self.hint = hint
        self.where = where
        """Where in the input: `path`, `column`, `row` (1-based), when known."""


class InvalidInput(StorageError):
    """The input cannot be used; nothing was written."""

    kind = "E_INPUT"


class NoRatings(InvalidInput):
    """There are no ratings to work on."""

    kind = "E_NO_RATINGS"


class InputChanging(InvalidInput):
    """A file was written, replaced or removed while it was read."""

    kind = "E_INPUT_CHANGING"


class InputLimit(InvalidInput):
    """A file would take more memory than any file of ratings of its size."""

    kind = "E_INPUT_LIMIT"


class UnlikelyInput(InvalidInput):
    """The ratings are readable, but not what was to be expected after the runs before; `--accept-input` takes them."""

    kind = "E_INPUT_UNLIKELY"


class Busy(StorageError):
    """Another run holds the lock on the state folder."""

    kind = "E_BUSY"


class DiskFailed(StorageError):
    """The operating system refused: I/O error, no such folder, and what is below."""

    kind = "E_IO"


class DiskFull(DiskFailed):
    """No room for what is to be written; `where` has `path`, `needed_bytes` where known, and `free_bytes`."""

    kind = "E_DISK_FULL"


class NoPermission(DiskFailed):
    """A folder or file of recjob's own cannot be written by this user, or can be by everybody."""

    kind = "E_PERMISSION"


class StoreFailed(StorageError):
    """An object store could not be reached, or was asked in vain."""

    kind = "E_STORE"


class StoreForbidden(StoreFailed):
    """The credentials, or the lack of them, do not allow a request."""

    kind = "E_STORE_FORBIDDEN"


class StoreMissing(StoreFailed):
    """A URL names a bucket or an account that is not there."""

    kind = "E_STORE_MISSING"


class CatalogueFailed(StoreFailed):
    """An Iceberg catalogue could not be reached, or would not have the tables of lists."""

    kind = "E_CATALOGUE"


class CorruptState(StorageError):
    """A file of recjob's own does not match what was recorded about it."""

    kind = "E_CORRUPT"


class AuditFailed(CorruptState):
    """The built file breaks a rule of the tables; it was not published."""

    kind = "E_AUDIT"


class StateVersion(CorruptState):
    """The state folder, or a file in it, was written by a newer recjob; nothing was changed."""

    kind = "E_STATE_VERSION"


class StoreConflict(CorruptState):
    """Somebody else has changed the copy of the state folder; neither was touched."""

    kind = "E_STORE_CONFLICT"


class NotFound(StorageError):
    """No such run, model, date or user."""

    kind = "E_NOT_FOUND"


class QueryRefused(StorageError):
    """A query that is not exactly one SELECT, fails, or passes a limit."""

    kind = "E_QUERY"


FIRST = "recjob nightly --date D, or recjob demo; recjob sync, where store.url names a copy of what another machine published"
"""What to do where nothing has been published yet."""


def nothing_published() -> NotFound:
    """The error for whoever asks for lists before there are any."""
    return NotFound("nothing has been published yet", hint=FIRST)
