"""Charts that are not lines: intervals and bars by row, and stacked columns over rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nerv_fl.report.charts import at, hit, svg, x_axis, y_axis
from nerv_fl.report.formatting import short
from nerv_fl.report.markup import Html, el, join
from nerv_fl.report.scale import Scale, linear, rounds_axis

LONGEST: Final = 0.58
"""Share of the width that the longest bar takes."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One row of an interval chart: a value between two ends, with its name and its tooltip."""

    name: str
    value: float
    low: float
    high: float
    text: str
    style: str = ""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row of a bar chart: a length, what stands behind it, and its tooltip."""

    length: float
    label: str
    text: str


def interval_chart(rows: Sequence[Interval], *, label: str, title: str, row_height: float = 17) -> Html:
    """Draw one dot with whiskers for each row, a line at zero, and the value's axis below."""
    height = row_height * max(1, len(rows))
    x = linear([end for row in rows for end in (row.low, row.high)], include=[0.0], num_ticks=4)
    grid = [el("line", x1=at(x.at(tick)), x2=at(x.at(tick)), y1=0, y2=height, class_="grid") for tick in x.ticks]
    zero = el("line", x1=at(x.at(0)), x2=at(x.at(0)), y1=0, y2=height, class_="axis")
    drawn = [_interval(row, x, y=row_height * (index + 0.5), height=row_height) for index, row in enumerate(rows)]
    return svg(*grid, zero, x_axis(x, height=height, title=title), *drawn, label=label, height=height, style="rows")


def bar_chart(rows: Sequence[Bar], *, label: str, title: str, row_height: float = 17) -> Html:
    """Draw one horizontal bar for each row, its number behind it; the longest leaves room for its own."""
    height = row_height * max(1, len(rows))
    longest = max((row.length for row in rows), default=0) or 1.0
    drawn = []
    for index, row in enumerate(rows):
        y, width = row_height * (index + 0.5), LONGEST * row.length / longest
        bar = el("rect", x=0, width=at(width), y=y - 4.5, height=9, rx=1.5, class_="bar")
        number = el("text", row.label, x=at(width), dx=7, y=y, dy="0.35em", class_="tick")
        area = _row_hit(row.text, y=y, height=row_height)
        drawn.append(el("g", bar if row.length > 0 else None, number, area))
    axis = el("line", x1=0, x2=0, y1=0, y2=height, class_="axis")
    below = el("text", title, x=0, y=height, dy="2.7em", class_="tick")
    return svg(axis, *drawn, below, label=label, height=height, style="bars")


def stacked_columns(columns: Mapping[int, Mapping[str, float]], *, label: str, unit: str, height: float = 190) -> Html:
    """Draw one column for each round, its parts stacked in the order given and styled `stack-0`, `stack-1`, ..."""
    y = linear([sum(parts.values()) for parts in columns.values()], include=[0.0])
    x = rounds_axis(columns)
    drawn = [_column(x, number, parts, y=y, height=height) for number, parts in columns.items()]
    areas = [
        hit(x, number, text=_parts_text(number, parts, unit=unit), height=height) for number, parts in columns.items()
    ]
    axes = (y_axis(y, height=height), x_axis(x, height=height))
    return svg(*axes, *drawn, *areas, label=label, height=height, style="columns")


def _interval(row: Interval, x: Scale, *, y: float, height: float) -> Html:
    return el(
        "g",
        el("text", row.name, x=-10, y=y, dy="0.35em", class_="tick end"),
        el("line", x1=at(x.at(row.low)), x2=at(x.at(row.high)), y1=y, y2=y, class_="whisker"),
        el("circle", cx=at(x.at(row.value)), cy=y, r=3.4, class_="dot"),
        _row_hit(row.text, y=y, height=height),
        class_=row.style or None,
    )


def _row_hit(text: str, *, y: float, height: float) -> Html:
    return el("rect", el("title", text), x=0, width="100%", y=y - height / 2, height=height, class_="hit")


def _column(x: Scale, number: int, parts: Mapping[str, float], *, y: Scale, height: float) -> Html:
    left, width = x.at(number - 0.36), x.at(number + 0.36) - x.at(number - 0.36)
    drawn, below = [], 0.0
    for index, value in enumerate(parts.values()):
        top = height * (1 - y.at(below + value))
        size = height * (1 - y.at(below)) - top
        drawn.append(
            el("rect", x=at(left), width=at(width), y=top, height=max(0.0, size), class_=f"stack stack-{index}")
        )
        below += value
    return join(*drawn)


def _parts_text(number: int, parts: Mapping[str, float], *, unit: str) -> str:
    lines = [f"{name}: {short(value)} {unit}" for name, value in parts.items()]
    return "\n".join([f"Round {number}", *lines, f"sum: {short(sum(parts.values()))} {unit}"])
