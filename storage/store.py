"""The copy of a state folder in an object store: files as objects that are named by their digests, and commits that name those.

`<url>/objects/<sha256>`, `<url>/commits/<number>-<when>.json`: all that the folder held, by path. Objects first, then the
commit: whoever reads takes the newest commit, and only what it names, by size and digest. `<url>/current.json` tells other
programs which object is the published file; nothing else is ever written twice. `<state>/store.json` notes which commit a
folder is at.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage import atomic, digest, held, objects, state, steady
from storage.errors import CorruptState, InvalidInput, StateVersion, StoreConflict
from storage.held import Copied, Held
from storage.objects import Bucket, Object

logger = logging.getLogger(__name__)
_MODES = {"published": atomic.PUBLISHED_MODE, "forgotten.json": 0o600}
_NOTE = "store.json"
_TRIES = 3


@dataclass(frozen=True)
class Commit:
    """A state of the folder, whole."""

    name: str
    """Sorts by its number; the number of a commit is one more than that of the commit it was made on."""
    held: Held

    @property
    def number(self) -> int:
        return _number(self.name)


@dataclass(frozen=True)
class Note:
    """What this folder knows of its copy."""

    commit: str = ""
    """The commit it is at; empty: none yet."""
    next: str = ""
    """A commit that it was about to make when this was noted."""
    taking: bool = False
    """A commit is being taken up: what is here may be half of it."""
    tidy: bool = True
    """Nothing is left to remove from the store, and `current.json` is right."""
    held: Held = field(default_factory=Held)


@dataclass(frozen=True)
class Done:
    """What was moved."""

    commit: str
    files: int = 0
    size: int = 0


class Store:
    """The copy of the state folder `root` below a URL. Call its methods only while holding the lock of the folder."""

    def __init__(self, url: str, root: Path) -> None:
        self.url, self.root = url.rstrip("/"), root
        self._bucket, self._prefix = Bucket.of(self.url)

    def follow(self, discard: bool = False) -> Done | None:
        """Take up the newest commit where this folder is empty, or at an older one; None where it is at the newest already.

        What was damaged here since it was copied is brought back either way. Raises `StoreConflict` where both have what the
        other has not, unless told to `discard` what only this folder has; `CorruptState` where the store lacks something;
        `StateVersion`; `StoreFailed`.
        """
        for _ in range(_TRIES):
            note, name = self.note(), self._newest(self._listed("commits"))
            if not name:
                return None
            if name == note.commit and not note.taking and not discard:
                self._restore(note)
                return None
            newest = self._read(name)
            if newest is None:
                continue  # there is a newer one by now
            if name == note.next:  # it was made, and whoever made it was killed before that was noted
                known = dataclasses.replace(newest.held, stamps=note.held.stamps)
                self._save(Note(name, tidy=False, held=known))
                return None
            here = held.of(self.root, note.held)
            lost = {path: note.held.files[path] for path in held.damaged(self.root, here, note.held)}
            whole = dataclasses.replace(here, files=here.files | lost)
            unchanged = note.commit and whole.essence == note.held.essence
            if not (note.taking or discard or unchanged or held.is_empty(self.root)):
                raise self._conflict(newest.name)
            if (done := self._take(newest, here)) is not None:
                return done
        raise CorruptState(f"the newest commit of {self.url} names objects that are not there", hint=_LACKS)

    def push(self, who: str, repair: bool = False) -> Done | None:
        """Copy what is new, and commit it; None where nothing is. With `repair` objects that were lost are copied again.

        Raises `StoreConflict` where somebody else has committed since, `CorruptState` where a file was damaged since it was
        copied: what is there stays, and so does what is here.
        """
        note = self.note()
        here = held.of(self.root, note.held)
        if here == note.held and note.commit and note.tidy and not repair:
            return None
        if damaged := held.damaged(self.root, here, note.held):
            what = f"{self.root / damaged[0]} is gone or was changed: {self.url} keeps its copy"
            raise CorruptState(what, hint="the next run brings it back from there, and so does recjob sync")
        listed = self._listed("")
        there = self._newest(listed)
        if there and there != note.commit:
            raise self._conflict(there)
        sizes = {one.key: one.size for one in listed}
        missing = {file.key: path for path, file in here.files.items() if sizes.get(file.key) != file.size}
        objects.each(lambda key: self._upload(key, self.root / missing[key]), missing)
        if here != note.held or not there or not note.tidy:
            note = self._commit(here, note, who)
            self._tidy(note, [one.key for one in listed])
        return Done(note.commit, len(missing), sum(here.files[path].size for path in missing.values()))

    def newest(self) -> Commit | None:
        """The newest commit; None where there is none."""
        name = self._newest(self._listed("commits"))
        return self._read(name) if name else None

    def lacking(self, commit: Commit) -> list[str]:
        """The files of a commit whose objects are not there, or are not whole."""
        sizes = {one.key: one.size for one in self._listed("objects")}
        return [path for path, file in commit.held.files.items() if sizes.get(file.key) != file.size]

    def note(self) -> Note:
        """What is noted of the copy; nothing, where the note is of another store."""
        try:
            noted = json.loads((self.root / _NOTE).read_text(encoding="utf-8"))
            if noted["url"] != self.url:
                return Note()
            facts = {name: noted[name] for name in ("commit", "next", "taking", "tidy")}
            return Note(**facts, held=dataclasses.replace(held.parsed(noted), stamps=noted["stamps"]))
        except FileNotFoundError:
            return Note()
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = f"remove it, and recjob sync --discard takes what {self.url} has"
            raise CorruptState(f"{self.root / _NOTE} cannot be read: {error}", hint=hint) from error

    def _take(self, commit: Commit, here: Held) -> Done | None:
        """Make the folder what a commit says; None where objects of it are gone: there may be a newer one."""
        wanted = {path: file for path, file in commit.held.files.items() if here.files.get(path) != file}
        size = sum(file.size for file in wanted.values())
        atomic.folder(self.root)
        if size > atomic.free(self.root):
            raise atomic.full(self.root, f"{self.url} is not taken up where it will not fit", size)
        note = self.note()
        self._save(dataclasses.replace(note, taking=True))
        gone = list[str]()
        objects.each(lambda path: self._download(path, wanted[path], gone), wanted)
        if gone:
            return None
        for name, target in commit.held.links.items():
            atomic.flip(self.root / name, (self.root / name).parent / target)
        for name in [*(here.files.keys() - commit.held.files.keys()), *(here.links.keys() - commit.held.links.keys())]:
            atomic.remove(self.root / name)
        held.drop_empty(self.root)
        stamps = {path: (self.root / path).stat().st_mtime_ns for path in commit.held.files}
        self._save(Note(commit.name, held=dataclasses.replace(commit.held, stamps=stamps)))
        logger.info("store.taken_up", extra={"commit": commit.name, "files": len(wanted), "bytes": size})
        return Done(commit.name, len(wanted), size)

    def _restore(self, note: Note) -> None:
        """Bring back what was damaged here since it was copied; what the store has not either stays for others to tell."""
        here, gone = held.of(self.root, note.held), list[str]()
        damaged = held.damaged(self.root, here, note.held)
        if not damaged or held.has_forgotten_more(here, note.held, damaged):  # the store still shows those people
            return
        objects.each(lambda path: self._download(path, note.held.files[path], gone), damaged)
        for name, target in here.links.items():
            if str(Path(name).parent / target) in damaged:  # it is not newer than the link: nobody has written to it
                atomic.flip(self.root / name, (self.root / name).parent / target)
        back = [path for path in damaged if path not in gone]
        logger.warning("store.restored", extra={"commit": note.commit, "restored": back, "not_there": gone})

    def _download(self, path: str, file: Copied, gone: list[str]) -> None:
        target = self.root / path
        mode = _MODES.get(path.partition("/")[0], atomic.FILE_MODE)
        try:
            with atomic.new_file(target, mode) as draft:
                draft.touch(mode=0o600)
                whole = self._bucket.download(Object(self._key(file.key), file.size, 0), draft)
                if not whole or digest.of_file(draft) != file.sha256:
                    raise _Gone
        except _Gone:
            gone.append(path)

    def _upload(self, key: str, path: Path) -> None:
        try:
            with steady.unchanged(path):
                self._bucket.write(self._key(key), path)
        except InvalidInput:  # it is not what its name says
            self._bucket.remove(self._key(key))
            raise

    def _commit(self, here: Held, note: Note, who: str) -> Note:
        """Write a commit after the noted one; withdraw it where somebody else has made one meanwhile."""
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{os.urandom(3).hex()}"
        number = _number(note.commit) + 1 if note.commit else 1
        name = f"{number:08}-{stamp}.json"
        self._save(dataclasses.replace(note, next=name))
        document = {"state_version": state.VERSION, "by": who, "after": note.commit, **held.plain(here)}
        self._bucket.write(self._key(f"commits/{name}"), _json(document))
        others = {_name(one.key) for one in self._listed("commits")} - {name}
        if rivals := [other for other in others if _number(other) >= number]:
            self._bucket.remove(self._key(f"commits/{name}"))
            raise self._conflict(max(rivals))
        made = Note(name, tidy=False, held=here)
        self._save(made)
        logger.info("store.pushed", extra={"commit": name, "files": len(here.files)})
        return made

    def _tidy(self, note: Note, listed: Sequence[str]) -> None:
        """Let `current.json` name the published file, then remove what the commit that was just made does not name.

        `listed` was there before it: another machine that has yet to commit some of it will find that it is too late.
        """
        link = note.held.links.get("recommendations.duckdb")
        if link in note.held.files:
            file = note.held.files[link]
            facts = {"key": file.key, "bytes": file.size, "sha256": file.sha256, "file": Path(link).name}
            self._bucket.write(self._key("current.json"), _json(facts | {"commit": note.commit}))
        kept = {file.key for file in note.held.files.values()} | {f"commits/{note.commit}", "current.json"}
        old = [key for key in listed if key not in kept and key.startswith(("objects/", "commits/"))]
        objects.each(lambda key: self._bucket.remove(self._key(key)), sorted(old))
        self._save(dataclasses.replace(note, tidy=True))

    def _newest(self, listed: Sequence[Object]) -> str:
        """The name of the newest commit among listed objects; empty where there is none.

        Of two with one number the first is it: whoever made the second saw that, and was killed before withdrawing it.
        """
        commits = [(one.modified_ns, _name(one.key)) for one in listed if one.key.startswith("commits/")]
        newest = max((_number(name) for _, name in commits), default=0)
        return min(((at, name) for at, name in commits if _number(name) == newest), default=(0, ""))[1]

    def _read(self, name: str) -> Commit | None:
        """A commit; None where it is gone."""
        found = self._bucket.read(self._key(f"commits/{name}"))
        if found is None:
            return None
        try:
            document = json.loads(found)
            version, named = int(document["state_version"]), held.parsed(document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "remove it, then recjob sync on a machine whose state folder is whole"
            raise CorruptState(f"{self.url}/commits/{name} cannot be read: {error}", hint=hint) from error
        if version > state.VERSION:
            raise StateVersion(f"{self.url} was written by a newer recjob", hint="use that one, or another store.url")
        targets = [str(Path(link).parent / target) for link, target in named.links.items()]
        if escaping := [path for path in (*named.files, *named.links, *targets) if not held.is_ours(path)]:
            raise CorruptState(
                f"{self.url}/commits/{name} names {escaping[0]!r}, which no state folder has", hint=_LACKS
            )
        return Commit(name, named)

    def _listed(self, folder: str) -> list[Object]:
        """The objects of the copy, their keys without its prefix."""
        cut = len(self._key(""))
        return [Object(one.key[cut:], one.size, one.modified_ns) for one in self._bucket.below(self._key(folder))]

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _conflict(self, other: str) -> StoreConflict:
        return StoreConflict(
            f"{self.url} has {other or 'nothing'} of another machine, and {self.root} has what is not there",
            hint="two machines work on one store: recjob sync --discard takes what the store has, and drops what only is here",
        )

    def _save(self, note: Note) -> None:
        facts = {"url": self.url, "commit": note.commit, "next": note.next, "taking": note.taking, "tidy": note.tidy}
        atomic.write_json(self.root / _NOTE, facts | {"stamps": note.held.stamps, **held.plain(note.held)})


class _Gone(Exception):
    """An object is not there, or not what its name says."""


def _name(key: str) -> str:
    return key.removeprefix("commits/")


def _number(name: str) -> int:
    return int(name[:8]) if name[:8].isdigit() else 0


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


_LACKS = "recjob sync, on a machine whose state folder is whole, copies what is missing"
