"""Whether a night will fit on the disk, found out before it trains."""

import pyarrow.compute as pc

from jobs import publish
from jobs.inputs import Night
from jobs.settings import Settings
from storage import atomic, models

_ROW = 16
"""Bytes of a row of a list, in a partition as in the published file: what was measured is 4 to 10."""
_ID = 1024
"""Bytes of a model by user and movie, where none has been stored yet."""
_MARGIN = 16 * 2**20
"""Bytes for the small tables, the journal and what is written meanwhile."""


def needed(settings: Settings, night: Night) -> int:
    """About as many bytes as a night writes before it removes anything: model, lists, published file."""
    users = max(pc.count_distinct(night.ratings["user_id"]).as_py(), night.users.num_rows if night.users else 0)
    rows = users * settings.score.top_n
    movies = pc.count_distinct(night.ratings["movie_id"]).as_py()
    alike = movies * settings.publish.similar_movies
    earlier = publish.staged(settings)[-settings.publish.retention_dates :]
    published = rows + sum(int(partition.record["rows"]["recommendations"]) for partition in earlier)
    published += alike * (1 + len(earlier))
    known = models.versions(settings.models)
    model = atomic.size(known[-1].folder) if known else _ID * (users + movies)
    kept = rows if settings.score.shards > 1 else 0  # the shards, beside the partition that is made of them
    published = 0 if settings.publish.mode == "attach" else published
    # a training that is kept to go on with is two models
    return int(3 * model + _ROW * (rows + kept + alike + published) + _MARGIN)


def check(settings: Settings, night: Night) -> None:
    """Raise `DiskFull` where the state folder has less room than a night needs."""
    wanted = needed(settings, night)
    if wanted > atomic.free(settings.state_dir):
        raise atomic.full(settings.state_dir, "a night is not begun that will not fit", wanted)
