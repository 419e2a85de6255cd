"""Three figures of a trained predictor: its training, how far its probabilities hold, and what it takes for what."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nerv_fl.bootstrap.consensus_scores import Answers
from nerv_fl.bootstrap.distill import Heldout
from nerv_fl.bootstrap.figures import COLOURS, INK, new_figure, write_png
from nerv_fl.bootstrap.forecast_measures import reliability
from nerv_fl.quorum import NO_OUTCOME
from nerv_fl.types import BoolArray, FloatArray, IntArray

MIN_GROUP: Final = 20
DARK: Final = 0.5


def plot_predictor(folder: Path, *, curve: Sequence[Heldout], found: Mapping[float, Answers]) -> list[Path]:
    """Write training.png, reliability.png and confusion.png.

    Args:
        folder: Where to.
        curve: Evaluations of the training.
        found: Answers on unseen races, by the part of the votes that were seen; one of them a half.

    Returns:
        The files.

    Raises:
        OSError: If one cannot be written.
    """
    return [
        write_png(folder / "training.png", _training(curve)),
        write_png(folder / "reliability.png", _reliability(found)),
        write_png(folder / "confusion.png", _confusion(found[0.5])),
    ]


def _training(curve: Sequence[Heldout]) -> Figure:
    figure, (left, right) = new_figure(2)
    steps = [point.step for point in curve]
    left.plot(steps, [point.outcome for point in curve], color=COLOURS[0], marker="o", markersize=3)
    left.set(xlabel="step", ylabel="cross-entropy, nats", title="Validation shards: outcome")
    right.plot(steps, [point.valid for point in curve], color=COLOURS[0], marker="o", markersize=3)
    right.set(xlabel="step", ylabel="cross-entropy, nats", title="Validation shards: validity")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
    return figure


def _reliability(found: Mapping[float, Answers]) -> Figure:
    figure, (left, right) = new_figure(2)
    for (cut, part), colour in zip(found.items(), COLOURS, strict=False):
        label = f"{100 * cut:.0f} % of the votes"
        chance = part.chance_BO.ravel()
        came = (part.outcome_B[:, None] == np.arange(NO_OUTCOME + 1)).ravel()
        _line(left, chance, came, label=label, colour=colour)
        _line(right, part.valid_N, part.truth_N, label=label, colour=colour)
    left.set(ylabel="part that came true", title="Each candidate: it is finalised")
    right.set(title="Each candidate: it is valid")
    for axes in (left, right):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", zorder=0)
        axes.set(xlabel="stated probability, mean of each tenth", xlim=(0, 1), ylim=(0, 1))
        axes.legend(frameon=False, loc="upper left")
    return figure


def _line(axes: Axes, chance: FloatArray, came_true: BoolArray, *, label: str, colour: str) -> None:
    """Draw the groups that hold enough to say something."""
    groups = reliability(chance, came_true)
    some = groups.count >= MIN_GROUP
    axes.plot(groups.forecast[some], groups.came_true[some], marker="o", markersize=4, color=colour, label=label)


def _confusion(half: Answers) -> Figure:
    figure, (left, right) = new_figure(2)
    names = [*(f"{c + 1}." for c in range(NO_OUTCOME)), "none"]
    outcomes = _counts(half.outcome_B, half.chance_BO.argmax(axis=1), size=NO_OUTCOME + 1)
    _matrix(left, outcomes, names=names)
    left.set(title="Finalised candidate, half of the votes", xlabel="predicted", ylabel="true")
    valid = (half.valid_N > 0.5).astype(np.int64)  # noqa: PLR2004 (more likely than not)
    _matrix(right, _counts(half.truth_N.astype(np.int64), valid, size=2), names=["invalid", "valid"])
    right.set(title="Validity, half of the votes", xlabel="predicted", ylabel="true")
    return figure


def _counts(truth: IntArray, answer: IntArray, *, size: int) -> IntArray:
    return np.bincount(truth * size + answer, minlength=size * size).reshape(size, size)


def _matrix(axes: Axes, counts: IntArray, *, names: Sequence[str]) -> None:
    """Draw counts, shaded by their part of the row."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.grid(visible=False)
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > DARK else INK
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=9)
