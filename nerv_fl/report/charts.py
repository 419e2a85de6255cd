"""Charts as inline SVG: widths in percent, heights in pixels, so that text keeps its size on every screen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from nerv_fl.report.formatting import short
from nerv_fl.report.markup import Html, el, join
from nerv_fl.report.scale import Scale, apart, linear, logarithmic, rounds_axis

LABEL_GAP: Final = 15.0
"""Least distance of two labels at the right edge, in pixels."""
MOST_DOTS: Final = 60
"""Lines of more points show the rejected ones only."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: its name, its style (a class of the style sheet) and a value for each round."""

    name: str
    style: str
    points: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A horizontal reference line; `text` is its value in words."""

    name: str
    style: str
    value: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What a chart over rounds shows; `rejected` rounds are drawn hollow, `bands` join a low and a high value."""

    label: str
    series: Sequence[Series]
    rules: Sequence[Rule] = ()
    bands: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    rejected: frozenset[int] = frozenset()
    log: bool = False
    zero: bool = False
    height: int = 210
    format: Callable[[float], str] = short


def line_chart(chart: Chart) -> Html:
    """Draw lines over rounds, their last values at the right edge, reference lines, and a tooltip for each round."""
    rounds = sorted({number for series in chart.series for number in series.points})
    values = [value for series in chart.series for value in series.points.values()]
    values += [value for pair in chart.bands.values() for value in pair]
    references = [rule.value for rule in chart.rules] + ([0.0] if chart.zero else [])
    y = logarithmic(values, include=references) if chart.log else linear(values, include=references)
    x = rounds_axis(rounds)
    return svg(
        y_axis(y, height=chart.height),
        x_axis(x, height=chart.height),
        *(_rule(rule, y, height=chart.height) for rule in chart.rules),
        *(_band(x.at(number), pair, y, height=chart.height) for number, pair in chart.bands.items()),
        *(_line(series, x, y, chart=chart) for series in chart.series),
        _end_labels(chart, y),
        *(hit(x, number, text=_tooltip(chart, number), height=chart.height) for number in rounds),
        label=chart.label,
        height=chart.height,
        style="named" if any(series.name for series in chart.series) or chart.rules else "",
    )


def svg(*children: str, label: str, height: float, style: str = "") -> Html:
    """Return a drawing as wide as its place, named for those who cannot see it, with room around it for its labels."""
    drawing = el("svg", el("title", label), *children, role="img", aria_label=label, width="100%", height=height)
    return el("div", drawing, class_=f"plot {style}".strip())


def at(share: float) -> str:
    """Return a share of the width as SVG wants it.

    >>> at(1 / 3)
    '33.33%'
    """
    return f"{100 * share:.2f}%"


def y_axis(scale: Scale, *, height: float) -> Html:
    """Draw the grid lines of the vertical axis and their numbers."""
    parts = []
    for tick in scale.ticks:
        y = height * (1 - scale.at(tick))
        parts.append(el("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"))
        parts.append(el("text", scale.label(tick), x=-9, y=y, dy="0.35em", class_="tick end"))
    return join(*parts)


def x_axis(scale: Scale, *, height: float, title: str = "round") -> Html:
    """Draw the horizontal axis, its numbers and its title."""
    line = el("line", x1=0, x2="100%", y1=height, y2=height, class_="axis")
    labels = [
        el("text", scale.label(tick), x=at(scale.at(tick)), y=height, dy="1.45em", class_=f"tick middle {importance}")
        for tick, importance in zip(scale.ticks, _importance(scale.ticks), strict=True)
    ]
    return join(line, *labels, el("text", title, x="100%", y=height, dy="2.7em", class_="tick end"))


def _importance(ticks: Sequence[float]) -> list[str]:
    """Call every second tick minor, never zero: narrow screens leave the minor ones out."""
    zero = min(range(len(ticks)), key=lambda index: abs(ticks[index]))
    return ["minor" if (index - zero) % 2 else "major" for index in range(len(ticks))]


def hit(x: Scale, number: int, *, text: str, height: float) -> Html:
    """Return the invisible column over one round that shows its tooltip."""
    left, right = x.at(number - 0.5), x.at(number + 0.5)
    return el("rect", el("title", text), x=at(left), width=at(right - left), y=0, height=height, class_="hit")


def _line(series: Series, x: Scale, y: Scale, *, chart: Chart) -> Html:
    places = [(number, x.at(number), chart.height * (1 - y.at(value))) for number, value in series.points.items()]
    lines = [el("line", x1=at(x_1), y1=y_1, x2=at(x_2), y2=y_2) for (_, x_1, y_1), (_, x_2, y_2) in pairwise(places)]
    shown = [place for place in places if place[0] in chart.rejected or len(places) <= MOST_DOTS]
    dots = [
        el("circle", cx=at(x_1), cy=y_1, r=2.2, class_="rejected" if number in chart.rejected else None)
        for number, x_1, y_1 in shown
    ]
    return el("g", *lines, *dots, class_=f"line {series.style}")


def _rule(rule: Rule, y: Scale, *, height: float) -> Html:
    place = height * (1 - y.at(rule.value))
    return el("line", x1=0, x2="100%", y1=place, y2=place, class_=f"rule {rule.style}")


def _band(x: float, pair: tuple[float, float], y: Scale, *, height: float) -> Html:
    low, high = (height * (1 - y.at(value)) for value in pair)
    return el("line", x1=at(x), x2=at(x), y1=low, y2=high, class_="band")


def _end_labels(chart: Chart, y: Scale) -> Html:
    ends = [*(_end(chart, series) for series in chart.series if series.points), *chart.rules]
    wanted = [chart.height * (1 - y.at(end.value)) for end in ends]
    places = apart(wanted, gap=LABEL_GAP, low=4, high=chart.height - 4)
    return join(*(_end_label(end, y=place) for end, place in zip(ends, places, strict=True)))


def _end(chart: Chart, series: Series) -> Rule:
    last = series.points[max(series.points)]
    return Rule(name=series.name, style=series.style, value=last, text=chart.format(last))


def _end_label(end: Rule, *, y: float) -> Html:
    text = f"{end.name} {end.text}".strip()
    return el("text", text, x="100%", dx=10, y=y, dy="0.35em", class_=f"end-label {end.style}")


def _tooltip(chart: Chart, number: int) -> str:
    lines = [f"Round {number}" + (", rejected" if number in chart.rejected else "")]
    lines += [
        f"{item.name or 'value'}: {chart.format(item.points[number])}" for item in chart.series if number in item.points
    ]
    if number in chart.bands:
        lines += ["{}..{}".format(*map(chart.format, chart.bands[number]))]
    return "\n".join(lines)
