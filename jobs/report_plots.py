"""The pictures of a nightly report, as SVG elements that take their ink from the page: light or dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

_INK = "#0b0c0d"
"""Stands for the color of the text around a picture."""
_BLUE, _ORANGE, _GREY = "#3b82c4", "#e0823d", "#8a9199"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recjob",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.color": _GREY,
    "legend.frameon": False,
}
SIZE = (5.4, 3.0)
"""Inches, at 72 points each; a page scales them."""


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
            found["nights"] = _nights(document["nights"])
        if published:
            found["stars"] = _stars(published)
        if published and published["lorenz"]:
            found["exposure"] = _exposure(published["lorenz"])
    return found


def _svg(figure: Figure, what: str) -> str:
    screen = io.StringIO()
    figure.savefig(screen, format="svg", transparent=True, metadata={"Date": None})
    text = screen.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'^<svg ([^>]*?)width="[^"]*" height="[^"]*"', rf'<svg role="img" aria-label="{what}" \1', text)
    text = re.sub(
        r'^<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', rf'<svg role="img" aria-label="{what}" \1\2', text
    )
    return text.replace(_INK, "currentColor")


def _history(epochs: Sequence[Mapping[str, Any]]) -> str:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
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
    figure = Figure(figsize=SIZE, layout="constrained")
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


def _nights(nights: Sequence[Mapping[str, Any]]) -> str:
    figure = Figure(figsize=SIZE, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    days = np.array([night["as_of_date"] for night in nights], dtype="datetime64[D]")
    for key, label, color in (("ndcg", "model", _BLUE), ("popularity_ndcg", "popularity", _GREY)):
        values = [np.nan if night[key] is None else night[key] for night in nights]
        above.plot(days, values, color=color, marker="o", markersize=3, label=label)
    above.set(ylabel="NDCG@10")
    above.set_ylim(bottom=0)
    above.legend()
    fine = [night["status"] == "published" for night in nights]
    minutes = [(night["seconds"] or 0) / 60 for night in nights]
    below.bar(days, minutes, color=[_BLUE if one else _ORANGE for one in fine], width=0.7)
    below.set(ylabel="minutes")
    ticks = np.unique(np.linspace(0, len(days) - 1, min(5, len(days))).round().astype(int))
    below.set_xticks(days[ticks], [str(day)[5:] for day in days[ticks]])
    return _svg(figure, "Quality of the lists and minutes of the newest nights; orange: not published")


def _stars(published: Mapping[str, Any]) -> str:
    """Stars that were given, and stars predicted for what is listed."""
    low, high = published["scale"]
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    classes = published["classes"]
    edges = np.linspace(low, high, classes + 1)
    days = list(dict.fromkeys(row["as_of_date"] for row in published["predicted"]))
    for day, color, style in zip(days, (_BLUE, _BLUE), ("-", ":"), strict=False):
        shares = np.zeros(classes)
        for row in published["predicted"]:
            if row["as_of_date"] == day:
                shares[row["class"]] = row["share"]
        axes.stairs(shares, edges, color=color, linestyle=style, linewidth=1.6, label=f"predicted, {day}")
    for name, shares in (published["given"] or {}).items():
        label = "given, all" if name == "all" else "given, newest 30 days"
        axes.stairs(shares, edges, color=_ORANGE, linestyle="-" if name == "all" else ":", linewidth=1.6, label=label)
    axes.set(xlabel="stars")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(fontsize=9)
    return _svg(figure, "Distribution of given and predicted stars")


def _exposure(lorenz: Sequence[Sequence[float]]) -> str:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    x, y = zip(*lorenz, strict=True)
    axes.plot(x, y, color=_BLUE, label="these lists")
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="all movies alike")
    axes.set(xlabel="share of the movies, least listed first", ylabel="share of the places")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend()
    return _svg(figure, "How places in lists are shared among movies")
