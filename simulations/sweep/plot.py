"""A sweep as a picture: how much of the gap each setting closed, and of what central training reaches."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from nerv_fl.bootstrap.figures import COLOURS, new_figure, write_png
from simulations.sweep.results import Interval, Outcome, Setting


def plot_sweep(path: Path, settings: Sequence[Setting], *, outcomes: Sequence[Outcome], title: str) -> None:
    """Write a PNG: a bar a setting, a dot a run, intervals over seeds.

    Args:
        path: File to write.
        settings: Bottom to top in reverse, so that the first is on top.
        outcomes: The runs.
        title: Title of the picture.
    """
    has_central = any(setting.central_share for setting in settings)
    figure, axes = new_figure(2 if has_central else 1)
    figure.suptitle(title, fontsize=10)
    _panel(
        axes[0],
        [(setting.label, setting.gap_closed) for setting in settings],
        runs=[(outcome.label, outcome.gap_closed) for outcome in outcomes],
        name="gap between unigram and per-account unigram closed, %",
    )
    if has_central:
        _panel(
            axes[1],
            [(setting.label, setting.central_share or Interval(mean=0.0, half=None)) for setting in settings],
            runs=[(outcome.label, outcome.central_share or 0.0) for outcome in outcomes],
            name="of central training's loss reduction, %",
        )
        axes[1].set_yticklabels([])
    write_png(path, figure)


def _panel(axes: Axes, bars: Sequence[tuple[str, Interval]], *, runs: Sequence[tuple[str, float]], name: str) -> None:
    place: Callable[[str], int] = [label for label, _ in bars].index
    for label, bar in bars:
        axes.barh(place(label), 100 * bar.mean, color=COLOURS[0], alpha=0.35, height=0.6)
        if bar.half is not None:
            axes.errorbar(100 * bar.mean, place(label), xerr=100 * bar.half, color=COLOURS[0], capsize=3)
    axes.plot([100 * value for _, value in runs], [place(label) for label, _ in runs], "o", color=COLOURS[1], ms=4)
    axes.set_yticks(range(len(bars)), [label for label, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(name, fontsize=8)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -25), min(high, 125))
