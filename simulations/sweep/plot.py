"""A sweep as a picture: what each setting reached, how much of central training's gain, and utility over epsilon."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from nerv_fl.bootstrap.figures import COLOURS, new_figure, write_png
from simulations.sweep.results import Interval, Outcome, Setting

UTILITY = {
    True: "gap between unigram and per-account unigram closed, %",
    False: "loss on the final pool lower by",
}
"""Utility of an encoder, and of any other task."""


def plot_sweep(path: Path, settings: Sequence[Setting], *, outcomes: Sequence[Outcome], title: str) -> None:
    """Write a PNG: a bar a setting, a dot a run, intervals over seeds; a curve where settings differ in epsilon.

    Args:
        path: File to write.
        settings: Bottom to top in reverse, so that the first is on top.
        outcomes: The runs.
        title: Title of the picture.
    """
    has_central = any(setting.central_share for setting in settings)
    has_curve = len({setting.epsilon for setting in settings}) > 1 and any(item.mechanism for item in settings)
    figure, axes = new_figure(1 + has_central + has_curve)
    figure.suptitle(title, fontsize=10)
    name = UTILITY[all(setting.gap_closed for setting in settings)]
    bars = {setting.label: _utility(setting) for setting in settings}
    _panel(axes[0], bars, runs=[(outcome.label, _run_utility(outcome)) for outcome in outcomes], name=name)
    if has_central:
        shares = {setting.label: _percent(setting.central_share) for setting in settings}
        runs = [(item.label, 100 * item.central_share) for item in outcomes if item.central_share is not None]
        _panel(axes[1], shares, runs=runs, name="of central training's loss reduction, %")
        axes[1].set_yticklabels([])
    if has_curve:
        _curve(axes[-1], settings, name=name)
    write_png(path, figure)


def _utility(setting: Setting) -> Interval:
    """Return the share of the gap that an encoder closed, in percent; of another task, the fall of its loss."""
    if setting.gap_closed is not None:
        return _percent(setting.gap_closed)
    return Interval(mean=-setting.difference.mean, half=setting.difference.half)


def _run_utility(outcome: Outcome) -> float:
    return -outcome.difference if outcome.gap_closed is None else 100 * outcome.gap_closed


def _percent(value: Interval | None) -> Interval:
    if value is None:
        return Interval(mean=0.0, half=None)
    return Interval(mean=100 * value.mean, half=None if value.half is None else 100 * value.half)


def _curve(axes: Axes, settings: Sequence[Setting], *, name: str) -> None:
    """Draw utility over epsilon; a setting without a mechanism has no epsilon, and is a line."""
    points = [(item.epsilon, _utility(item)) for item in settings if item.epsilon is not None]
    points.sort(key=lambda point: point[0])
    axes.errorbar(
        [epsilon for epsilon, _ in points],
        [value.mean for _, value in points],
        yerr=[value.half or 0.0 for _, value in points],
        marker="o",
        color=COLOURS[0],
        capsize=3,
    )
    for setting in settings:
        if setting.epsilon is None:
            axes.axhline(_utility(setting).mean, color=COLOURS[1], linestyle="--", label="no privacy mechanism")
            axes.legend(fontsize=8)
    axes.set_xlabel("epsilon", fontsize=8)
    axes.set_ylabel(name, fontsize=8)


def _panel(axes: Axes, bars: Mapping[str, Interval], *, runs: Sequence[tuple[str, float]], name: str) -> None:
    place: Callable[[str], int] = list(bars).index
    for label, bar in bars.items():
        axes.barh(place(label), bar.mean, color=COLOURS[0], alpha=0.35, height=0.6)
        if bar.half is not None:
            axes.errorbar(bar.mean, place(label), xerr=bar.half, color=COLOURS[0], capsize=3)
    axes.plot([value for _, value in runs], [place(label) for label, _ in runs], "o", color=COLOURS[1], ms=4)
    axes.set_yticks(range(len(bars)), list(bars), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(name, fontsize=8)
    if name.endswith("%"):
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -25), min(high, 125))
