"""What a forecast of overload is worth: recall at a rate of false alarms, episodes found, calibration.

A **window** is one minute's forecast. An **episode** is one overload that comes to a shard which had none for an hour;
it is *found* if any of the (up to 10) minutes before it raised an alarm, its *lead* the minutes from the first of them.
An **alarm** is a run of minutes above the threshold, outside overload, with gaps of up to 10 minutes; it is *false* if
after none of its minutes overload came within 10.

Shapes: N windows, M shards, T minutes.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from nerv_fl.data.load_schema import HORIZON
from nerv_fl.errors import DataError
from nerv_fl.types import BoolArray, FloatArray, IntArray

ALARM: Final = 0.92
"""Probability above which a shard is split. Source: NERV whitepaper, dynamic sharding."""
BINS: Final = 10
Scores = npt.NDArray[Any]
"""Probabilities, or any number that grows with them, [N]."""


def threshold_at(score: Scores, ahead: BoolArray, *, false_alarms: float) -> float:
    """Return the lowest threshold that at most a part ``false_alarms`` of the windows without overload ahead exceed.

    Args:
        score: [N], higher where overload is likelier.
        ahead: bool [N].
        false_alarms: Part, in [0, 1).

    Raises:
        DataError: If every window has overload ahead.

    >>> threshold_at(np.array([1, 2, 3, 4]), np.array([False, False, False, True]), false_alarms=0.34)
    2.0
    """
    negatives = np.sort(score[~ahead])
    if len(negatives) == 0:
        raise DataError(f"all of {len(score)} windows have overload ahead, expected some without")
    return float(negatives[len(negatives) - 1 - int(false_alarms * len(negatives))])


def recall_above(score: Scores, ahead: BoolArray, *, threshold: float) -> tuple[float, float]:
    """Return the parts of the windows with, and without, overload ahead whose score exceeds a threshold."""
    above = score > threshold
    return float(above[ahead].mean()), float(above[~ahead].mean())


def platt(logit: Scores, ahead: BoolArray) -> tuple[float, float]:
    """Fit ``p = sigmoid(slope * logit + intercept)`` by maximum likelihood, and return slope and intercept.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999, without its smoothing of the labels.

    Raises:
        DataError: If all windows are of one kind.
    """
    if ahead.all() or not ahead.any():
        raise DataError(f"{int(ahead.sum())} of {len(ahead)} windows have overload ahead, expected some of either kind")
    found = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8).fit(logit.astype(np.float64)[:, None], ahead)
    return float(found.coef_[0, 0]), float(found.intercept_[0])


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Of each part of the unit interval: how many probabilities lie there, their mean, and what came true."""

    count: IntArray
    forecast: FloatArray
    came_true: FloatArray

    @property
    def error(self) -> float:
        """Expected calibration error, ``sum_b n_b / N |forecast_b - came_true_b|``.

        Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", 2015.
        """
        return float((self.count * np.abs(self.forecast - self.came_true)).sum() / self.count.sum())


def reliability(probability: Scores, ahead: BoolArray, *, bins: int = BINS) -> Reliability:
    """Group forecasts by their probability; an empty group is zero throughout."""
    group = np.minimum((probability * bins).astype(np.int64), bins - 1)
    count = np.bincount(group, minlength=bins)
    sums = [np.bincount(group, weights=values, minlength=bins) for values in (probability, ahead)]
    forecast, came_true = (total / np.maximum(count, 1) for total in sums)
    return Reliability(count=count, forecast=forecast, came_true=came_true)


def log_loss(probability: Scores, ahead: BoolArray) -> float:
    """Return the mean cross-entropy in nats; probabilities are kept 1e-7 away from 0 and 1."""
    sure = np.clip(probability.astype(np.float64), 1e-7, 1.0 - 1e-7)
    return float(-np.log(np.where(ahead, sure, 1.0 - sure)).mean())


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Episodes of some shards: the shard, the first and the last minute of which each is a clean onset, int64 [E]."""

    shards: IntArray
    first: IntArray
    last: IntArray


def episodes(onset: BoolArray) -> Episodes:
    """Return the runs of minutes that are clean onsets and are followed by one that is not, bool [M, T] -> [E] each.

    >>> episodes(np.array([[False, True, True, False, True]])).last.tolist()
    [2]
    """
    edge = np.diff(onset.astype(np.int8), axis=1, prepend=0)
    shards, first = np.nonzero(edge == 1)
    _, after = np.nonzero(edge == -1)
    ended = np.array([onset[shard, start:].all() for shard, start in zip(shards, first, strict=True)], dtype=bool)
    return Episodes(shards=shards[~ended], first=first[~ended], last=after - 1)


def leads(alarm: BoolArray, found: Episodes) -> IntArray:
    """Return how many minutes before each episode the first alarm came, 0 where none did, int64 [E].

    Args:
        alarm: bool [M, T].
        found: The episodes.
    """
    lead = np.zeros(len(found.shards), dtype=np.int64)
    for number, (shard, first, last) in enumerate(zip(found.shards, found.first, found.last, strict=True)):
        raised = np.flatnonzero(alarm[shard, first : last + 1])
        if len(raised):
            lead[number] = last + 1 - (first + raised[0])
    return lead


def count_false_alarms(alarm: BoolArray, ahead: BoolArray) -> int:
    """Return the number of alarms after none of whose minutes overload came within 10.

    Args:
        alarm: bool [N], minutes above the threshold outside overload, one after the other.
        ahead: bool [N], whether overload comes within 10 minutes.

    >>> count_false_alarms(np.array([True, False, True]), np.array([False, False, False]))
    1
    """
    minutes = np.flatnonzero(alarm)
    if len(minutes) == 0:
        return 0
    begins = np.flatnonzero(np.diff(minutes, prepend=minutes[0] - HORIZON - 2) > HORIZON + 1)
    true = np.add.reduceat(ahead[minutes].astype(np.int64), begins)
    return int((true == 0).sum())
