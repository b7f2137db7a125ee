"""Airflow: a night for each logical date; what is in between and missing is made up for, oldest first.

Put this file into the DAGs folder, and recjob into its own environment: /srv/recjob/.venv.
"""

from datetime import datetime, timedelta

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable

RECJOB = "/srv/recjob/.venv/bin/recjob"
AGAIN = (5, 6)
"""Exit codes that may pass: busy, short of disk or memory. All others need a person."""


@dag(
    schedule=CronDataIntervalTimetable(
        "30 3 * * *", timezone="UTC"
    ),  # the date is that on which the interval begins: yesterday
    start_date=datetime(2026, 1, 1),
    catchup=True,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=15), "execution_timeout": timedelta(hours=12)},
    tags=["recommendations"],
)
def recjob() -> None:
    """Retrain, score every user, publish."""

    @task
    def nightly() -> None:
        import subprocess

        day = get_current_context()["ds"]
        code = subprocess.run([RECJOB, "nightly", "--date", day, "--log-format", "json"], cwd="/srv/recjob").returncode
        if code in AGAIN:
            raise RuntimeError(f"recjob exited {code}: trying again")
        if code:
            raise AirflowFailException(f"recjob exited {code}: recjob --help says what it means")

    nightly()


recjob()
