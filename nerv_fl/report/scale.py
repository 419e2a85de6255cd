"""Axes: where a value falls between 0 and 1, and which ticks a reader expects."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from nerv_fl.report.formatting import PLAIN_HIGH, PLAIN_LOW, exponential, fixed, short

MANTISSAS: Final = ((1.0, (1, 1.5, 2, 3, 5, 7)), (3.0, (1, 3)), (math.inf, (1,)))
"""Tick mantissas of a logarithmic axis, each with the largest number of decades that they are used for."""
MOST_DECADES: Final = 6
"""Ticks of a logarithmic axis that spans more decades skip some."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One axis.

    `low` < `high` are its ends; a logarithmic axis puts what is not positive at its low end.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Return where a value falls: 0 at the low end, 1 at the high end, never outside.

        >>> Scale(low=1.0, high=4.0, log=True, ticks=()).at(2.0)
        0.5
        """
        if self.log:
            value, low, high = math.log(max(value, self.low)), math.log(self.low), math.log(self.high)
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def label(self, tick: float) -> str:
        """Return a tick's text: one notation for the whole axis, as many decimals as the step between ticks needs.

        >>> axis = linear([0.12, 0.22])
        >>> [axis.label(tick) for tick in axis.ticks]
        ['0.100', '0.125', '0.150', '0.175', '0.200', '0.225']
        """
        smallest, largest = min(map(abs, self.ticks)), max(map(abs, self.ticks))
        if self.log and smallest >= 10 * PLAIN_LOW and largest < PLAIN_HIGH:
            return short(tick)
        if self.log or largest < 10 * PLAIN_LOW or largest >= PLAIN_HIGH:
            return exponential(tick)
        return fixed(tick, places=max(_decimals(later - one) for one, later in pairwise((0.0, *self.ticks))))


def linear(values: Iterable[float], *, include: Iterable[float] = (), num_ticks: int = 5) -> Scale:
    """Return a linear axis around values, its ends at ticks.

    >>> linear([3.76, 3.727]).ticks
    (3.72, 3.73, 3.74, 3.75, 3.76)
    """
    points = [*values, *include] or [0.0, 1.0]
    low, high = min(points), max(points)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        margin = 0.1 * abs(low) or 1.0
        low, high = low - margin, high + margin
    step = _nice_step((high - low) / (num_ticks - 1))
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    ticks = tuple(round(index * step, 12 - math.floor(math.log10(step))) for index in range(first, last + 1))
    return Scale(low=ticks[0], high=ticks[-1], log=False, ticks=ticks)


def logarithmic(values: Iterable[float], *, include: Iterable[float] = ()) -> Scale:
    """Return a logarithmic axis around the positive ones among values.

    >>> logarithmic([8.8e-4, 2.6e-4]).ticks
    (0.0003, 0.0005, 0.0007, 0.001)
    """
    positive = [value for value in (*values, *include) if value > 0] or [1e-16, 1e-15]
    low, high = min(positive) / 1.15, max(positive) * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    width = math.log10(high / low)
    mantissas = next(group for limit, group in MANTISSAS if width <= limit)
    stride = max(1, math.ceil(width / MOST_DECADES))
    ticks = (
        float(f"{mantissa}e{exponent}") for exponent in decades if exponent % stride == 0 for mantissa in mantissas
    )
    return Scale(low=low, high=high, log=True, ticks=tuple(tick for tick in ticks if low <= tick <= high))


def rounds_axis(rounds: Iterable[int], *, num_ticks: int = 6) -> Scale:
    """Return the axis of round numbers: whole ticks, half a round of air at either end.

    >>> rounds_axis(range(21)).ticks
    (0, 5, 10, 15, 20)
    """
    numbers = sorted(rounds) or [0]
    first, last = numbers[0], numbers[-1]
    step = max(1, int(_nice_step(max(1, last - first) / (num_ticks - 1), whole=True)))
    ticks = tuple(number for number in range(first, last + 1) if number % step == 0) or (first,)
    return Scale(low=first - 0.5, high=last + 0.5, log=False, ticks=ticks)


def apart(positions: Iterable[float], *, gap: float, low: float, high: float) -> list[float]:
    """Return positions moved as little as needed to stand at least `gap` apart, in the order given.

    >>> apart([10.0, 12.0, 60.0], gap=14.0, low=0.0, high=100.0)
    [10.0, 24.0, 60.0]
    """
    order = sorted(enumerate(positions), key=lambda item: item[1])
    placed: list[float] = []
    for _, wanted in order:
        placed.append(max(wanted, placed[-1] + gap) if placed else max(wanted, low))
    ceiling = high
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    moved = [0.0] * len(placed)
    for (index, _), position in zip(order, placed, strict=True):
        moved[index] = position
    return moved


def _decimals(step: float) -> int:
    return len(f"{round(step, 9):.9f}".rstrip("0").partition(".")[2])


def _nice_step(step: float, *, whole: bool = False) -> float:
    exponent = math.floor(math.log10(step))
    mantissas = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    return next(nice for nice in (item * 10.0**exponent for item in mantissas) if nice >= step * 0.999)
