"""Every measure of a forecast, by hand."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.bootstrap.forecast_measures import (
    count_false_alarms,
    episodes,
    leads,
    log_loss,
    platt,
    recall_above,
    reliability,
    threshold_at,
)
from nerv_fl.errors import DataError
from nerv_fl.rng import stream


@given(
    scores=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    false_alarms=st.floats(0, 0.999),
)
def test_no_more_negatives_than_allowed_exceed_the_threshold(scores: list[int], false_alarms: float) -> None:
    score, ahead = np.array(scores), np.zeros(len(scores), dtype=bool)
    threshold = threshold_at(score, ahead, false_alarms=false_alarms)
    allowed = false_alarms * len(scores)
    assert (score > threshold).sum() <= allowed
    lower = score[score < threshold]
    if len(lower):
        assert (score > lower.max()).sum() > allowed - 1


def test_recall_by_hand() -> None:
    score, ahead = np.array([0.1, 0.9, 0.5, 0.6]), np.array([False, True, True, False])
    assert recall_above(score, ahead, threshold=0.5) == (0.5, 0.5)
    assert recall_above(score, ahead, threshold=0.05) == (1.0, 1.0)


def test_a_threshold_needs_negatives() -> None:
    message = r"^all of 2 windows have overload ahead, expected some without$"
    with pytest.raises(DataError, match=message):
        threshold_at(np.ones(2), np.ones(2, dtype=bool), false_alarms=0.05)


def test_platt_recovers_slope_and_intercept() -> None:
    rng = stream(5, "platt")
    logit = rng.normal(size=200_000)
    ahead = rng.random(len(logit)) < 1 / (1 + np.exp(-(2.0 * logit - 1.0)))
    assert platt(logit, ahead) == pytest.approx((2.0, -1.0), abs=0.05)


@pytest.mark.parametrize("kind", [False, True])
def test_platt_needs_windows_of_either_kind(kind: bool) -> None:
    message = f"{4 if kind else 0} of 4 windows have overload ahead, expected some of either kind"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        platt(np.arange(4.0), np.full(4, kind))


def test_reliability_by_hand() -> None:
    """Group 0: 0.05 and 0.07, one true; group 9: 0.95 and 1.0, both true."""
    found = reliability(np.array([0.05, 0.07, 0.95, 1.0]), np.array([True, False, True, True]))
    assert found.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found.forecast[[0, 9]].tolist() == pytest.approx([0.06, 0.975])
    assert found.came_true[[0, 9]].tolist() == [0.5, 1.0]
    assert found.error == pytest.approx(0.5 * 0.44 + 0.5 * 0.025)


def test_log_loss_by_hand() -> None:
    assert log_loss(np.array([0.5, 0.25]), np.array([True, False])) == pytest.approx(
        -(math.log(0.5) + math.log(0.75)) / 2
    )
    assert log_loss(np.array([0.0]), np.array([True])) == pytest.approx(-math.log(1e-7))


def minutes(text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return a minute for each character, true at ``x``."""
    return np.array([[character == "x" for character in line] for line in text.split("/")])


def test_episodes_by_hand() -> None:
    found = episodes(minutes("xx.x./..x.x"))
    assert found.shards.tolist() == [0, 0, 1]
    assert found.first.tolist() == [0, 3, 2]
    assert found.last.tolist() == [1, 3, 2]


def test_an_episode_that_the_file_cuts_off_does_not_count() -> None:
    assert len(episodes(minutes("..xx")).shards) == 0


def test_leads_count_from_the_first_alarm() -> None:
    found = episodes(minutes("..xxxx../xxxx...."))
    assert leads(minutes("xx.x.x../........"), found).tolist() == [3, 0]


@pytest.mark.parametrize(
    ("alarm", "ahead", "expected"),
    [
        ("....", "....", 0),
        (".x..", "....", 1),
        (".x..", ".x..", 0),
        (".xx.", "..x.", 0),
        ("x..........x", "............", 1),
        ("x...........x", ".............", 2),
        ("x...........x", "............x", 1),
        ("xxxxxxxxxxxxxxxxxxxx", "....................", 1),
    ],
)
def test_false_alarms_by_hand(*, alarm: str, ahead: str, expected: int) -> None:
    """Alarms with at most 10 quiet minutes between them are one, and one true minute makes it true."""
    assert count_false_alarms(minutes(alarm)[0], minutes(ahead)[0]) == expected


def test_calibration_error_by_hand_in_fifteen_groups() -> None:
    chance, right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, True, True, False])
    assert reliability(chance, right, bins=15).error == pytest.approx((2 * 0.05 + 2 * 0.05) / 4)
