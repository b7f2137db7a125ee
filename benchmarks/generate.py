"""Made-up ratings of the shape of MovieLens-25M, or several times that: long tails of users and movies, and tastes to learn.

    python benchmarks/generate.py --out big [--scale 4] [--users 162541] [--movies 59047] [--ratings 25000095] [--seed 1]

--scale multiplies users and ratings: a larger service has more people, and hardly more movies. 16 bytes a rating are held, and
as many while they are put in order of time.

Writes big/ratings/part-NN.parquet, ordered by time, big/movies.parquet, and big/recjob.toml which points at them. Users come
for a while and rate at least twenty movies that are out by then, the popular and those that they like rather. A rating is
the mean, the movie's quality, the user's mildness, what they have in common in a few hidden dimensions, and noise. The same
arguments give the same ratings. For figures of speed and memory: nothing made up tells how good a model is.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST, SECONDS = 946_684_800, 20 * 365 * 86_400
"""From 2000-01-01, in seconds since 1970, for twenty years."""
LEAST, MOST_SHARE, BLOCK, FILES = 20, 0.2, 4096, 16
"""Fewest ratings of a user; most, as a share of the movies; users made up at a time; files of ratings."""
GENRES = ("Action", "Comedy", "Documentary", "Drama", "Romance", "Sci-Fi", "Thriller", "Western")
CONFIG = """\
[input]
ratings = "{folder}/ratings/*.parquet"
movies = "{folder}/movies.parquet"

[candidates]
min_ratings = 1
"""


@dataclass(frozen=True)
class Shape:
    """How much there is of what; by default as in MovieLens-25M."""

    users: int = 162_541
    movies: int = 59_047
    ratings: int = 25_000_095

    def of(self, ratings: int) -> "Shape":
        """The same proportions: users grow as ratings do, movies as their square root."""
        share = ratings / self.ratings
        return Shape(round(self.users * share), round(self.movies * share**0.5), ratings)

    def times(self, factor: int, *names: str) -> "Shape":
        """More of some, and the same of the others."""
        return replace(self, **{name: factor * getattr(self, name) for name in names})


@dataclass(frozen=True)
class World:
    """What is hidden behind the ratings; times are shares of the twenty years."""

    popularity: np.ndarray  # (M,) cumulative, up to 1
    out: np.ndarray  # (M,) when a movie comes out
    quality: np.ndarray  # (M,) stars
    movie_taste: np.ndarray  # (M, d)
    user_taste: np.ndarray  # (U, d)
    mildness: np.ndarray  # (U,) stars
    came: np.ndarray  # (U,)
    stayed: np.ndarray  # (U,)
    counts: np.ndarray  # (U,) ratings to give


def world(random: np.random.Generator, users: int, movies: int, ratings: int) -> World:
    """Make up everything but the ratings."""
    popularity = random.lognormal(0, 2.2, movies)
    came = random.random(users) * 0.98
    return World(
        popularity=np.cumsum(popularity / popularity.sum()),
        out=np.where(random.random(movies) < 0.6, 0, random.random(movies)),
        quality=random.normal(0, 0.4, movies),
        movie_taste=random.normal(0, 0.45, (movies, 8)).astype(np.float32),
        user_taste=random.normal(0, 0.45, (users, 8)).astype(np.float32),
        mildness=random.normal(0, 0.4, users),
        came=came,
        stayed=np.minimum(random.exponential(0.03, users), 1 - came),
        counts=counts(random.lognormal(0, 1.3, users), ratings, int(movies * MOST_SHARE)),
    )


def counts(weight: np.ndarray, total: int, most: int) -> np.ndarray:
    """Whole numbers from LEAST to `most`, in proportion to `weight` in between, that add up to about `total`."""
    low, high = 0.0, float(total)
    for _ in range(100):
        scale = (low + high) / 2
        low, high = (scale, high) if np.clip(scale * weight, LEAST, most).sum() < total else (low, scale)
    return np.clip(high * weight, LEAST, most).round().astype(np.int64)


def rated(
    random: np.random.Generator, made: World, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """User, movie, stars and second of the ratings of a block of users: nobody rates a movie twice."""
    users = np.arange(first, min(first + BLOCK, len(made.counts)))
    movies, wanted = len(made.quality), made.counts[users]
    key, when = np.zeros(0, np.int64), np.zeros(0)
    short = wanted
    for _ in range(20):
        user = np.repeat(users, 3 * short)
        movie = np.minimum(np.searchsorted(made.popularity, random.random(len(user))), movies - 1)
        at = made.came[user] + made.stayed[user] * random.random(len(user))
        liking = np.einsum("nd,nd->n", made.user_taste[user], made.movie_taste[movie])
        kept = (made.out[movie] <= at) & (random.random(len(user)) < 1 / (1 + np.exp(-3 * liking)))
        key, where = np.unique(np.concatenate([key, user[kept] * movies + movie[kept]]), return_index=True)
        when = np.concatenate([when, at[kept]])[where]
        short = np.maximum(wanted - np.bincount(key // movies - first, minlength=len(users)), 0)
        if not short.any():
            break
    order = np.lexsort((random.random(len(key)), key // movies))  # of too many, some by chance
    user, movie = np.divmod(key[order], movies)
    chosen = np.arange(len(user)) - np.searchsorted(user, user) < made.counts[user]
    user, movie, when = user[chosen], movie[chosen], when[order][chosen]
    stars = 3.5 + made.quality[movie] + made.mildness[user] + random.normal(0, 0.7, len(user))
    stars += np.einsum("nd,nd->n", made.user_taste[user], made.movie_taste[movie])
    return (
        user.astype(np.int32),
        movie.astype(np.int32),
        np.clip(np.round(stars * 2) / 2, 0.5, 5).astype(np.float32),
        (when * SECONDS).astype(np.int32),
    )


def columns(random: np.random.Generator, made: World) -> list[np.ndarray]:
    """User, movie, stars and second of the ratings of everybody, ordered by time; ids from 0, seconds since FIRST."""
    blocks = [list(rated(random, made, first)) for first in range(0, len(made.counts), BLOCK)]
    found = [np.concatenate([block.pop(0) for block in blocks]) for _ in range(4)]
    order = np.argsort(found[3], kind="stable")
    for number in range(4):
        found[number] = found[number][order]
    return found


def as_table(user: np.ndarray, movie: np.ndarray, stars: np.ndarray, second: np.ndarray) -> pa.Table:
    """The ratings as recjob has them, with ids from 1."""
    at = pa.array(second + np.int64(FIRST), pa.timestamp("s", tz="UTC")).cast(pa.timestamp("us", tz="UTC"))
    ids = {"user_id": user + np.int64(1), "movie_id": movie + np.int64(1)}
    return pa.table(ids | {"rating": stars, "rated_at": at})


def table(random: np.random.Generator, made: World) -> pa.Table:
    """The ratings of everybody, ordered by time."""
    return as_table(*columns(random, made))


def write(folder: Path, made: World, random: np.random.Generator) -> int:
    """Write the files and return the number of ratings."""
    ratings = columns(random, made)
    (folder / "ratings").mkdir(parents=True, exist_ok=True)
    size = -(-len(ratings[0]) // FILES)
    for number in range(FILES):
        path = folder / "ratings" / f"part-{number:02d}.parquet"
        part = as_table(*(column[number * size : (number + 1) * size] for column in ratings))
        pq.write_table(part, path, compression="zstd")
    movies = {
        "movie_id": np.arange(1, len(made.quality) + 1),
        "title": [f"Movie {number}" for number in range(1, len(made.quality) + 1)],
        "genres": pa.array([[name] for name in np.array(GENRES)[made.movie_taste.argmax(axis=1)].tolist()]),
        "year": (2000 + 20 * made.out).astype(np.int16),
    }
    pq.write_table(pa.table(movies), folder / "movies.parquet")
    (folder / "recjob.toml").write_text(CONFIG.format(folder=folder))
    return len(ratings[0])


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the files")
    parser.add_argument("--users", type=int, default=Shape.users)
    parser.add_argument("--movies", type=int, default=Shape.movies)
    parser.add_argument("--ratings", type=int, default=Shape.ratings, help="about so many")
    parser.add_argument("--scale", type=int, default=1, help="times as many users and ratings")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began, random = time.perf_counter(), np.random.default_rng(given.seed)
    shape = Shape(given.users, given.movies, given.ratings).times(given.scale, "users", "ratings")
    ratings = write(given.out.resolve(), world(random, shape.users, shape.movies, shape.ratings), random)
    print(
        f"{ratings:,} ratings of {shape.users:,} users and {shape.movies:,} movies: {time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
