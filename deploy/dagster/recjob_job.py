"""Dagster: the recommendations as an asset with a partition for each date.

dagster dev -f recjob_job.py; recjob is in its own environment: /srv/recjob/.venv.
"""

import json
import subprocess
from typing import Any

import dagster

RECJOB = "/srv/recjob/.venv/bin/recjob"
AGAIN = (5, 6)
"""Exit codes that may pass: busy, short of disk or memory. All others need a person."""
DAYS = dagster.DailyPartitionsDefinition(start_date="2026-01-01")


@dagster.asset(partitions_def=DAYS, retry_policy=dagster.RetryPolicy(max_retries=2, delay=900))
def recommendations(context: dagster.AssetExecutionContext) -> dagster.MaterializeResult[Any]:
    """Top-N lists of every user, as of the end of the date."""
    done = subprocess.run(
        [RECJOB, "nightly", "--date", context.partition_key, "--json"],
        cwd="/srv/recjob",
        stdout=subprocess.PIPE,
        text=True,
    )
    record = json.loads(done.stdout)
    if done.returncode:
        error = record["error"]
        raise dagster.Failure(f"{error['kind']}: {error['message']}", allow_retries=done.returncode in AGAIN)
    return dagster.MaterializeResult(
        metadata={name: record[name] for name in ("run_id", "status", "n_users", "n_ratings") if name in record}
    )


nightly = dagster.build_schedule_from_partitioned_job(
    dagster.define_asset_job("recjob", selection=[recommendations]), hour_of_day=3, minute_of_hour=30
)
definitions = dagster.Definitions(assets=[recommendations], schedules=[nightly])
