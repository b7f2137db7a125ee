"""A commented configuration to start from, and the state folder."""

from pathlib import Path
from typing import Any

from jobs.allowed import InvalidSettings
from storage import atomic

TEMPLATE = """\
# recjob.toml: every key is optional; `recjob config show` lists all of them with their values.
# Flags win over RECJOB_* variables (RECJOB_SCORE_TOP_N=20), variables over this file. Paths count from here.

state_dir = "state"            # lake, models, runs and the published recommendations.duckdb
timezone = "UTC"               # the zone in which a date ends

[input]
# ratings = "/data/ratings"    # your own Parquet file, folder, glob or s3:// URL; without it, what `recjob ingest` collected
# movies = "/data/movies.parquet"
# users = "/data/users.parquet"
max_rejected = 0.0             # share of unusable rows that is tolerated
min_share = 0.5                # fewest ratings, as a share of those of the last run
# max_age_days = 3             # refuse a night whose newest rating is older

# [input.columns]              # where your columns have other names
# user_id = "userId"
# movie_id = "movieId"
# rating = "stars"
# rated_at = "timestamp"
# ingested_at = "arrived"      # when a rating reached you, for --known-at

[model]
name = "default"               # default, basic or tuned; any hyper-parameter can follow, e.g. epochs = 10

[candidates]
min_ratings = 5                # fewest ratings a recommended movie must have

[rules]                        # who gets which movies, and what stands where: docs/rules.md
# block = "block.csv"          # movie_id: never listed; there are allow, exclude, opt_out and pinned as well
# candidates_sql = "rules.sql" # one SELECT of movie_id over the table movies
released = false               # true: no movie is listed before its release_date
genre_cap = 0                  # most movies of one genre in the first 10 places; 0: any number

[score]
top_n = 50                     # movies per user

[gate]                         # lists beyond these limits are not published (docs/gate.md): exit 4
max_churn = 0.95               # share of the published lists that may change in a night
max_same_list = 0.5            # share of users who may have one and the same list

[publish]
mode = "copy"                  # attach: views over the staged Parquet in place of a copy of the lists (docs/publishing.md)
retention_dates = 14           # dates kept in the published file
keep_files = 3                 # published files kept to roll back to, the current one included
similar_movies = 20            # movies published as most like each candidate; 0: none

[store]
# url = "s3://bucket/recjob"   # a copy of all that is kept here, from which an empty machine goes on (docs/howto/s3.md)

[schedule]
cron = "30 3 * * *"            # minute hour day month weekday (0 = Sunday)
timezone = "UTC"               # a zone with summer time has nights of 23 and 25 hours
catch_up = "latest"            # missed dates to make up for: latest, all or none

[hooks]                        # programs to tell how a run ended: lists of arguments, no shell, the run in RECJOB_RUN_*
# on_failure = ["/usr/local/bin/alert", "recjob"]
timeout_seconds = 60           # a program is killed after this long
"""


def init(folder: Path) -> dict[str, Any]:
    """Write `recjob.toml` into `folder` and make the state folder beside it; an existing file is left alone."""
    target = folder / "recjob.toml"
    if target.exists():
        raise InvalidSettings(f"{target} exists already", hint="edit it, or choose another folder")
    with atomic.new_file(target) as draft:
        draft.write_text(TEMPLATE, encoding="utf-8")
    atomic.folder(folder / "state")
    return {"config": str(target), "state_dir": str(folder / "state")}
