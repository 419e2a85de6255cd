"""What the pictures of trained models have in common: colours, axes, and how they are written."""

import io
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nerv_fl.io.atomic import write_atomically

INK: Final = "#1b1f24"
COLOURS: Final = ("#0b6bcb", "#d1481f", "#7a7f87", "#b9bec6")


def new_figure(columns: int) -> tuple[Figure, tuple[Axes, ...]]:
    """Return a figure of some panels beside each other."""
    figure = Figure(figsize=(4.6 * columns + 1.0, 4.0), dpi=110, layout="constrained")
    axes = tuple(figure.add_subplot(1, columns, column + 1) for column in range(columns))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color="#eceef1")
        each.set_axisbelow(True)
    return figure, axes


def write_png(path: Path, figure: Figure) -> Path:
    """Write a figure atomically; return the file.

    Raises:
        OSError: If it cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_atomically(path, content.getvalue())
    return path
