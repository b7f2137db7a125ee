"""Who was forgotten: keyed hashes of their ids, so that they are kept out without being known.

`<state>/forgotten.json`, readable by its owner only: whoever has the key can test an id, and nobody can read one.
"""

import dataclasses
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from storage import atomic
from storage.errors import CorruptState

_NAME, _MODE = "forgotten.json", 0o600


@dataclass(frozen=True)
class Forgotten:
    """The list. Ids are hashed as they are written: the number 7 and the text "7" are the same, "007" is another."""

    key: str = ""
    hashes: frozenset[str] = frozenset()
    pending: bool = False
    """Whether something of theirs may still be held: a removal was begun and not ended."""

    def adding(self, ids: Iterable[str]) -> "Forgotten":
        """The list with more ids, pending."""
        keyed = dataclasses.replace(self, key=self.key or secrets.token_hex(32), pending=True)
        return dataclasses.replace(keyed, hashes=self.hashes | {keyed._hash(one) for one in ids})

    def letting_in(self, ids: Iterable[str]) -> "Forgotten":
        """The list without some ids."""
        return dataclasses.replace(self, hashes=self.hashes - {self._hash(one) for one in ids})

    def among(self, ids: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The distinct ids that are on the list."""
        distinct = pc.unique(ids)
        if not self.hashes:
            return distinct[:0]
        return distinct.filter(pa.array([self._hash(one) in self.hashes for one in distinct.to_pylist()], pa.bool_()))

    def without(self, table: pa.Table) -> pa.Table:
        """The rows of a table whose `user_id` is not on the list."""
        found = self.among(table["user_id"])
        return table.filter(pc.invert(pc.is_in(table["user_id"], value_set=found))) if len(found) else table

    def _hash(self, one: object) -> str:
        return hmac.digest(bytes.fromhex(self.key), str(one).encode("utf-8", "surrogatepass"), "sha256").hex()


def load(root: Path) -> Forgotten:
    """The list of a state folder, empty where there is none; raises `CorruptState`: nobody may come back unnoticed."""
    path = root / _NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Forgotten(document["key"], frozenset(document["hashes"]), document["pending"])
    except FileNotFoundError:
        return Forgotten()
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "restore it from a backup: it says who must be kept out"
        raise CorruptState(f"{path} cannot be read: {error}", hint=hint) from error


def save(root: Path, listed: Forgotten) -> None:
    """Replace the list of a state folder, whole or not at all."""
    document = {"key": listed.key, "hashes": sorted(listed.hashes), "pending": listed.pending}
    with atomic.new_file(root / _NAME, mode=_MODE) as draft:
        draft.touch(mode=_MODE)
        draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
