"""The model registry: what was stored is what is loaded, and nothing in it is ever executed."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage import models
from storage.errors import CorruptState, NotFound

WEIGHTS = {"weight/000": np.arange(6, dtype=np.float32).reshape(2, 3), "weight/001": np.array([0.5], np.float32)}
IDS = {"users": pa.array([1, 2]), "movies": pa.array(["a", "b"])}


def save(root: Path, version: str = "20260310-abcdef12", **more: Any) -> models.Model:
    manifest = {"recipe": {"epochs": 3}, "created_at": version, "lineage": {"training": version}, **more}
    return models.save(root, version, manifest, WEIGHTS, IDS)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (open, (self.marker, "w"))


def test_loaded_equals_saved(tmp_path: Path) -> None:
    weights, ids = models.contents(save(tmp_path))
    assert {name: array.tobytes() for name, array in weights.items()} == {
        name: array.tobytes() for name, array in WEIGHTS.items()
    }
    assert all(ids[name].equals(IDS[name]) for name in IDS)


@pytest.mark.parametrize("name", ["weights.npz", "users.parquet", "movies.parquet"])
def test_a_changed_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path).folder / name
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CorruptState, match=name):
        models.contents(models.load(tmp_path, "20260310-abcdef12"))
    path.unlink()
    with pytest.raises(CorruptState, match=name):
        models.contents(models.load(tmp_path, "20260310-abcdef12"))


def test_an_edited_recipe_does_not_pass(tmp_path: Path) -> None:
    manifest = save(tmp_path).folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"epochs": 3', '"epochs": 4'))
    with pytest.raises(CorruptState, match="digest"):
        models.contents(models.load(tmp_path, "20260310-abcdef12"))


def test_a_planted_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    folder = save(tmp_path).folder
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(str(tmp_path / "marker"))], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(folder / "weights.npz", "w") as planted:
        planted.writestr("weight/000.npy", buffer.getvalue())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["weights.npz"] = models._sha256(folder / "weights.npz")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptState):
        models.contents(models.load(tmp_path, "20260310-abcdef12"))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["../secret", "", "20260310", "20260310-ABC", "a/b", "20260310-abcdef12\0"])
def test_a_name_that_is_no_version_is_not_found(tmp_path: Path, name: str) -> None:
    save(tmp_path)
    with pytest.raises(NotFound):
        models.load(tmp_path, name)


def test_the_champion_survives_pruning(tmp_path: Path) -> None:
    for day in range(10, 15):
        save(tmp_path, f"202603{day}-abcdef12")
    models.promote(tmp_path, "20260310-abcdef12")
    assert models.prune(tmp_path, 2) == ["20260311-abcdef12", "20260312-abcdef12"]
    champion = models.champion(tmp_path)
    assert champion is not None
    assert champion.version == "20260310-abcdef12"


def test_a_version_is_found_by_what_it_was_trained_from(tmp_path: Path) -> None:
    save(tmp_path, "20260310-abcdef12")
    found = models.find(tmp_path, "20260310-abcdef12")
    assert found is not None
    assert models.find(tmp_path, "other") is None
    assert models.amend(tmp_path, found.version, status="forced").manifest["status"] == "forced"


def test_a_damaged_checkpoint_means_starting_anew(tmp_path: Path) -> None:
    kept = models.CheckpointFile(tmp_path, "f" * 64)
    kept.save(WEIGHTS)
    loaded = kept.load()
    assert loaded is not None
    assert loaded["weight/000"].tobytes() == WEIGHTS["weight/000"].tobytes()
    kept.path.write_bytes(kept.path.read_bytes()[:50])
    assert kept.load() is None
    kept.clear()
    assert kept.load() is None
