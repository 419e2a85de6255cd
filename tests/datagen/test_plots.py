"""Figures follow from their numbers alone, and their bars and curves are as long and as high as the numbers say."""

import re
import subprocess
import sys
from collections.abc import Callable
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest

from datagen.plots import Labels, Line, Mark, bars, histogram, lines
from nerv_fl.errors import ConfigError

LABELS = Labels(title="T", x="x", y="y")
CURVE = Line(name="a", x=np.array([0.0, 1.0, 2.0]), y=np.array([0.0, 1.0, 4.0]))
DRAW: dict[str, Callable[[], bytes]] = {
    "bars": lambda: bars({"a": 1.0, "b": 2.0}, labels=LABELS),
    "lines": lambda: lines([CURVE], labels=LABELS, marks=[Mark(x=1.0, y=1.0, text="here")]),
    "histogram": lambda: histogram(np.array([1, 3]), edges=np.array([0.0, 1.0, 2.0]), labels=LABELS, marked=1.5),
}


def points(svg: bytes, paint: str) -> list[list[tuple[float, float]]]:
    """Return the corners of every path of a colour, in points, y downwards."""
    paths = [path for path in ET.fromstring(svg).iter() if paint in path.get("style", "")]
    numbers = [[float(number) for number in re.findall(r"-?[\d.]+", path.get("d", ""))] for path in paths]
    return [list(zip(found[::2], found[1::2], strict=True)) for found in numbers if found]


def heights(svg: bytes) -> list[float]:
    return [max(y for _, y in path) - min(y for _, y in path) for path in points(svg, "fill: #2563eb")]


@pytest.mark.parametrize("kind", DRAW)
def test_same_numbers_give_same_bytes_whatever_the_user_has_set(kind: str) -> None:
    expected = DRAW[kind]()
    with mpl.rc_context({"axes.facecolor": "red", "svg.hashsalt": None, "lines.linewidth": 9, "font.size": 20}):
        assert DRAW[kind]() == expected
    assert b"date" not in expected
    assert ET.fromstring(expected).get("width") == "540pt"  # 720 pixels


def test_drawing_leaves_the_users_settings_alone() -> None:
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        DRAW["bars"]()
        assert (mpl.rcParams["font.size"], mpl.rcParams["axes.facecolor"]) == (20, "red")
    assert mpl.rcParams["svg.hashsalt"] is None


def test_pyplot_is_not_loaded() -> None:
    code = "import sys, datagen.plots as p; p.bars({'a': 1.0}, labels=p.Labels(title='', x='', y='')); "
    code += "sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bars_are_as_high_as_their_values() -> None:
    one, three = heights(bars({"a": 10.0, "b": 30.0}, labels=LABELS))
    assert three == pytest.approx(3 * one, rel=1e-4)


def test_histogram_bars_lie_between_their_edges() -> None:
    svg = histogram(np.array([2, 1]), edges=np.array([0.0, 1.0, 4.0]), labels=LABELS)
    narrow, wide = ([x for x, _ in path] for path in points(svg, "fill: #2563eb"))
    assert max(wide) - min(wide) == pytest.approx(3 * (max(narrow) - min(narrow)), rel=1e-4)
    two, one = heights(svg)
    assert two == pytest.approx(2 * one, rel=1e-4)


def test_histogram_marks_its_median() -> None:
    edges = np.array([0.0, 1.0, 4.0])
    svg = histogram(np.array([2, 1]), edges=edges, labels=LABELS, marked=2.0)
    (line,) = points(svg, "stroke: #d9772b")
    corners = [x for path in points(svg, "fill: #2563eb") for x, _ in path]
    assert line[0][0] == pytest.approx((min(corners) + max(corners)) / 2, rel=1e-4)


def test_lines_go_through_their_points() -> None:
    (first, second, third), *_ = points(lines([CURVE], labels=LABELS), "stroke: #2563eb")
    assert third[0] - first[0] == pytest.approx(2 * (second[0] - first[0]), rel=1e-4)
    assert first[1] - third[1] == pytest.approx(4 * (first[1] - second[1]), rel=1e-4)


def test_a_reference_is_drawn_in_grey() -> None:
    grey = Line(name="b", x=CURVE.x, y=CURVE.x, dashed=True)
    assert len(points(lines([CURVE, grey], labels=LABELS), "stroke-dasharray")) == 2  # itself, and in the legend


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: bars({}, labels=LABELS), "figure 'T' has no bar, expected at least one"),
        (lambda: bars({"a": np.inf}, labels=LABELS), "figure 'T': a number is inf, expected finite ones"),
        (lambda: lines([], labels=LABELS), "figure 'T' has no line, expected at least one"),
        (
            lambda: histogram(np.array([1]), edges=np.array([0.0]), labels=LABELS),
            "figure 'T' has 1 counts and 1 edges, expected at least one count and one edge more",
        ),
        (
            lambda: histogram(np.array([1.0]), edges=np.array([0.0, np.nan]), labels=LABELS),
            "figure 'T': a number is nan, expected finite ones",
        ),
        (
            lambda: Line(name="a", x=np.zeros(2), y=np.zeros(3)),
            "line 'a': x has shape (2,) and y (3,), expected points of both",
        ),
        (
            lambda: Line(name="a", x=np.zeros(1), y=np.array([np.nan])),
            "line 'a': a number is nan, expected finite ones",
        ),
    ],
)
def test_bad_figures(draw: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        draw()
