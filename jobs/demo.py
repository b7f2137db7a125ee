"""The whole path on made-up ratings: nothing to download, nothing to configure, nothing that production does not do."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs import configuration, ingest, init, query
from jobs.nightly import Options, nightly
from jobs.progress import Progress
from storage import synthetic


def demo(folder: Path, progress: Progress) -> dict[str, Any]:
    """Make a catalogue, ingest it, run last night, and look up one user; all of it stays in `folder`."""
    began = time.perf_counter()
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    if not (folder / "recjob.toml").exists():
        init.init(folder)
    settings = configuration.load(folder / "recjob.toml", {})
    catalogue = synthetic.generate(last=yesterday)
    added = ingest.append(settings, "made-up ratings", catalogue, began, progress=progress)
    record = nightly(settings, yesterday, Options(progress=progress))
    user = str(catalogue.ratings["user_id"][0].as_py())
    return {
        "synthetic": True,
        "run": record,
        "ratings": added["offered"],
        "lake": str(settings.lake),
        "database": str(settings.database),
        "config": str(folder / "recjob.toml"),
        "user": query.recommend(settings, user, 10),
        "seconds": round(time.perf_counter() - began, 1),
    }
