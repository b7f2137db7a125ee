"""The pictures of a report, as SVG elements that take their ink from the page: light or dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

_INK = "#0b0c0d"
"""Stands for the color of the text around a picture."""
_BLUE, _ORANGE, _GREY, _GREEN = "#3b82c4", "#e0823d", "#8a9199", "#3f9c6b"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recjob",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.axisbelow": True,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.color": _GREY,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
_WIDE, _SMALL = (5.4, 2.9), (3.5, 1.75)
"""Inches, at 72 points each; a page scales them."""
NIGHTLY = {
    "ndcg": ("NDCG@10 of the lists", (("ndcg@10", "model", _BLUE), ("popularity_ndcg@10", "popularity", _GREY))),
    "rmse": (
        "RMSE of the stars",
        (("rmse", "model", _BLUE), ("biases_rmse", "biases", _GREEN), ("mean_rmse", "mean rating", _GREY)),
    ),
    "coverage": ("Candidates that are in some list", (("coverage", "", _BLUE),)),
    "churn": ("List churn: movies that left their list", (("churn", "", _BLUE),)),
    "users": ("Users", (("n_users", "", _BLUE),)),
    "minutes": ("Minutes; orange: not published", (("minutes", "", _BLUE),)),
}
"""What is drawn night by night: a title, and the figures with their labels."""
_SHARES = ("coverage", "churn")


def pictures(document: Mapping[str, Any]) -> dict[str, str]:
    """By name; those that there is nothing to draw for are left out. `document` is that of `report.gather`."""
    published, model = document["published"], document["model"]
    found = {}
    with matplotlib.rc_context(_STYLE):
        if len(document["history"]) > 1:
            found["history"] = _history(document["history"])
        if model and model["metrics"]:
            found["quality"] = _quality(model["metrics"])
        if len(document["nights"]) > 1:
            found |= _nights(document["nights"])
        if published:
            found |= _lists(published)
    return found


def _lists(published: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    listed, spread = published["listed_stars"], published["spread"]
    if listed:
        found["stars"] = _stars(listed["stars"], published["given"])
        found["score"] = _score(listed["score"])
    if len(spread) > 1:
        found["spread"] = _spread(spread)
    if any(day["ratings"] for day in published["by_day"]):
        found["by_day"] = _by_day(published["by_day"], published["scale"])
    if published["lorenz"]["these lists"]:
        found["exposure"] = _exposure(published["lorenz"])
    return found


def _svg(figure: Figure, what: str) -> str:
    screen = io.StringIO()
    figure.savefig(screen, format="svg", transparent=True, metadata={"Date": None})
    text = screen.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same in each picture, and an id stands once in a page
    size = re.search(r'viewBox="[^"]*"', text)
    text = re.sub(r"^<svg [^>]*>", f'<svg role="img" aria-label="{what}" {size[0] if size else ""}>', text)
    return text.replace(_INK, "currentColor")


def _axes(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def _percent(axis: Any) -> None:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _history(epochs: Sequence[Mapping[str, Any]]) -> str:
    figure, axes = _axes(_WIDE)
    numbers = [epoch["number"] for epoch in epochs]
    for key, label, color in (("train_rmse", "training", _GREY), ("holdout_rmse", "held out", _BLUE)):
        values = [epoch[key] for epoch in epochs]
        if None not in values:
            axes.plot(numbers, values, color=color, label=label, marker="o", markersize=3)
    axes.set(xlabel="epoch", ylabel="RMSE, stars")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return _svg(figure, "RMSE by epoch")


def _quality(metrics: Sequence[Mapping[str, Any]]) -> str:
    """The model beside the baselines: lists on the left, stars on the right, with 95 % intervals."""
    figure = Figure(figsize=_WIDE, layout="constrained")
    for axes, name, title in zip(
        figure.subplots(1, 2), ("ndcg@10", "rmse"), ("NDCG@10, more is better", "RMSE, less is better"), strict=True
    ):
        rows = [row for row in metrics if row["metric"] == name and row["segment"] == "all"][::-1]
        for place, row in enumerate(rows):
            ends = (
                [[0], [0]]
                if row["ci_low"] is None
                else [[row["value"] - row["ci_low"]], [row["ci_high"] - row["value"]]]
            )
            color = _BLUE if row["of"] == "model" else _GREY
            axes.errorbar(row["value"], place, xerr=np.maximum(ends, 0), fmt="o", color=color, capsize=3)
        axes.set_yticks(range(len(rows)), [str(row["of"]).replace(" ", "\n").replace("_", "\n") for row in rows])
        axes.set_title(title, fontsize=10)
        axes.margins(y=0.2)
    return _svg(figure, "The model beside baselines on the ratings held out")


def _nights(nights: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A small picture for each figure that was found on two nights or more, all with the same nights below."""
    found = {}
    for name, (title, series) in NIGHTLY.items():
        figure, axes = _axes(_SMALL)
        drawn = 0
        for key, label, color in series:
            values = [np.nan if night[key] is None else night[key] for night in nights]
            if np.isfinite(values).sum() < 2:
                continue
            drawn += 1
            if key == "minutes":
                fine = [night["status"] in ("published", "staged", "trained") for night in nights]
                axes.bar(range(len(nights)), values, color=[_BLUE if one else _ORANGE for one in fine], width=0.7)
            else:
                axes.plot(values, color=color, marker="o", markersize=2.5, linewidth=1.4, label=label)
        if not drawn:
            continue
        if name in _SHARES:
            _percent(axes.yaxis)
        if name == "users":
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        if name not in ("rmse", "users"):
            axes.set_ylim(0, 1.1 * axes.dataLim.y1 or 1)
        if drawn > 1:
            axes.legend(loc="best", fontsize=8)
        _dates(axes, [night["as_of_date"] for night in nights], 3)
        found[f"night_{name}"] = _svg(figure, f"{title}, night by night")
    return found


def _dates(axes: Axes, days: Sequence[str], most: int) -> None:
    """Dates below a picture whose places are nights, at most so many of them."""
    ticks = np.unique(np.linspace(0, len(days) - 1, min(most, len(days))).round().astype(int))
    axes.set_xticks(ticks, [days[tick][5:] for tick in ticks])
    axes.set_xlim(-0.6, len(days) - 0.4)


def _stars(listed: Mapping[str, Any], given: Mapping[str, Any] | None) -> str:
    """Stars that were given, and stars predicted for what is listed."""
    figure, axes = _axes(_WIDE)
    _steps(axes, listed, "predicted")
    for name, label, style in (("all", "given, all", "-"), ("recent", "given, newest 30 days", ":")):
        if given is not None:
            shares = given["shares"][name]
            axes.stairs(
                shares,
                _edges(listed["bounds"], len(shares)),
                color=_ORANGE,
                linestyle=style,
                linewidth=1.6,
                label=label,
            )
    axes.set(xlabel="stars")
    axes.legend()
    return _svg(figure, "Distribution of given and predicted stars")


def _score(listed: Mapping[str, Any]) -> str:
    figure, axes = _axes(_WIDE)
    _steps(axes, listed, "score")
    axes.set(xlabel="score of what is listed")
    axes.legend()
    return _svg(figure, "Distribution of scores")


def _steps(axes: Axes, listed: Mapping[str, Any], what: str) -> None:
    """The distributions on the newest date (filled) and the date before."""
    for place, (day, shares) in enumerate(listed["days"].items()):
        edges = _edges(listed["bounds"], len(shares))
        label = f"{what}, {day}"
        axes.stairs(shares, edges, color=_BLUE, linestyle="-:"[place], linewidth=1.6, label=label)
        if not place:
            axes.stairs(shares, edges, fill=True, color=_BLUE, alpha=0.18)
    _percent(axes.yaxis)


def _edges(bounds: Sequence[float], classes: int) -> NDArray[np.float64]:
    return np.linspace(bounds[0], max(bounds[1], bounds[0] + 1e-6), classes + 1)  # all scores may be equal


def _spread(nights: Sequence[Mapping[str, Any]]) -> str:
    """Medians with the middle half and the middle nine tenths, night by night: stars on the left, scores on the right."""
    figure = Figure(figsize=_WIDE, layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("stars", "score"), strict=True):
        low, lower, middle, upper, high = np.array([night[name] for night in nights], float).T
        places = range(len(nights))
        axes.fill_between(places, low, high, color=_BLUE, alpha=0.15, linewidth=0)
        axes.fill_between(places, lower, upper, color=_BLUE, alpha=0.3, linewidth=0)
        axes.plot(places, middle, color=_BLUE, marker="o", markersize=2.5)
        axes.set_title(f"{'predicted stars' if name == 'stars' else name}", fontsize=10)
        _dates(axes, [str(night["as_of_date"]) for night in nights], 3)
    return _svg(figure, "Predicted stars and scores, night by night")


def _by_day(days: Sequence[Mapping[str, Any]], scale: Sequence[float]) -> str:
    figure = Figure(figsize=_WIDE, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
    above.plot(
        [np.nan if day["mean"] is None else day["mean"] for day in days], color=_ORANGE, marker="o", markersize=2.5
    )
    above.set(ylabel="mean stars", ylim=scale)
    below.bar(range(len(days)), [day["ratings"] for day in days], color=_ORANGE, width=0.7)
    below.set(ylabel="ratings")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    _dates(below, [day["day"] for day in days], 5)
    return _svg(figure, "Ratings given on each of the newest days, and their mean")


def _exposure(curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    figure, axes = _axes(_WIDE)
    styles = {"these lists": (_BLUE, "-"), "the date before": (_BLUE, ":"), "ratings": (_ORANGE, "-")}
    for name, points in curves.items():
        if points:
            color, style = styles[name]
            axes.plot(*zip(*points, strict=True), color=color, linestyle=style, label=name)
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="all movies alike")
    axes.set(xlabel="share of the movies, least listed first", ylabel="share of the places")
    _percent(axes.xaxis)
    _percent(axes.yaxis)
    axes.legend()
    return _svg(figure, "How places in lists are shared among movies")
