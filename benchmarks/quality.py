"""How good stars and lists are on real ratings: recjob's models, its baselines and other libraries on the same splits.

    python benchmarks/quality.py --data ml-100k.zip [--split random ...] [--seeds 5] [--only MODEL ...] [--results FILE]
    python benchmarks/quality.py --data ml-100k.zip --validation --only default --change learning_rate=0.04

On the random split a seed draws the split and seeds the models; on the others, which are fixed, it seeds the models, and
those without chance are run once. `rmse` is over all test ratings, `warm_rmse` over those whose user and movie have training
ratings; `_se` is the standard error over seeds. `ndcg@10`, `recall@50` and `coverage@10` are of lists of all training movies
that the user has not rated, as `recommender/ranking.py` says. On rolling-weeks the errors are over all rows of the eight
windows, the lists' figures are means over all users of all weeks, coverage is the mean over weeks.

To choose by, take `--validation`: what the split would test on is left out, and what is left is split again. `--change`
tries a recipe with other hyper-parameters; its row is called by them, too.

With `--results`, every measurement is a line of that file as soon as it is made, and is not made again: a run that was cut
off goes on, and runs add up. Remove the lines of a model that has changed. The last line printed is JSON:
{"benchmark": "quality", "data": .., "figures": {split: {model: {"rmse": .., "rmse_se": .., "ndcg@10": .., ...}}}}.
"""

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recommender import config, evaluate, ranking
from recommender import split as splits
from recommender.baselines import BASELINES
from recommender.known import Attributes, Features, known
from recommender.ranking import Task
from recommender.vocabulary import Vocabulary
from storage.grouplens import read_zip

SPLITS = ("random", "time-range", "last-10pct", "rolling-weeks")
RMSE, LISTS = ("rmse", "warm_rmse"), ("ndcg@10", "recall@50", "coverage@10")
LENGTH = 50
"""Places of a list."""
WITHOUT_CHANCE = {*BASELINES, "implicit item-kNN (cosine)"}
"""Models that a seed changes through the split only."""
WEEKLY = {"Surprise SVD tuned", "myFM", "implicit ALS", "implicit ALS tuned", "implicit item-kNN (cosine)"}
"""The peers that are run on rolling-weeks; the others are not."""

Found = tuple[np.ndarray | None, Callable[[int], np.ndarray] | None]
"""Stars of the test pairs, and what makes lists of so many places for the task."""


class Arrays(NamedTuple):
    """A case for the peers, users and movies numbered over training and test part."""

    train: Any
    """`peers.Ratings`."""
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]
    """User, movie and second of the test part."""
    users: Vocabulary
    movies: Vocabulary


@dataclass(frozen=True, eq=False)
class Case:
    """A training part and what is asked of a model that has learnt from it."""

    split: str
    seed: int
    ratings: pa.Table
    """All there are."""
    attributes: Attributes
    train: pa.Table
    test: pa.Table

    @cached_property
    def task(self) -> Task:
        """Whom to list movies for."""
        return ranking.task(self.train, self.test, ranking.good(self.ratings))

    @cached_property
    def warm(self) -> np.ndarray:
        """Which test rows have a user and a movie that are in the training part."""
        user, movie = (pc.is_in(self.test[n], value_set=pc.unique(self.train[n])) for n in ("user_id", "movie_id"))
        return pc.and_(user, movie).to_numpy()

    @cached_property
    def arrays(self) -> Arrays:
        """The case in numbers, with side features."""
        import peers

        both = pa.concat_tables([self.train, self.test])
        users, movies = Vocabulary.of(both["user_id"]), Vocabulary.of(both["movie_id"])

        def columns(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            at = table["rated_at"].cast(pa.int64()).to_numpy() // 1_000_000
            numbers = (rows.encode(table[name]) for rows, name in ((users, "user_id"), (movies, "movie_id")))
            user, movie = (number.astype(np.int64) - 1 for number in numbers)
            return user, movie, at

        facts = known(self.train, users, movies, self.attributes)
        user, movie, at = columns(self.train)
        stars = self.train["rating"].to_numpy().astype(np.float64)
        sides = sparse(facts.user_features), sparse(facts.movie_features)
        train = peers.Ratings(user, movie, stars, at, len(users), len(movies), *sides)
        return Arrays(train, columns(self.test), users, movies)


def sparse(features: Features) -> Any:
    """Features of all ids as a matrix, None where there are none."""
    import scipy.sparse as sp

    return sp.csr_matrix(features.dense()[1:]) if features.names else None


def own(case: Case, name: str, changes: dict[str, Any]) -> Found:
    """One of recjob's models. On time-range, those of the article know movies as the article does, by title."""
    from jobs.lists import keys_of
    from recommender import blend
    from recommender import train as training

    recipe = config.recipe(name, seed=case.seed, **changes)
    article = case.split == "time-range" and not recipe.model.by_history
    if article:
        recipe = recipe.changed(movie_key="title")
    if blend.is_open(recipe):
        inner = splits.within(case.train, "random" if case.split == "random" else "newest", case.seed)
        recipe = blend.settled(recipe, inner.train, inner.validation, case.attributes)
    whole = training.vocabularies_of(case.ratings, "title") if article else None
    trained = training.train(case.train, recipe, attributes=case.attributes, vocabularies=whole)
    ready = trained.ready(case.train, case.attributes)
    keys = keys_of(case.task, case.train, recipe.model.movie_key)
    return ready.predict(case.test), partial(ready.lists, case.task, keys, case.train)


def baseline(case: Case, name: str) -> Found:
    """A baseline's lists; the biases predict stars, too."""
    stars = evaluate.biases(case.test, case.train) if name == "biases" else None
    return stars, partial(ranking.lists, case.task, BASELINES[name](case.train, case.task))


def rating_peer(case: Case, fit_predict: Callable[..., np.ndarray]) -> Found:
    """A peer's stars."""
    return fit_predict(case.arrays.train, *case.arrays.pairs, case.seed), None


def ranking_peer(case: Case, fit_scores: Callable[..., np.ndarray], dated: bool) -> Found:
    """A peer's lists; one that is `dated` is told where the test part comes after the training part."""
    newest = {"newest": True} if dated and case.split != "random" else {}
    scores = fit_scores(case.arrays.train, case.seed, **newest)
    columns = case.arrays.movies.encode(case.task.movies) - 1
    rows = case.arrays.users
    return None, partial(ranking.lists, case.task, lambda users: scores[np.ix_(rows.encode(users) - 1, columns)])


def all_models(changes: dict[str, Any]) -> dict[str, Callable[[Case], Found]]:
    """What can be run here, by name: recjob's models, baselines, peers for stars, peers for lists."""
    told = "".join(f" {name}={value}" for name, value in changes.items())
    found: dict[str, Callable[[Case], Found]] = {
        f"{name}{told}": partial(own, name=name, changes=changes) for name in config.RECIPES
    }
    found |= {name: partial(baseline, name=name) for name in BASELINES}
    try:
        import peers
    except ImportError as error:
        print(f"all peers are left out: {error}: pip install -e '.[bench]'", file=sys.stderr)
        return found
    found |= {name: partial(rating_peer, fit_predict=fit) for name, fit in peers.RATING_PEERS.items()}
    for name, fit in peers.RANKING_PEERS.items():
        found[name] = partial(ranking_peer, fit_scores=fit, dated=fit is peers.als_tuned)
    return found


def cases(split: str, seed: int, ratings: pa.Table, attributes: Attributes, validation: bool) -> list[Case]:
    """The one case of a split, or one for each week; for validation, of what the split would train on."""

    def cuts_of(ratings: pa.Table) -> list[splits.Split]:
        if split == "rolling-weeks":
            return list(splits.rolling(ratings, days=7, periods=8))
        return [splits.by_name("last" if split == "last-10pct" else split, ratings, seed)]

    cuts = cuts_of(ratings)
    if validation:
        ratings = cuts[0].train
        cuts = cuts_of(ratings)
    return [Case(split, seed, ratings, attributes, cut.train, cut.test) for cut in cuts]


def measure(model: Callable[[Case], Found], parts: list[Case]) -> dict[str, float]:
    """Fit the model on each part and measure what it has: stars, lists or both."""
    squares, warm, users, weeks = [], [], [], []
    for case in parts:
        stars, listed = model(case)
        if stars is not None:
            squares.append(np.square(stars.astype(np.float64) - case.test["rating"].to_numpy()))
            warm.append(case.warm)
        if listed is not None and len(case.task.users):
            lists = listed(LENGTH)
            at_10, at_50 = (ranking.per_user(case.task, lists, at) for at in (10, LENGTH))
            users.append((at_10["ndcg"], at_50["recall"]))
            weeks.append(ranking.beyond_accuracy(case.task, lists, None, 10)["coverage"])
    found = {}
    if squares:
        square, known_pairs = np.concatenate(squares), np.concatenate(warm)
        found["rmse"] = float(np.sqrt(square.mean()))
        found |= {"warm_rmse": float(np.sqrt(square[known_pairs].mean()))} if known_pairs.any() else {}
    if users:
        ndcg, recall = (float(np.concatenate(values).mean()) for values in zip(*users, strict=True))
        found |= {"ndcg@10": ndcg, "recall@50": recall, "coverage@10": fmean(weeks)}
    return found


class Results:
    """What has been measured of one data set: figures by (split, model, seed), kept in a file if there is one."""

    def __init__(self, path: Path | None, data: str) -> None:
        self.path, self.data = path, data
        self.known: dict[tuple[str, str, int], dict[str, float]] = {}
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        for line in map(json.loads, filter(None, lines)):
            if line["data"] == data:
                self.known[line["split"], line["model"], line["seed"]] = line["figures"]

    def add(self, split: str, model: str, seed: int, figures: dict[str, float], seconds: float) -> None:
        """Remember one measurement."""
        self.known[split, model, seed] = figures
        line = {"data": self.data, "split": split, "model": model, "seed": seed, "figures": figures}
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(line | {"seconds": round(seconds, 2)}) + "\n")

    def summary(self, split: str, model: str, seeds: int) -> dict[str, float]:
        """Means over seeds, their standard errors where there are two or more, and the number of seeds."""
        found = [figures for (s, m, seed), figures in self.known.items() if (s, m) == (split, model) and seed < seeds]
        summary: dict[str, float] = {"seeds": len(found)}
        for name in (*RMSE, *LISTS):
            values = [figures[name] for figures in found if name in figures]
            if values:
                summary[name] = round(fmean(values), 5)
            if len(values) > 1:
                summary[f"{name}_se"] = round(stdev(values) / len(values) ** 0.5, 5)
        return summary


def run(results: Results, chosen: dict[str, Callable[[Case], Found]], given: argparse.Namespace) -> None:
    """Measure what the results lack. A model whose library is missing is named on stderr."""
    found = read_zip(given.data)
    assert found.movies is not None
    at = pc.index_in(found.ratings["movie_id"], value_set=found.movies["movie_id"].combine_chunks())
    ratings = found.ratings.append_column("title", found.movies["title"].combine_chunks().take(at.combine_chunks()))
    missing: set[str] = set()
    for split in given.split:
        for seed in range(given.seeds):
            parts = cases(split, seed, ratings, Attributes(found.users, found.movies), given.validation)
            for name, model in chosen.items():
                if wanted(split, name, seed) and name not in missing and (split, name, seed) not in results.known:
                    began = time.perf_counter()
                    try:
                        figures = measure(model, parts)
                    except ImportError as error:
                        print(f"{name} is left out: {error}", file=sys.stderr)
                        missing.add(name)
                        continue
                    took = time.perf_counter() - began
                    results.add(split, name, seed, figures, took)
                    print(f"{split}, seed {seed}, {name}: {took:.1f} s", file=sys.stderr)


def wanted(split: str, model: str, seed: int) -> bool:
    """Whether a model is run on a split with a seed."""
    if split == "rolling-weeks" and model.split(" ")[0] not in config.RECIPES and model not in {*BASELINES, *WEEKLY}:
        return False
    return split == "random" or seed == 0 or model not in WITHOUT_CHANCE


def table(data: str, split: str, figures: dict[str, dict[str, float]]) -> str:
    """One line for each model: means and standard errors."""
    lines = [f"{data}, {split}", f"{'model':<32}{'seeds':>6}" + "".join(f"{name:>18}" for name in (*RMSE, *LISTS))]
    for model, found in figures.items():
        cells = ""
        for name in (*RMSE, *LISTS):
            error = f" ± {found[f'{name}_se']:.4f}" if f"{name}_se" in found else ""
            cells += f"{f'{found[name]:.4f}{error}' if name in found else '':>18}"
        lines.append(f"{model:<32}{found['seeds']:>6}{cells}")
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for and print the tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a GroupLens zip")
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="these models only")
    parser.add_argument("--validation", action="store_true", help="measure on a part of what would be trained on")
    parser.add_argument("--change", nargs="+", default=[], metavar="NAME=VALUE", help="hyper-parameters, as TOML")
    parser.add_argument("--results", type=Path, help="a file of JSON lines to go on with")
    given = parser.parse_args()
    changes = tomllib.loads("\n".join(given.change))
    models = all_models(changes)
    results = Results(given.results, f"{given.data.name}{' validation' * given.validation}")
    names = [*models, *sorted({model for _, model, _ in results.known} - set(models))]
    if unknown := sorted(set(given.only or []) - {*names, *config.RECIPES}):
        parser.error(f"no model is called {', '.join(unknown)}; there are: {', '.join(names)}")
    asked = given.only or names
    names = [name for name in names if name in asked or name.split(" ")[0] in {*asked} & {*config.RECIPES}]
    run(results, {name: model for name, model in models.items() if name in names}, given)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for split in given.split:
        rows = {name: results.summary(split, name, given.seeds) for name in names}
        figures[split] = {name: row for name, row in rows.items() if row["seeds"]}
        print(table(results.data, split, figures[split]), end="\n\n")
    print(json.dumps({"benchmark": "quality", "data": results.data, "figures": figures}))


if __name__ == "__main__":
    main()
