"""The model registry: versions on disk, which one is the champion, and proof that a version is what was stored.

`<root>/<version>/{manifest.json, weights.npz, users.parquet, movies.parquet}`, `<root>/champion.json`. Arrays, ids and
JSON only: nothing in a version is ever executed, and none of it is unpickled.
"""

import hashlib
import json
import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage import atomic, parquet
from storage.digest import of_file
from storage.errors import CorruptState, NotFound, StorageError

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
_NAME = re.compile(r"[0-9]{8}-[0-9a-f]{6,64}")
_MANIFEST = {"recipe", "files", "digest", "created_at", "lineage"}
"""What this module needs of a manifest."""
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile)
"""What NumPy raises for a file that is no .npz, or one with pickles in it."""


@dataclass(frozen=True)
class Model:
    """One stored version."""

    version: str
    manifest: dict[str, Any]
    """recipe, rating_scale, metrics, lineage, files (name -> sha256), digest, created_at, status."""
    folder: Path


def save(root: Path, version: str, manifest: Mapping[str, Any], weights: Arrays, ids: Mapping[str, pa.Array]) -> Model:
    """Store a version, whole or not at all; one of the same name that is already there is kept, unless it is damaged.

    The digest covers weights, vocabularies and recipe, and is the same for the same training.
    """
    target = root / version
    if target.exists():
        if is_intact(root, version):
            return load(root, version)
        atomic.remove(target)
    with atomic.new_folder(target) as draft:
        with (draft / "weights.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **weights)
        for name, values in ids.items():
            with parquet.open_writer(draft / f"{name}.parquet", pa.schema([(name, values.type)])) as writer:
                writer.write_table(pa.table({name: values}))
        files = {path.name: of_file(path) for path in sorted(draft.iterdir())}
        document = {**manifest, "version": version, "files": files, "digest": digest(manifest["recipe"], weights, ids)}
        (draft / "manifest.json").write_text(json.dumps(document, indent=1, sort_keys=True, default=str) + "\n")
    return load(root, version)


def digest(recipe: Mapping[str, Any], weights: Arrays, ids: Mapping[str, pa.Array]) -> str:
    """sha256 over recipe, vocabularies and weights."""
    content = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for name, values in sorted(ids.items()):
        content.update(name.encode() + str(values.type).encode())
        for value in values.to_pylist():
            content.update(f"{value}\0".encode())
    for name, array in sorted(weights.items()):
        content.update(f"{name}{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def load(root: Path, version: str) -> Model:
    """The manifest of a version, its files not yet verified; raises `NotFound`, `CorruptState`."""
    if not _NAME.fullmatch(version) or not _is_version(root / version):
        raise NotFound(f"there is no model {version!r}", hint="recjob models list shows the versions")
    folder = root / version
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        lacking = _MANIFEST - manifest.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise CorruptState(f"{folder}/manifest.json cannot be read: {error}", hint=_OTHER) from error
    if lacking:
        raise CorruptState(f"{folder}/manifest.json lacks {', '.join(sorted(lacking))}", hint=_OTHER)
    return Model(version, manifest, folder)


def contents(model: Model) -> tuple[dict[str, NDArray[Any]], dict[str, pa.Array]]:
    """The verified weights and vocabularies of a version; raises `CorruptState` naming the file that was changed."""
    for name, expected in model.manifest["files"].items():
        path = model.folder / name
        if not path.is_file() or of_file(path) != expected:
            raise CorruptState(f"{path} is missing or was changed since it was stored", hint=_OTHER)
    try:
        with np.load(model.folder / "weights.npz", allow_pickle=False) as stored:
            weights = {name: np.asarray(stored[name]) for name in stored.files}
        names = [name.removesuffix(".parquet") for name in model.manifest["files"] if name.endswith(".parquet")]
        ids = {name: parquet.read(model.folder / f"{name}.parquet")[name].combine_chunks() for name in names}
    except (*_UNREADABLE, StorageError) as error:
        raise CorruptState(f"model {model.version} cannot be read: {error}", hint=_OTHER) from error
    if digest(model.manifest["recipe"], weights, ids) != model.manifest["digest"]:
        raise CorruptState(f"the digest of model {model.version} is not that of its contents", hint=_OTHER)
    return weights, ids


def is_intact(root: Path, version: str) -> bool:
    """Whether a version is what was stored, looked at in full."""
    try:
        contents(load(root, version))
    except CorruptState:
        return False
    return True


def remove_damaged(root: Path) -> list[Path]:
    """Remove versions that are not what was stored, and the note of the champion that names none; returns what was."""
    names = [path.name for path in root.iterdir() if _is_version(path)] if root.is_dir() else []
    lost = [root / name for name in sorted(names) if not is_intact(root, name)]
    for folder in lost:
        atomic.remove(folder)
    try:
        champion(root)
    except CorruptState:
        lost.append(root / "champion.json")
        atomic.remove(root / "champion.json")
    return lost


def _is_version(path: Path) -> bool:
    """Whether it is the folder of a version; a link to a folder somewhere else is none."""
    return bool(_NAME.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()


def versions(root: Path) -> list[Model]:
    """All versions, oldest first, but for those whose manifest cannot be read: nights go on without them, and warn."""
    found = []
    for name in sorted(path.name for path in root.iterdir() if _is_version(path)) if root.is_dir() else []:
        try:
            found.append(load(root, name))
        except CorruptState as error:
            _warn(root / name, str(error))
    return sorted(found, key=lambda model: str(model.manifest["created_at"]))


def unreadable(root: Path) -> list[Path]:
    """The folders of versions whose manifest cannot be read."""
    known = {model.folder for model in versions(root)}
    return sorted(path for path in root.iterdir() if _is_version(path) and path not in known) if root.is_dir() else []


@cache
def _warn(folder: Path, why: str) -> None:
    """Tell of a damaged version, once."""
    logger.warning("model.damaged", extra={"version": folder.name, "why": f"{why}; remove {folder}, or restore it"})


def find(root: Path, training: str) -> Model | None:
    """The version that was trained from exactly these inputs (`lineage.training`), if there is one."""
    return next((m for m in reversed(versions(root)) if m.manifest["lineage"]["training"] == training), None)


def called_now(root: Path) -> dict[str, str]:
    """The names of versions that `recjob forget` has stored anew, by each name that they had: lists keep those."""
    return {before: model.version for model in versions(root) for before in called_before(model)}


def called_before(model: Model) -> list[str]:
    """The names that a version had, oldest first."""
    names = model.manifest["lineage"].get("rewritten_from", [])
    return [names] if isinstance(names, str) else list(names)  # one name, where an older recjob has stored it


def champion(root: Path) -> Model | None:
    """The model in use, if there is one."""
    try:
        version = json.loads((root / "champion.json").read_text(encoding="utf-8"))["version"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptState(f"{root}/champion.json cannot be read: {error}", hint=_CHAMPION) from error
    try:
        return load(root, str(version))
    except NotFound as error:
        raise CorruptState(f"{root}/champion.json names {version}, which is not there", hint=_CHAMPION) from error


def amend(root: Path, version: str, **facts: Any) -> Model:
    """Change what the manifest says of a version (its status, say); its contents stay what they are."""
    model = load(root, version)
    atomic.write_json(model.folder / "manifest.json", model.manifest | facts)
    return load(root, version)


def promote(root: Path, version: str, *, pinned: bool = False) -> None:
    """Make a version the champion; `pinned`: until another is promoted by hand."""
    pin = {"pinned": True} if pinned else {}
    atomic.write_json(root / "champion.json", {"version": load(root, version).version} | pin)


def pinned(root: Path) -> Model | None:
    """The champion, if it is pinned."""
    crowned = champion(root)
    if crowned is None or not json.loads((root / "champion.json").read_text(encoding="utf-8")).get("pinned"):
        return None
    return crowned


def prune(root: Path, keep: int) -> list[str]:
    """Remove all but the newest `keep` versions and the champion; returns what was removed."""
    crowned = champion(root)
    old = [model for model in versions(root)[:-keep] if crowned is None or model.version != crowned.version]
    for model in old:
        atomic.remove(model.folder)
    return [model.version for model in old]


_CHAMPION = "restore it, or remove champion.json: the next night then makes its model the champion"
_OTHER = "score with another version: recjob models list, then --model VERSION; or train again with --force"


class CheckpointFile:
    """One unfinished training, kept beside the registry under the digest of its inputs."""

    def __init__(self, root: Path, training: str, apart: float = 10.0) -> None:
        """`apart`: seconds between two states that are kept; the first one is. To write one can take longer than an epoch.

        Infinite: none is kept, and none is cleared away; it is another process that keeps them.
        """
        self.path = root / "unfinished" / f"{training[:32]}.npz"
        self.apart, self.kept_at = apart, -math.inf

    def load(self) -> dict[str, NDArray[Any]] | None:
        """The newest state, or None where there is none or it cannot be read: then training starts anew."""
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except _UNREADABLE:
            return None

    def save(self, state: Arrays) -> None:
        """Replace the state, unless that was done less than `apart` seconds ago."""
        if self.apart == math.inf or time.monotonic() - self.kept_at < self.apart:
            return
        with atomic.new_file(self.path) as draft, draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **state)
        self.kept_at = time.monotonic()

    def clear(self) -> None:
        """Forget the state, once the training is finished."""
        if self.apart < math.inf:
            self.path.unlink(missing_ok=True)
