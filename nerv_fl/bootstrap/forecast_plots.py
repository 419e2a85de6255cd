"""Three figures of a trained forecaster: its training, recall against false alarms, and reliability."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from nerv_fl.bootstrap.figures import COLOURS, INK, new_figure, write_png
from nerv_fl.bootstrap.forecast_evaluate import CURVE, Measures
from nerv_fl.bootstrap.forecast_fit import Evaluation


def plot_all(
    folder: Path, *, history: Sequence[Evaluation], measures: Mapping[str, Measures], best_step: int
) -> list[Path]:
    """Write training.png, recall.png and reliability.png.

    Args:
        folder: Where to.
        history: Evaluations of the training.
        measures: Of each model, by its name; the first four are drawn.
        best_step: Step whose weights were kept.

    Returns:
        The files.

    Raises:
        OSError: If one cannot be written.
    """
    return [
        write_png(folder / "training.png", _training(history, best_step=best_step)),
        write_png(folder / "recall.png", _recall(measures)),
        write_png(folder / "reliability.png", _reliability(measures)),
    ]


def _training(history: Sequence[Evaluation], *, best_step: int) -> Figure:
    figure, (left, right) = new_figure(2)
    steps = [entry.step for entry in history[1:]]
    left.plot(steps, [entry.overload for entry in history[1:]], color=COLOURS[0])
    left.set(xlabel="step", ylabel="cross-entropy of overload, nats", title="Validation: overload ahead")
    right.plot(steps, [entry.metrics for entry in history[1:]], color=COLOURS[0])
    right.axhline(1.0, color=COLOURS[2], linestyle="--", linewidth=1)
    right.text(steps[-1], 1.0, "no change", ha="right", va="bottom", color=COLOURS[2], fontsize=8)
    right.set(xlabel="step", ylabel="error over that of no change", title="Validation: next metrics, mean of 11")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.axvline(best_step, color=COLOURS[3], linewidth=1)
    return figure


def _recall(measures: Mapping[str, Measures]) -> Figure:
    figure, (axes,) = new_figure(1)
    for (name, each), colour in zip(measures.items(), COLOURS, strict=False):
        dashed = "--" if name == "int8" else "-"
        axes.plot([100 * rate for rate in CURVE], [100 * part for part in each.curve], dashed, color=colour, label=name)
    for rate, target in ((1, 85), (5, 95)):
        axes.plot(rate, target, "_", color=INK, markersize=14)
        axes.text(rate, target - 1, f"target {target} %", ha="center", va="top", fontsize=8, color=INK)
    axes.set(xscale="log", xlabel="false alarms, % of clean windows without overload ahead", ylabel="recall, %")
    axes.set_title("Clean onsets of the test shards")
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50], ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50"])
    axes.legend(frameon=False, loc="lower right")
    return figure


def _reliability(measures: Mapping[str, Measures]) -> Figure:
    figure, (axes,) = new_figure(1)
    axes.plot([0, 1], [0, 1], color=COLOURS[3], linewidth=1)
    for (name, each), colour in zip(measures.items(), COLOURS, strict=False):
        groups, some = each.reliability, each.reliability.count > 0
        label = f"{name}, error {groups.error:.4f}"
        dashed = "--" if name == "int8" else "-"
        axes.plot(groups.forecast[some], groups.came_true[some], dashed, marker="o", color=colour, label=label)
    axes.set(xlabel="forecast probability, mean of each tenth", ylabel="part that came true", title="All windows")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")
    return figure
