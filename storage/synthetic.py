"""A made-up catalogue with something to learn in it: for the demo, for tests, for benchmarks. Never for quality figures.

Every title, user and rating is invented. A rating is the mean, the movie's quality, the user's mildness, the user's taste
for the movie's genres, a hidden taste of a few dimensions, and noise.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from storage.catalogue import Catalogue
from storage.errors import InvalidInput
from storage.grouplens import OCCUPATIONS, UTC_TIME, with_joined_at

GENRES = ("Action", "Comedy", "Documentary", "Drama", "Romance", "Sci-Fi", "Thriller", "Western")
_OPENINGS = ("The", "Return to the", "Beyond the", "Letters from the")
_MANNERS = (
    *("Silent", "Crooked", "Golden", "Forgotten", "Burning", "Distant", "Paper", "Hollow", "Borrowed", "Restless"),
    *("Velvet", "Broken", "Patient", "Northern", "Secret", "Wandering", "Amber", "Frozen", "Gentle", "Midnight"),
)
_PLACES = (
    *("Harbour", "Orchard", "Lighthouse", "Station", "Bridge", "Garden", "Valley", "Carnival", "Library", "River"),
    *("Archive", "Meadow", "Tower", "Ferry", "Quarry", "Island", "Kitchen", "Observatory", "Market", "Staircase"),
)
_MEAN = 3.4
_QUALITY, _MILDNESS, _GENRE_TASTE, _HIDDEN_TASTE, _NOISE = 0.50, 0.42, 0.42, 0.42, 0.55
"""Standard deviations, in stars, of what makes up a rating."""
_DIMENSIONS = 3  # of the hidden taste
_LIKING = 0.5  # how much likelier, in log odds per star, a user is to watch what they will like
_POPULARITY, _ACTIVITY = 1.2, 0.9  # sigma of log-normal tails
_NEWCOMERS = 0.4  # share of users who join after the first night
_CELLS = 1 << 21  # pairs of user and movie held in memory at a time
_DAY = 86_400  # seconds


@dataclass(frozen=True)
class _World:
    """What is hidden behind the ratings."""

    genres: np.ndarray  # (M, G) bool
    quality: np.ndarray  # (M,) stars
    popularity: np.ndarray  # (M,) a weight
    movie_taste: np.ndarray  # (M, d) the genres, then the hidden dimensions
    user_taste: np.ndarray  # (U, d)
    mildness: np.ndarray  # (U,) stars
    joined: np.ndarray  # (U,) 0..1 of the whole time
    activity: np.ndarray  # (U,) a weight


def generate(
    *, last: date, users: int = 600, movies: int = 400, ratings: int = 60_000, nights: int = 60, seed: int = 7
) -> Catalogue:
    """Make up exactly `ratings` ratings, 1 to 5 stars in halves, on the `nights` days (UTC) that end with `last`.

    Ids are 1..users and 1..movies, and no user rates a movie twice. Every day, and every user, has a rating as long as
    there are enough. The same arguments give the same catalogue; ratings are ordered by time, user and movie.
    Raises `InvalidInput` when a number is below 1, or for more ratings than pairs of user and movie.
    """
    if min(users, movies, ratings, nights) < 1:
        raise InvalidInput("users, movies, ratings and nights must each be at least 1")
    if ratings > users * movies:
        raise InvalidInput(f"{users:,} users cannot rate {movies:,} movies {ratings:,} times, each movie once")
    random = np.random.default_rng(seed)
    world = _world(random, users, movies)
    user, movie, stars = _rate(random, world, _counts(world.activity, ratings, movies))
    first = last - timedelta(days=nights - 1)
    seconds = _seconds(random, world.joined[user], nights) + (first - date(1970, 1, 1)).days * _DAY
    order = np.lexsort((movie, user, seconds))
    at = pa.array(seconds[order]).cast(pa.timestamp("s", tz="UTC"))
    columns = {"user_id": user[order] + 1, "movie_id": movie[order] + 1, "rating": stars[order]}
    rated = pa.table(columns).append_column("rated_at", at.cast(UTC_TIME))
    return Catalogue(rated, _movies(random, world.genres, first), with_joined_at(_users(random, users), rated))


def _world(random: np.random.Generator, users: int, movies: int) -> _World:
    wanted = random.choice([1, 2, 3], movies, p=[0.4, 0.4, 0.2])
    place = random.random((movies, len(GENRES))).argsort(axis=1).argsort(axis=1)  # (M, G) a random order in each row
    genres = place < wanted[:, None]
    hidden = random.normal(0, _HIDDEN_TASTE / np.sqrt(_DIMENSIONS), (movies, _DIMENSIONS))
    joined = np.where(random.random(users) < _NEWCOMERS, random.random(users), 0.0)
    return _World(
        genres=genres,
        quality=random.normal(0, _QUALITY, movies),
        popularity=random.lognormal(0, _POPULARITY, movies),
        movie_taste=np.hstack([_GENRE_TASTE * genres / np.sqrt(wanted)[:, None], hidden]),
        user_taste=random.normal(0, 1, (users, len(GENRES) + _DIMENSIONS)),
        mildness=random.normal(0, _MILDNESS, users),
        joined=joined,
        activity=random.lognormal(0, _ACTIVITY, users) * (1.1 - joined),
    )


def _counts(activity: np.ndarray, ratings: int, movies: int) -> np.ndarray:
    """How many movies each user rates, (U,): in proportion to activity, within bounds, and `ratings` in all."""
    least = 1 if ratings >= len(activity) else 0
    low, high = 0.0, movies / activity.min()
    for _ in range(100):  # halve to the scale at which the bounded shares add up
        scale = (low + high) / 2
        low, high = (scale, high) if np.clip(scale * activity, least, movies).sum() < ratings else (low, scale)
    shares = np.clip(high * activity, least, movies)
    counts: np.ndarray = np.floor(shares).astype(np.int64)
    counts[np.argsort(counts - shares, kind="stable")[: ratings - counts.sum()]] += 1
    return counts


def _rate(random: np.random.Generator, world: _World, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, movies (from 0) and stars of all ratings: each user rates `counts` movies, liked and popular ones rather."""
    parts = []
    step = max(1, _CELLS // len(world.quality))
    for start in range(0, len(counts), step):
        block = slice(start, start + step)
        stars = world.user_taste[block] @ world.movie_taste.T  # (B, M)
        stars += _MEAN + world.mildness[block, None] + world.quality
        # The smallest of exponential variables divided by weights are a weighted sample without replacement.
        race = random.standard_exponential(stars.shape) / (world.popularity * np.exp(_LIKING * (stars - _MEAN)))
        chosen = np.arange(stars.shape[1]) < counts[block, None]
        movie = race.argsort(axis=1)[chosen]
        user = np.nonzero(chosen)[0]
        felt = stars[user, movie] + random.normal(0, _NOISE, len(user))
        parts.append((user + start, movie, np.clip(np.round(felt * 2) / 2, 1, 5).astype(np.float32)))
    user, movie, stars = (np.concatenate(part) for part in zip(*parts, strict=True))
    return user, movie, stars


def _seconds(random: np.random.Generator, joined: np.ndarray, nights: int) -> np.ndarray:
    """When each rating was given, in seconds since the first night began; no night stays empty if that is possible."""
    seconds = ((joined + (1 - joined) * random.random(len(joined))) * nights * _DAY).astype(np.int64)
    day = seconds // _DAY
    empty = np.setdiff1d(np.arange(nights), day)
    spare = np.ones(len(day), dtype=bool)
    spare[np.unique(day, return_index=True)[1]] = False  # one rating stays on each day
    moved = np.nonzero(spare)[0][: len(empty)]
    seconds[moved] += (empty[: len(moved)] - day[moved]) * _DAY
    return seconds


def _movies(random: np.random.Generator, genres: np.ndarray, first: date) -> pa.Table:
    """Movies that came out in the years before `first`; of one in ten the day is unknown."""
    movies = len(genres)
    year = np.maximum(first.year - 1 - random.exponential(14, movies).astype(np.int64), 1925)
    out = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]") + random.integers(0, 365, movies)
    offsets = np.concatenate([[0], np.cumsum(genres.sum(axis=1))]).astype(np.int32)
    names = pa.array(GENRES).take(pa.array(np.nonzero(genres)[1]))
    columns = {
        "movie_id": np.arange(1, movies + 1),
        "title": _titles(random, year),
        "genres": pa.ListArray.from_arrays(offsets, names),
        "year": year.astype(np.int16),
        "release_date": pa.array(out, pa.date32(), mask=random.random(movies) < 0.1),
    }
    return pa.table(columns)


def _titles(random: np.random.Generator, year: np.ndarray) -> list[str]:
    """Different titles; where the words run out, "The Silent Harbour 2" follows."""
    names = [f"{opening} {manner} {place}" for opening in _OPENINGS for manner in _MANNERS for place in _PLACES]
    random.shuffle(names)
    part, name = np.divmod(np.arange(len(year)), len(names))
    ends = ["", *(f" {number}" for number in range(2, part.max() + 2))]
    return [f"{names[n]}{ends[p]} ({y})" for n, p, y in zip(name.tolist(), part.tolist(), year.tolist(), strict=True)]


def _users(random: np.random.Generator, users: int) -> pa.Table:
    columns = {
        "user_id": np.arange(1, users + 1),
        "gender": pa.array(["F", "M"]).take(pa.array(random.integers(0, 2, users))),
        "age": np.clip(random.normal(34, 12, users), 14, 85).astype(np.int16),
        "occupation": pa.array(OCCUPATIONS).take(pa.array(random.integers(0, len(OCCUPATIONS), users))),
    }
    return pa.table(columns)
