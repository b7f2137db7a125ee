"""Pictures of numbers, as files. The only importer of matplotlib."""

import math
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any

from recommender.train import Epoch
from storage import atomic


def history(epochs: Sequence[Epoch], title: str, target: Path) -> Path:
    """Draw RMSE by epoch into `target` (.png, .svg or .pdf); returns it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    numbers = [epoch.number for epoch in epochs]
    axes.plot(
        numbers, [epoch.train_rmse for epoch in epochs], marker="o", markersize=3, label="train (mean over the epoch)"
    )
    if epochs[0].holdout_rmse is not None:
        held = [epoch.holdout_rmse for epoch in epochs]
        axes.plot(
            numbers,
            [float("nan") if value is None else value for value in held],
            marker="o",
            markersize=3,
            label="validation",
        )
    axes.set(title=title, xlabel="epoch", ylabel="RMSE, stars")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with atomic.new_file(target) as draft:
        figure.savefig(draft, format=target.suffix.removeprefix(".") or "png", dpi=144)
    return target


def tuning(trials: Sequence[Mapping[str, Any]], scales: Mapping[str, str], title: str, target: Path) -> Path:
    """Draw the error by trial, and against up to three hyper-parameters, into `target`; returns it.

    `scales` says of each hyper-parameter: linear, log or choices. Those with the most values are drawn. The few
    errors far above the others would flatten these; they lie on a line, as do trials that failed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    varied = {name: len({trial["params"][name] for trial in trials}) for name in scales}
    names = sorted((name for name in varied if varied[name] > 1), key=lambda name: -varied[name])[:3]
    figure = Figure(figsize=(6 + 2.6 * len(names), 4), layout="constrained")
    widths = [2.2, *(1.0 for _ in names)]
    first, *others = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    known = sorted(trial["value"] for trial in trials if trial["value"] is not None) or [1.0]
    top = max(1.05 * known[0], known[0] + 1.25 * (known[3 * (len(known) - 1) // 4] - known[0]))
    values = [top if trial["value"] is None else min(trial["value"], top) for trial in trials]
    complete = [
        value if trial["state"] == "complete" else math.inf for trial, value in zip(trials, values, strict=True)
    ]
    numbers = [trial["trial"] for trial in trials]
    first.step(numbers, list(accumulate(complete, min)), where="post", color="0.6", label="best so far")
    _trials(first, trials, numbers, values)
    first.xaxis.set_major_locator(MaxNLocator(integer=True))
    first.set(xlabel="trial", ylabel="validation RMSE, stars")
    for axes, name in zip(others, names, strict=True):
        at = [trial["params"][name] for trial in trials]
        if scales[name] == "log":
            axes.set_xscale("log")
        if scales[name] == "choices":
            found = sorted(set(at))
            axes.set_xticks(range(len(found)), [str(value) for value in found], rotation=45 if len(found) > 3 else 0)
            axes.set_xlim(-0.6, len(found) - 0.4)
            at = [found.index(value) for value in at]
        _trials(axes, trials, at, values)
        axes.set_xlabel(name)
    if max(values) == top:
        for axes in (first, *others):
            axes.axhline(top, color="0.6", linestyle=":", zorder=0, label="this or worse" if axes is first else None)
    figure.legend(loc="outside right upper", frameon=False)
    figure.suptitle(title)
    with atomic.new_file(target) as draft:
        figure.savefig(draft, format=target.suffix.removeprefix(".") or "png", dpi=144)
    return target


def backtest(nights: Sequence[Mapping[str, Any]], title: str, target: Path) -> Path:
    """Draw NDCG@10 by night, a line for each model and baseline, into `target`; returns it.

    A night on which nobody could be measured is a gap.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    days = [date.fromisoformat(night["as_of"]) for night in nights]
    lines = {name: figures for night in nights for name, figures in night["figures"].items()}
    for name, figures in lines.items():
        found = [night["figures"].get(name, {}).get("ndcg@10") for night in nights]
        values = [math.nan if value is None else value for value in found]
        style = "-" if "trained" in figures else "--"
        axes.plot(days, values, style, marker="o", markersize=3, label=name)  # type: ignore[arg-type]
    axes.set(title=title, xlabel="as of", ylabel="NDCG@10 on the days after")
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    with atomic.new_file(target) as draft:
        figure.savefig(draft, format=target.suffix.removeprefix(".") or "png", dpi=144)
    return target


def _trials(axes: Any, trials: Sequence[Mapping[str, Any]], at: Sequence[Any], values: Sequence[float]) -> None:
    """A mark for each trial."""
    axes.grid(alpha=0.3)
    for state, marker, color in (("complete", "o", "C0"), ("pruned", "x", "C1"), ("failed", "v", "C3")):
        rows = [row for row, trial in enumerate(trials) if trial["state"] == state]
        label = state if rows and axes.get_subplotspec().is_first_col() else None
        axes.plot([at[row] for row in rows], [values[row] for row in rows], marker, color=color, alpha=0.8, label=label)
