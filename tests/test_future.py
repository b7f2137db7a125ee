"""Whatever is added at or after the watermark: the model, its verdict, what is popular, who may be listed and the lists are the same."""

import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import LAST, small_world, world_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.nightly import nightly
from storage import models

END = datetime(2026, 3, 11, tzinfo=UTC)
"""The watermark of `LAST`."""
ROWS = st.lists(
    st.tuples(
        st.integers(-3, 60),  # people there are, and others
        st.integers(1, 45),  # movies there are, and others
        st.sampled_from([0.5, 1.0, 5.0, -1e9, float("nan"), None]),
        st.sampled_from([0, 1, 1_000_000, 86_400_000_000, 40 * 365 * 86_400_000_000]),  # microseconds after the end
    ),
    min_size=1,
    max_size=300,
)


def outcome(added: list[tuple[Any, ...]], apart: bool, seed: int) -> dict[str, Any]:
    """Everything that a night in an empty state folder comes to, without what is of the clock."""
    users, movies, stars, after = zip(*added, strict=True) if added else ((), (), (), ())
    instants = pa.array([END + timedelta(microseconds=more) for more in after], pa.timestamp("us", "UTC"))
    columns = [pa.array(users, pa.int64()), pa.array(movies, pa.int64()), pa.array(stars, pa.float32()), instants]
    world, future = small_world(), pa.table(columns, schema=small_world().ratings.schema)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "ratings"
        folder.mkdir()
        mixed = pa.concat_tables([world.ratings] if apart else [future, world.ratings])
        order = pa.array([(row * 7919 + seed) % mixed.num_rows for row in range(mixed.num_rows)])  # each row once
        pq.write_table(mixed.take(order), folder / "b.parquet")
        if apart:
            pq.write_table(future, folder / "a.parquet")
        made = world_in(Path(name) / "state", world, input__ratings=str(folder), input__settle_seconds=0.0)
        record = nightly(made, LAST)
        (model,) = models.versions(made.models)
        with duckdb.connect(str(made.database), read_only=True) as connection:
            tables = {
                table: sorted(map(repr, connection.execute(f"SELECT * EXCLUDE (run_id) FROM {table}").fetchall()))
                for table in ("recommendations", "user_status", "metrics")
            }
            tables["movies"] = connection.execute("SELECT * FROM movies ORDER BY movie_id").fetchall()
        kept = ("input_digest", "output_digest", "model_version", "n_ratings", "n_users", "n_movies")
        manifest = {name: model.manifest[name] for name in ("digest", "history", "metrics", "checks", "status")}
        return {name: record[name] for name in kept} | manifest | {"checks of input": record["checks"]} | tables


@cache
def undisturbed() -> dict[str, Any]:
    """The outcome where nothing is added."""
    return outcome([], apart=False, seed=0)


@pytest.mark.slow
@given(ROWS, st.booleans(), st.integers(0, 1000))
@settings(max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@pytest.mark.faults("B2.6")
def test_no_row_from_the_watermark_on_changes_anything_that_a_night_makes(
    added: list[tuple[Any, ...]], apart: bool, seed: int
) -> None:
    found = outcome(added, apart, seed)
    for name, expected in undisturbed().items():
        assert repr(found[name]) == repr(expected), name


@pytest.mark.slow
@pytest.mark.faults("B2.6")
def test_a_row_of_the_last_microsecond_before_the_watermark_does_change_it() -> None:
    found = outcome([(1, 3, 5.0, -1)], apart=False, seed=0)
    changed = {name for name, expected in undisturbed().items() if repr(found[name]) != repr(expected)}
    assert {"input_digest", "output_digest", "digest", "history", "movies", "user_status", "recommendations"} <= changed
