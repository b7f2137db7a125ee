"""The model registry: what was stored is what is loaded, and nothing in it is ever executed."""

import hashlib
import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage import models
from storage.errors import CorruptState, NotFound

VERSION = "20260310-abcdef12"
WEIGHTS = {"weight/000": np.arange(6, dtype=np.float32).reshape(2, 3), "weight/001": np.array([0.5], np.float32)}
IDS = {"users": pa.array([1, 2]), "movies": pa.array(["a", "b"])}


def save(root: Path, version: str = VERSION, **more: Any) -> models.Model:
    manifest = {"recipe": {"epochs": 3}, "created_at": version, "lineage": {"training": version}, **more}
    return models.save(root, version, manifest, WEIGHTS, IDS)


def planted(folder: Path, content: bytes) -> None:
    """Put other weights into a version, with a manifest that vouches for them."""
    (folder / "weights.npz").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["weights.npz"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


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
@pytest.mark.faults("B3.14")
def test_a_changed_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path).folder / name
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CorruptState, match=name):
        models.contents(models.load(tmp_path, VERSION))
    path.unlink()
    with pytest.raises(CorruptState, match=name):
        models.contents(models.load(tmp_path, VERSION))


@pytest.mark.faults("B3.14")
def test_an_edited_recipe_does_not_pass(tmp_path: Path) -> None:
    manifest = save(tmp_path).folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"epochs": 3', '"epochs": 4'))
    with pytest.raises(CorruptState, match="digest"):
        models.contents(models.load(tmp_path, VERSION))


@pytest.mark.faults("B5.3")
def test_a_planted_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    array, archive = io.BytesIO(), io.BytesIO()
    np.save(array, np.array([Bomb(str(tmp_path / "marker"))], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weight/000.npy", array.getvalue())
    planted(save(tmp_path).folder, archive.getvalue())
    with pytest.raises(CorruptState):
        models.contents(models.load(tmp_path, VERSION))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("kind", ["pickle", "array", "text", "empty", "zip of text"])
@pytest.mark.faults("B5.3")
def test_weights_that_are_no_archive_of_arrays_are_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    array, archive = io.BytesIO(), io.BytesIO()
    np.save(array, np.arange(3))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weight/000.npy", "no array")
    bomb = pickle.dumps(Bomb(str(tmp_path / "marker")))
    contents = {
        "pickle": bomb,
        "array": array.getvalue(),
        "text": b"text",
        "empty": b"",
        "zip of text": archive.getvalue(),
    }
    planted(save(tmp_path).folder, contents[kind])
    with pytest.raises(CorruptState):
        models.contents(models.load(tmp_path, VERSION))
    assert not (tmp_path / "marker").exists()


LOAD = """
import io, json, sys, zipfile
from pathlib import Path
from storage import models
from storage.errors import CorruptState
root, seen = Path(sys.argv[1]), []
models.is_intact(root, "20260310-cccccccc")  # so that all is imported
sys.addaudithook(lambda event, arguments: seen.append((event, str(arguments))))
for version in ("20260310-aaaaaaaa", "20260310-bbbbbbbb", "20260310-cccccccc"):
    try:
        models.contents(models.load(root, version))
    except CorruptState:
        print(version, "refused")
forbidden = ("pickle.find_class", "marshal.loads", "subprocess.Popen", "socket.connect", "os.system", "os.exec")
planted = ("saved_model.pb", "model.keras", "model.h5")
print([event for event, _ in seen if event in forbidden])
print([given for event, given in seen if event == "open" and any(name in given for name in planted)])
"""


@pytest.mark.faults("B5.3")
def test_planted_keras_h5_and_saved_models_are_never_opened(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", json.dumps({"class_name": "Lambda", "config": {"function": "4wAA"}}))
    for letter, weights in (("a", archive.getvalue()), ("b", b"\x89HDF\r\n\x1a\n" + bytes(1000)), ("c", None)):
        folder = save(tmp_path, f"20260310-{letter * 8}").folder
        for name in ("saved_model.pb", "model.keras", "model.h5", "fingerprint.pb"):
            (folder / name).write_bytes(pickle.dumps(Bomb(str(tmp_path / "marker"))))
        if weights:
            planted(folder, weights)
    done = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["20260310-aaaaaaaa refused", "20260310-bbbbbbbb refused", "[]", "[]"], (
        done.stderr
    )
    assert not (tmp_path / "marker").exists()


@pytest.mark.faults("B3.14")
def test_any_flipped_byte_in_weights_or_ids_is_found(tmp_path: Path) -> None:
    folder = save(tmp_path).folder
    for name in ("weights.npz", "users.parquet", "movies.parquet"):
        good = (folder / name).read_bytes()
        for place in range(0, len(good), 37):
            (folder / name).write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            with pytest.raises(CorruptState, match=name):
                models.contents(models.load(tmp_path, VERSION))
        (folder / name).write_bytes(good)
    assert models.contents(models.load(tmp_path, VERSION))


@pytest.mark.faults("B3.14")
def test_an_edited_digest_does_not_pass(tmp_path: Path) -> None:
    model = save(tmp_path)
    models.amend(tmp_path, VERSION, digest="0" * 64)
    with pytest.raises(CorruptState, match="digest"):
        models.contents(models.load(tmp_path, model.version))


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b"\xff", b'{"files": {}}'])
def test_a_version_with_a_broken_manifest_is_corrupt_and_not_unknown(tmp_path: Path, content: bytes | None) -> None:
    manifest = save(tmp_path).folder / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_bytes(content)
    with pytest.raises(CorruptState, match=r"manifest\.json"):
        models.load(tmp_path, VERSION)
    assert models.versions(tmp_path) == []
    assert models.unreadable(tmp_path) == [manifest.parent]


def test_a_version_that_is_there_is_kept(tmp_path: Path) -> None:
    first = save(tmp_path)
    again = models.save(tmp_path, VERSION, first.manifest, {"other": np.zeros(1)}, IDS)
    assert again.manifest == first.manifest
    assert set(models.contents(again)[0]) == set(WEIGHTS)


def test_equal_contents_have_one_digest_and_a_changed_weight_another(tmp_path: Path) -> None:
    one = save(tmp_path / "one").manifest["digest"]
    assert save(tmp_path / "two", created_at="later").manifest["digest"] == one
    changed = WEIGHTS | {"weight/001": np.array([0.25], np.float32)}
    assert models.digest({"epochs": 3}, changed, IDS) != one
    assert models.digest({"epochs": 4}, WEIGHTS, IDS) != one
    assert models.digest({"epochs": 3}, WEIGHTS, {**IDS, "users": pa.array([2, 1])}) != one


def test_a_save_that_fails_leaves_no_version(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        models.save(tmp_path, VERSION, {"recipe": {}}, {"bad": np.array([object()])}, IDS)
    assert not list(tmp_path.iterdir())


def test_without_a_champion_there_is_none_and_a_broken_note_of_it_is_corrupt(tmp_path: Path) -> None:
    assert models.champion(tmp_path) is None
    assert models.versions(tmp_path / "not there") == []
    with pytest.raises(NotFound):
        models.promote(tmp_path, VERSION)
    for content in ("{", "[]", "{}", '{"version": 7}', '{"version": "../x"}', f'{{"version": "{VERSION}"}}'):
        (tmp_path / "champion.json").write_text(content)
        with pytest.raises(CorruptState, match=r"champion\.json"):
            models.champion(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "", "20260310", "20260310-ABC", "a/b", "20260310-abcdef12\0"])
def test_a_name_that_is_no_version_is_not_found(tmp_path: Path, name: str) -> None:
    save(tmp_path)
    with pytest.raises(NotFound):
        models.load(tmp_path, name)


@pytest.mark.faults("B6.5")
def test_the_champion_survives_pruning(tmp_path: Path) -> None:
    for day in range(10, 15):
        save(tmp_path, f"202603{day}-abcdef12")
    models.promote(tmp_path, VERSION)
    assert models.prune(tmp_path, 2) == ["20260311-abcdef12", "20260312-abcdef12"]
    champion = models.champion(tmp_path)
    assert champion is not None
    assert champion.version == VERSION


def test_a_version_is_found_by_what_it_was_trained_from(tmp_path: Path) -> None:
    save(tmp_path, VERSION)
    found = models.find(tmp_path, VERSION)
    assert found is not None
    assert models.find(tmp_path, "other") is None
    assert models.amend(tmp_path, found.version, status="forced").manifest["status"] == "forced"


def test_checkpoints_are_kept_now_and_then_and_a_damaged_one_means_starting_anew(tmp_path: Path) -> None:
    seldom = models.CheckpointFile(tmp_path, "f" * 64, apart=60)
    seldom.save(WEIGHTS)
    seldom.save({"weight/000": np.zeros(3)})
    first = seldom.load()
    assert first is not None
    assert first["weight/000"].tobytes() == WEIGHTS["weight/000"].tobytes()
    kept = models.CheckpointFile(tmp_path, "f" * 64, apart=0)
    kept.save(WEIGHTS)
    loaded = kept.load()
    assert loaded is not None
    assert loaded["weight/000"].tobytes() == WEIGHTS["weight/000"].tobytes()
    kept.path.write_bytes(kept.path.read_bytes()[:50])
    assert kept.load() is None
    kept.clear()
    assert kept.load() is None
