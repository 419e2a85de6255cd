"""The curve of a pretraining as a picture: held-out measures over steps, beside the trivial models."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nerv_fl.bootstrap.pretrain import BootstrapResult


def plot_curve(path: Path, result: BootstrapResult, *, title: str) -> None:
    """Write a PNG: masked cross-entropy with the unigram's and the per-account unigram's, and relative drift.

    Args:
        path: File to write.
        result: What the pretraining gave.
        title: Title of the picture.

    Raises:
        OSError: If the file cannot be written.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps = [point.step for point in result.curve]
    left.plot(steps, [point.measures.masked_ce for point in result.curve], marker="o", label="encoder")
    left.axhline(result.unigram, color="grey", linestyle="--", label="unigram")
    left.axhline(result.per_account, color="black", linestyle=":", label="unigram per account")
    left.set(xlabel="step", ylabel="masked cross-entropy, nats", title=title)
    left.legend()
    right.plot(steps, [point.measures.drift_relative for point in result.curve], marker="o", label="relative drift")
    right.plot(steps, [point.measures.drift_ratio for point in result.curve], marker="s", label="drift ratio")
    right.plot(steps, [point.measures.residual_share for point in result.curve], marker="^", label="residual share")
    right.set(xlabel="step", yscale="log", title="held-out chains")
    right.legend()
    figure.savefig(path, dpi=110)
