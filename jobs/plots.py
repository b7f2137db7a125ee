"""Pictures of numbers, as files. The only importer of matplotlib."""

from collections.abc import Sequence
from pathlib import Path

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
