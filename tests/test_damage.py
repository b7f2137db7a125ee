"""A model in the registry that is not what was stored, by command: told with its file and a way on, and never worked around."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import LAST, brought_back, copied, environment, world_in

from jobs import cli, exits
from jobs.nightly import Options, nightly
from jobs.settings import Settings
from storage import digest, models


def cut(folder: Path) -> None:
    weights = folder / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-100])


def flipped(folder: Path) -> None:
    weights = folder / "weights.npz"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(bytes(content))


def without_ids(folder: Path) -> None:
    (folder / "movies.parquet").unlink()


def other_digest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"digest": "0" * 64}))


def other_shape(folder: Path) -> None:
    """Vouched for by the list of files, and no model of its recipe."""
    with np.load(folder / "weights.npz") as stored:
        weights = {name: stored[name] for name in stored.files}
    weights["weight/000"] = weights["weight/000"][:, :-1]
    np.savez(folder / "weights.npz", allow_pickle=False, **weights)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["weights.npz"] = digest.of_file(folder / "weights.npz")
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def two_nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, str, str]:
    """A state in which one date is published and the model of the next is trained; and the two models."""
    settings = world_in(tmp_path_factory.mktemp("two") / "state")
    first = nightly(settings, LAST.replace(day=9))
    return settings, first["model_version"], nightly(settings, LAST, Options(until="train"))["model_version"]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (cut, "weights.npz is missing or was changed"),
        (flipped, "weights.npz is missing or was changed"),
        (without_ids, "movies.parquet is missing or was changed"),
        (other_digest, "the digest of model"),
        (other_shape, "the digest of model"),
    ],
)
@pytest.mark.faults("B3.14")
@brought_back
def test_a_damaged_model_is_told_and_readers_keep_their_lists(
    two_nights: tuple[Settings, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    named: str,
) -> None:
    template, earlier, version = two_nights
    settings = copied(template, tmp_path / "state")
    live = settings.database.resolve()
    damage(settings.models / version)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    for more in ([], ["--model", version], ["--model", "champion"]):
        monkeypatch.setattr(sys, "argv", ["recjob", "nightly", "--date", str(LAST), "--json", *more])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        error = json.loads(capsys.readouterr().out)["error"]
        assert (ended.value.code, error["kind"]) == (exits.INTEGRITY, "E_CORRUPT")
        assert named in error["message"]
        assert version in error["message"]
        assert "--model VERSION" in error["hint"]
        assert settings.database.resolve() == live
    record = nightly(settings, LAST, Options(model=earlier))  # the one way on
    assert (record["status"], record["model_version"]) == ("published", earlier)
    again = nightly(settings, LAST, Options(force="the model is damaged"))  # and the other
    assert (again["status"], again["model_version"]) == ("published", version)
    assert models.is_intact(settings.models, version)
