"""What was taken back stays so until somebody says otherwise."""

import logging
import shutil
from datetime import timedelta

import pytest
from conftest import LAST, small_world

from jobs import backfill, ingest, publish, run
from jobs.nightly import Options, nightly, release
from jobs.settings import Settings
from recommender.errors import GateRefused, RolledBack
from storage import models
from storage.catalogue import Catalogue

EVE, NEXT = LAST - timedelta(days=1), LAST + timedelta(days=1)


@pytest.mark.slow
@pytest.mark.faults("B1.15")
def test_a_date_that_was_rolled_back_is_made_again_with_a_reason_only(settings: Settings) -> None:
    nightly(settings, EVE)
    bad = nightly(settings, LAST)
    publish.rollback(settings)
    shown = publish.visible(settings)
    assert set(shown) == {str(EVE)}
    assert nightly(settings, LAST, Options(dry_run=True))["would"] == "nothing"
    for again in (Options(), Options(model="champion"), Options(model=bad["model_version"]), Options(until="stage")):
        with pytest.raises(RolledBack, match=f"the lists of {LAST} were rolled back"):
            nightly(settings, LAST, again)
    other = small_world(seed=2)
    ingest.append(settings, "late", Catalogue(other.ratings.slice(0, 5), other.movies), 0.0)
    with pytest.raises(RolledBack):
        nightly(settings, LAST)
    assert publish.visible(settings) == shown
    newest = run.records(settings.journal, settings.lock)[-1]
    assert (newest["status"], newest["error_kind"], newest["exit_code"]) == ("refused", "E_ROLLED_BACK", 4)
    assert backfill.wanted(settings, EVE, NEXT, "missing") == [NEXT]
    assert backfill.wanted(settings, EVE, NEXT, "failed") == []
    made = nightly(settings, LAST, Options(force="the cause is mended"))
    assert publish.visible(settings)[str(LAST)]["run_id"] == made["run_id"]
    assert nightly(settings, LAST)["status"] == "unchanged"
    shutil.rmtree(settings.runs / f"as_of={LAST}")  # what came after what was taken back is lost, and no less published
    assert publish.days_taken_back(settings) == set()


def test_an_earlier_run_of_a_date_that_is_shown_again_stays_and_so_does_one_that_was_chosen(settings: Settings) -> None:
    first = nightly(settings, LAST)
    second = nightly(settings, LAST, Options(force="other lists"))
    publish.rollback(settings)
    assert nightly(settings, LAST)["status"] == "unchanged"
    with pytest.raises(RolledBack):
        nightly(settings, LAST, Options(model="champion"))
    assert publish.visible(settings)[str(LAST)]["run_id"] == first["run_id"]
    release(settings, second["run_id"])
    assert nightly(settings, LAST, Options(model="champion"))["status"] == "published"


@pytest.mark.slow
@pytest.mark.faults("B1.15")
def test_a_model_whose_lists_were_rolled_back_is_used_where_it_is_named_or_forced(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = (nightly(settings, day)["model_version"] for day in (EVE, LAST))
    assert good != bad
    publish.rollback(settings)
    assert nightly(settings, NEXT, Options(until="train"))["model_version"] == bad  # no rating has come: the same model
    assert models.champion(settings.models).version == good  # type: ignore[union-attr]
    with pytest.raises(GateRefused, match=f"the lists of {bad} were rolled back"):
        nightly(settings, NEXT, Options(strict=True))
    caplog.set_level(logging.WARNING)
    night = nightly(settings, NEXT)
    assert (night["status"], night["model_version"]) == ("published", good)
    assert "model.taken_back" in caplog.messages
    assert nightly(settings, NEXT, Options(model=bad))["model_version"] == bad
    assert nightly(settings, NEXT)["model_version"] == bad  # its lists were published by hand since
