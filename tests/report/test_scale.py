import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.report.scale import Scale, apart, linear, logarithmic, rounds_axis

FINITE = st.floats(min_value=-1e12, max_value=1e12, allow_nan=False)


@given(st.lists(FINITE, min_size=1))
def test_a_linear_axis_contains_its_values_and_has_few_ticks(values: list[float]) -> None:
    axis = linear(values)

    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 8
    assert all(-1e-6 <= (value - axis.low) / (axis.high - axis.low) <= 1 + 1e-6 for value in values)


@given(st.lists(st.floats(min_value=1e-18, max_value=1e9), min_size=1))
def test_a_logarithmic_axis_contains_its_values_and_has_few_ticks(values: list[float]) -> None:
    axis = logarithmic(values)

    assert axis.low < min(values) <= max(values) < axis.high
    assert len(axis.ticks) <= 8


def test_what_is_not_positive_stands_at_the_foot_of_a_logarithmic_axis() -> None:
    axis = logarithmic([0.0, 1e-3, 1e-2])

    assert axis.at(0.0) == 0.0
    assert axis.at(1e-3) > 0.0


def test_an_axis_of_equal_values_has_them_in_the_middle() -> None:
    assert linear([3.7, 3.7]).at(3.7) == pytest.approx(0.5, abs=0.15)
    assert linear([0.0]).at(0.0) == 0.5


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([3.72, 3.76], ["3.72", "3.73", "3.74", "3.75", "3.76"]),
        ([-2e-5, 1e-4], ["−5e-5", "0", "5e-5", "1e-4"]),
        ([0.0, 12.0], ["0", "5", "10", "15"]),
        ([0.0, 1e5], ["0", "25,000", "50,000", "75,000", "100,000"]),
    ],
)
def test_labels_have_the_decimals_of_their_step(values: list[float], labels: list[str]) -> None:
    axis = linear(values)

    assert [axis.label(tick) for tick in axis.ticks] == labels


def test_labels_of_one_axis_are_distinct() -> None:
    for low, high in ((0.268, 0.2761), (1e-7, 2.2e-7), (12.9, 21.7), (1e6, 1.00002e6)):
        axis = linear([low, high])
        assert len({axis.label(tick) for tick in axis.ticks}) == len(axis.ticks)


@pytest.mark.parametrize("last", [0, 1, 3, 20, 299])
def test_rounds_have_whole_ticks_and_fit(last: int) -> None:
    axis = rounds_axis(range(last + 1))

    assert axis.ticks[0] == 0
    assert all(float(tick).is_integer() for tick in axis.ticks)
    assert 1 <= len(axis.ticks) <= 7
    assert 0 < axis.at(0) <= axis.at(last) < 1


@given(st.lists(st.floats(min_value=0, max_value=200), min_size=1, max_size=8))
def test_labels_are_moved_apart_without_changing_their_order(positions: list[float]) -> None:
    moved = sorted(zip(positions, apart(positions, gap=15, low=4, high=196), strict=True))
    places = [place for _, place in moved]

    assert sorted(places) == pytest.approx(places)
    assert all(later - one > 15 - 1e-9 for one, later in pairwise(places))
    assert max(places) <= 196


def test_a_share_is_logarithmic() -> None:
    axis = Scale(low=1e-4, high=1e-2, log=True, ticks=())

    assert axis.at(1e-3) == pytest.approx(0.5)
    assert axis.at(math.inf) == 1.0
