"""Why a movie is in somebody's list, or why not: worked out again by the model and from the ratings the list was made of."""

import logging
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs import inputs, publish, query, rules, train
from jobs import run as journals
from jobs.inputs import Night
from jobs.settings import Settings
from recommender import history, score, similar, spread
from recommender.candidates import Candidates
from recommender.ready import Ready
from recommender.rules import BY_SCORE, SOURCES, Arrangement, Places
from recommender.vocabulary import UNKNOWN
from storage import models, runs
from storage.errors import NotFound, nothing_published
from storage.models import Model

logger = logging.getLogger(__name__)
_PARTS = {"choice": (1.0, 0.0, 0.0), "taste": (0.0, 1.0, 0.0), "stars": (0.0, 0.0, 1.0)}
"""What a score of the default model is the sum of: blends of one part alone."""
_NEAREST = 3
"""Rated movies named as near to a movie."""


def explain(settings: Settings, user: str, movie: str | None = None, limit: int = 10) -> dict[str, Any]:
    """The first `limit` movies that are listed to a user, or one `movie`, each with the reasons; ids as the source has them.

    `why` is listed (with its `source` and `reason`), rank (it is a candidate, but `rank` is too far back), rated, rule (the
    setting `rule` keeps it out) or no_candidate. `parts` say how far each part of the score lies above its mean over all
    candidates; `near` are the rated movies that the model has nearest to it. Where the model cannot score the user, the list is
    by popularity, and there are neither. Raises `NotFound` for somebody who is in neither the ratings nor the users table, and
    for a movie that nobody has rated and that is in no movies table.
    """
    day, record = _newest(settings)
    night = rules.applied(inputs.read(settings, journals.watermark(day, settings.timezone)), settings, day)
    if record.get("n_ratings") not in (None, night.ratings.num_rows):
        why = "ratings have come or gone since the lists were made: ranks and reasons are those of now"
        logger.warning(
            "explain.other_ratings", extra={"then": record["n_ratings"], "now": night.ratings.num_rows, "why": why}
        )
    person = _id(night.ratings["user_id"], user)
    if person is None and night.users is not None:
        person = _id(night.users["user_id"], user)
    if person is None:
        raise NotFound(f"there is no user {user!r} up to {day}", hint=f"{query.NOBODY} are not there")
    wanted = None if movie is None else _id(night.catalogue["movie_id"], movie)
    if movie is not None and wanted is None:
        raise NotFound(f"there is no movie {movie!r} in the input", hint="ids are written as the source writes them")
    version = _model(settings, record)
    case = _Case(night, train.load(version).ready(night.ratings, night.attributes), person, settings)
    places = case.order[:limit] if wanted is None else [case.place(wanted)]
    return {
        "user_id": person.as_py(),
        "as_of_date": str(day),
        "run_id": record["run_id"],
        "model_version": version.version,
        "segment": "cold" if case.cold else "warm",
        "n_ratings": case.theirs.num_rows,
        "movies": [case.told(int(place)) if place >= 0 else case.closed(wanted) for place in places],
    }


def _newest(settings: Settings) -> tuple[date, dict[str, Any]]:
    shown = publish.visible(settings)
    if not shown:
        raise nothing_published()
    day = max(shown)
    return date.fromisoformat(day), runs.find(settings.runs, shown[day]["run_id"]).record


def _model(settings: Settings, record: dict[str, Any]) -> Model:
    """The model that made the lists, which has another name once `recjob forget` has rewritten it; raises `NotFound`."""
    training = record["model"]["lineage"]["run_id"]
    same = [one for one in models.versions(settings.models) if one.manifest["lineage"].get("run_id") == training]
    return same[-1] if same else models.load(settings.models, record["model_version"])


def _id(column: pa.ChunkedArray, text: str) -> pa.Scalar | None:
    """An id as a column has it, if it does."""
    try:
        found = pa.scalar(int(text) if pa.types.is_integer(column.type) else text, column.type)
    except (ValueError, OverflowError, pa.ArrowInvalid):
        found = pa.scalar(None, column.type)
    known = found.is_valid and str(found.as_py()) == text and pc.any(pc.equal(column, found)).as_py()
    return found if known else None


def _ruled(name: str, note: str) -> dict[str, Any]:
    return {"why": "rule", "rule": f"rules.{name}", "note": f"{note}: rules.{name}", "rank": None}


@dataclass
class _Case:
    """One user, all candidates, and a model that knows the night."""

    night: Night
    ready: Ready
    person: pa.Scalar
    settings: Settings

    def __post_init__(self) -> None:
        ruled, include_seen = self.night.rules, self.settings.score.include_seen
        self.theirs = self.night.ratings.filter(pc.equal(self.night.ratings["user_id"], self.person))
        self.allowed: Candidates = rules.candidates_of(self.night, self.settings)
        self.user = pa.array([self.person.as_py()], self.person.type)
        alone = pa.table({"user_id": self.user})
        seen = history.of(self.theirs, alone, self.allowed, include_seen=include_seen, excluded=ruled.excluded)
        row = self.ready.users.encode(self.user)
        self.scored, self.cold = bool(self.ready.scores(row)[0]), bool(self.ready.cold(row)[0])
        self.scores, self.parts = self._scored()
        listable = self.scores.copy()
        listable[self.allowed.own :] = listable[seen.rated.positions] = -np.inf
        order = np.argsort(-listable, kind="stable").astype(np.int32)
        order = order[listable[order] > -np.inf]
        n = min(self.settings.score.top_n, len(self.allowed))
        order = self._spread(order, n)
        arrangement = Arrangement(ruled, self.allowed, seen.users, seen.rated, n)
        self.opted_out = bool(arrangement.opted_out[0])
        self.found = self._arranged(arrangement, self.scores, order)
        self.listed = self.found.at[0][self.found.score[0] > -np.inf]
        self.order = np.concatenate([self.listed, order[~np.isin(order, self.listed)]])
        self.rank = {int(place): rank for rank, place in enumerate(self.order, 1)}

    def _spread(self, order: NDArray[np.int32], n: int) -> NDArray[np.int32]:
        """The order with the first `n` as the model's spread has them; the scores and parts then say so, too."""
        if not self.ready.model.spread:
            return order
        ruled, include_seen = self.night.rules, self.settings.score.include_seen
        everybody = history.of(
            self.night.ratings, self.night.users, self.allowed, include_seen=include_seen, excluded=ruled.excluded
        )
        prices = score.prices(self.ready, self.allowed, everybody, n, ruled)
        worth, first = spread.priced(self.scores[order[None, :n]], order[None, :n], prices)
        self.parts["spread"] = np.zeros_like(self.scores)
        self.parts["spread"][first[0]] = worth[0] - self.scores[first[0]]
        self.scores[first[0]] = worth[0]
        return np.concatenate([first[0], order[n:]])

    def _arranged(self, arrangement: Arrangement, scores: NDArray[np.float32], order: NDArray[np.int32]) -> Places:
        """The list as the rules have it, from the places of the candidates in the order of their scores."""
        highest, at = np.full((1, arrangement.pool), -np.inf, np.float32), np.zeros((1, arrangement.pool), np.int32)
        best = order[: arrangement.pool]
        highest[0, : len(best)], at[0, : len(best)] = scores[best], best
        return arrangement.of(np.zeros(1, np.int64), highest, at)

    def _scored(self) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        """Scores of the candidates, (M,), and what each part adds to them beyond its mean.

        Where the model cannot score the user it is popularity alone, as in `recommender/score.py`.
        """
        if not self.scored:
            return np.log1p(self.allowed.n_ratings).astype(np.float32), {}
        model, user = self.ready.model, self.user
        scorer = self.ready.scorer(self._keys())
        scores, bias = scorer(user)[0], self.night.rules.bias(self.allowed)
        parts = {} if bias is None else {"damping": bias - bias.mean()}
        scores = scores if bias is None else scores + bias
        if not hasattr(model, "blend"):
            return scores, parts
        blend = model.blend
        for (name, alone), weight in zip(_PARTS.items(), blend, strict=True):
            model.blend = alone
            part = weight * scorer(user)[0]
            parts[name] = part - part.mean()
        model.blend = blend
        return scores, parts

    def _keys(self) -> pa.Array:
        titled = self.ready.movie_key != "movie_id" and self.allowed.titles is not None
        return self.allowed.titles if titled else self.allowed.ids

    def place(self, movie: pa.Scalar) -> int:
        """Where a movie stands among the candidates, -1 for nowhere."""
        place = int(pc.index(self.allowed.ids, movie).as_py())
        return place if place < self.allowed.own or place in self.listed else -1

    def told(self, place: int) -> dict[str, Any]:
        """What there is to say of a candidate."""
        movie = self.allowed.ids[place]
        mine = self.theirs.filter(pc.equal(self.theirs["movie_id"], movie))
        score = self.scores[place] if np.isfinite(self.scores[place]) else self.allowed.mean_rating[place]
        return {
            **self._named(movie),
            **self._why(place, movie, mine.num_rows > 0),
            "of": len(self.order),
            "score": float(score),
            "parts": {name: float(part[place]) for name, part in self.parts.items()},
            "predicted_rating": self._stars(place),
            "rating": mine["rating"][0].as_py() if mine.num_rows else None,
            "near": self._near(place) if self.scored else [],
        }

    def _stars(self, place: int) -> float:
        """Predicted stars of a candidate: its mean where the model does not know the user, or the movie."""
        key = self._keys()[place : place + 1]
        if self.scored and self.ready.movies.encode(key)[0] != UNKNOWN:
            return float(self.ready.predict(pa.table({"user_id": self.user, self.ready.movie_key: key}))[0])
        return float(np.clip(self.allowed.mean_rating[place], *self.ready.rating_scale))

    def _why(self, place: int, movie: pa.Scalar, rated: bool) -> dict[str, Any]:
        """Why a candidate is listed, or not."""
        if self.opted_out:
            return _ruled("opt_out", "the user gets no list")
        if rated and not self.settings.score.include_seen:
            return {"why": "rated", "rank": None}
        if place not in self.rank:
            return _ruled("exclude", "it is kept from this user")
        rank = self.rank[place]
        if rank > len(self.listed):
            return {"why": "rank", "rank": rank}
        by, back = self.found.by[0][rank - 1], self.found.back[0][rank - 1]
        source = "cold_user" if by == BY_SCORE and self.cold else SOURCES[by]
        return {"why": "listed", "rank": rank, "source": source, "reason": "genre_cap" if back else None}

    def closed(self, movie: pa.Scalar) -> dict[str, Any]:
        """What there is to say of a movie that is no candidate."""
        for name, ids in self.night.rules.closed.items():
            if pc.index(ids, movie).as_py() >= 0:
                return {**self._named(movie), **_ruled(name, "it is kept out of all lists")}
        ratings = int(pc.sum(pc.equal(self.night.ratings["movie_id"], movie)).as_py())
        few = ratings < self.settings.candidates.min_ratings
        note = f"it has {ratings} ratings, fewer than candidates.min_ratings" if few else "it is marked unavailable"
        return {**self._named(movie), "why": "no_candidate", "note": note, "rank": None}

    def _named(self, movie: pa.Scalar) -> dict[str, Any]:
        movies, title = self.night.movies, None
        if movies is not None and self.night.has_titles and (at := pc.index(movies["movie_id"], movie).as_py()) >= 0:
            title = movies["title"][at].as_py()
        return {"movie_id": movie.as_py(), "title": title}

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """The model's vectors of the candidates, (M, g): those that similar_movies is made by."""
        return similar.vectors(self.ready, self.allowed.rows(self.ready.movies, self.ready.movie_key))

    def _near(self, place: int) -> list[dict[str, Any]]:
        """The user's rated movies that are nearest to a candidate, by the cosine of the vectors."""
        at = pc.fill_null(pc.index_in(self.theirs["movie_id"], value_set=self.allowed.ids), -1).to_numpy()
        rows = np.flatnonzero((at >= 0) & (at != place))
        cosine = self.vectors[at[rows]] @ self.vectors[place]
        nearest = np.argsort(-cosine, kind="stable")[:_NEAREST]
        return [
            {
                **self._named(self.theirs["movie_id"][row]),
                "rating": self.theirs["rating"][row].as_py(),
                "cosine": float(cosine[place_of]),
            }
            for place_of, row in zip(nearest, rows[nearest].tolist(), strict=True)
        ]
