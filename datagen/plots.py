"""Figures of a data card: SVG images, 720 pixels wide, that follow from their numbers alone.

Text is drawn as paths, so that a figure looks the same wherever it is shown.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nerv_fl.errors import ConfigError
from nerv_fl.types import FloatArray, IntArray

# 7.5 inches are 540 points, which a browser shows as 720 pixels.
SIZE_INCHES: Final = (7.5, 4.0)
INK: Final = "#1f2933"
MUTED: Final = "#667381"
GRID: Final = "#e6e9ee"
COLOURS: Final = ("#2563eb", "#d9772b", "#12876f", "#9b4dca", "#5b6674")
DASHES: Final = (0, (4, 3))
SEAM_BINS: Final = 60
STYLE: Final = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#b8c0ca",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.labelpad": 7,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 14,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.12,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": GRID,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "path",
    "svg.hashsalt": "datagen",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.left": False,
}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is written around a figure.

    Attributes:
        title: What the figure shows.
        x: What the horizontal axis measures, with its unit.
        y: What the vertical axis measures, with its unit.
    """

    title: str
    x: str
    y: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve.

    Attributes:
        name: Its entry in the legend.
        x: float64 [N].
        y: float64 [N].
        dashed: Whether it is a reference, drawn thin and grey.
    """

    name: str
    x: FloatArray
    y: FloatArray
    dashed: bool = False

    def __post_init__(self) -> None:
        if self.x.shape != self.y.shape or self.x.ndim != 1 or not self.x.size:
            raise ConfigError(
                f"line {self.name!r}: x has shape {self.x.shape} and y {self.y.shape}, expected points of both"
            )
        _require_finite(f"line {self.name!r}", np.concatenate([self.x, self.y]))


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point that a text to its left points out.

    Attributes:
        x: Where it lies.
        y: Where it lies.
        text: What it says.
    """

    x: float
    y: float
    text: str


def lines(curves: Sequence[Line], *, labels: Labels, marks: Sequence[Mark] = ()) -> bytes:
    """Return an SVG of curves over one pair of axes.

    Args:
        curves: What to draw, the first on top.
        labels: Texts around it.
        marks: Points to point out.

    Raises:
        ConfigError: If there is no curve.

    Guarantees:
        Equal arguments give equal bytes, whatever the user's settings of matplotlib.
    """
    if not curves:
        raise ConfigError(f"figure {labels.title!r} has no line, expected at least one")

    def draw(axes: Axes) -> None:
        for place, curve in enumerate(curves):
            axes.plot(
                curve.x,
                curve.y,
                color=MUTED if curve.dashed else COLOURS[place % len(COLOURS)],
                linestyle=DASHES if curve.dashed else "solid",
                linewidth=1.3 if curve.dashed else 2.2,
                label=curve.name,
                zorder=3 + len(curves) - place,
            )
        for mark in marks:
            _point_out(axes, mark)
        axes.grid(visible=True, axis="x")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, labelcolor=INK)

    return _svg(draw, labels=labels)


def bars(values: Mapping[str, float], *, labels: Labels) -> bytes:
    """Return an SVG of one bar for each name, with its value at its end.

    Args:
        values: Height of each bar, in order; finite.
        labels: Texts around it.

    Raises:
        ConfigError: If there is no bar, or a value is not finite.

    Guarantees:
        Equal arguments give equal bytes, whatever the user's settings of matplotlib.
    """
    if not values:
        raise ConfigError(f"figure {labels.title!r} has no bar, expected at least one")
    heights = np.array(list(values.values()), dtype=np.float64)
    _require_finite(f"figure {labels.title!r}", heights)

    def draw(axes: Axes) -> None:
        drawn = axes.bar(np.arange(len(values)), heights, width=0.62, color=COLOURS[0], tick_label=list(values))
        axes.bar_label(drawn, labels=[f"{height:,.4g}" for height in heights], padding=4, color=INK)
        axes.margins(y=0.12)
        axes.tick_params(axis="x", length=0)

    return _svg(draw, labels=labels)


def histogram(
    counts: IntArray | FloatArray, *, edges: FloatArray, labels: Labels, marked: float | None = None
) -> bytes:
    """Return an SVG of counts that are already made.

    Args:
        counts: int64 or float64 [N], how much falls into each bin.
        edges: float64 [N + 1], where the bins end.
        labels: Texts around it.
        marked: A value to mark with a vertical line, its median for one.

    Raises:
        ConfigError: If there is no bin, the edges are not one more than the counts, or a number is not finite.

    Guarantees:
        Equal arguments give equal bytes, whatever the user's settings of matplotlib.
    """
    if not len(counts) or len(edges) != len(counts) + 1:
        raise ConfigError(
            f"figure {labels.title!r} has {len(counts)} counts and {len(edges)} edges, "
            "expected at least one count and one edge more"
        )
    _require_finite(f"figure {labels.title!r}", np.concatenate([counts, edges]))

    def draw(axes: Axes) -> None:
        # White seams between a few wide bins help; between many narrow ones they would be all one sees.
        seam = 0.8 if len(counts) <= SEAM_BINS else 0.0
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=COLOURS[0], edgecolor="white", linewidth=seam)
        axes.set_xlim(edges[0], edges[-1])
        if marked is not None:
            axes.axvline(marked, color=COLOURS[1], linewidth=1.6, linestyle=DASHES)
            axes.annotate(
                f"median {marked:.4g}",
                (marked, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(6, -3),
                textcoords="offset points",
                va="top",
                color=COLOURS[1],
                fontweight="bold",
            )
            axes.margins(y=0.12)

    return _svg(draw, labels=labels)


def _point_out(axes: Axes, mark: Mark) -> None:
    axes.plot([mark.x], [mark.y], marker="o", color=COLOURS[1], markersize=7, markeredgecolor="white", zorder=20)
    axes.annotate(
        mark.text,
        (mark.x, mark.y),
        xytext=(-14, -4),
        textcoords="offset points",
        ha="right",
        va="bottom",
        zorder=21,
        fontweight="bold",
    )


def _require_finite(what: str, numbers: FloatArray) -> None:
    for wrong in numbers[~np.isfinite(numbers)][:1]:
        raise ConfigError(f"{what}: a number is {wrong}, expected finite ones")


def _svg(draw: Callable[[Axes], None], *, labels: Labels) -> bytes:
    """Return the bytes of a figure: no date, no user's style, no random identifier."""
    with style.context(STYLE, after_reset=True):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(labels.title)
        axes.set_xlabel(labels.x)
        axes.set_ylabel(labels.y)
        axes.yaxis.set_major_formatter(_thousands)
        image = io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
    return image.getvalue()


def _thousands(value: float, _: float) -> str:
    return f"{value:,.6g}"
