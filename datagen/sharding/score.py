"""How well overload can be foreseen: by rules of thumb, by boosted trees on windows, and by one who sees all.

What counts is recall at a rate of 5 % false alarms, on held-out shards: over all windows, and over the clean ones,
whose last hour saw no overload, so that to say "it goes on" does not help.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datagen.sharding.kernel import hidden_states, overload_probability
from datagen.sharding.shard import draw_parameters
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import CLEAN, CPU, HORIZON, labels
from nerv_fl.errors import DataError
from nerv_fl.rng import stream
from nerv_fl.types import BoolArray, FloatArray, IntArray
from nerv_fl.validation import in_range

FALSE_ALARMS: Final = 0.05
SPANS: Final = (5, 15, 60)
ROLLOUTS: Final = 96
MAX_WINDOWS: Final = 1000
"""Windows of each label taken from a shard."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Recall at 5 % false alarms.

    Attributes:
        base_rate: Part of the windows before an overload, before any were left out.
        positives: Scored windows before an overload.
        negatives: Scored windows before none.
        persistence: Overload now, or else the last CPU percent.
        logistic: Logistic regression on the last minute.
        trees: Boosted trees on the last minute, means and slopes over 5, 15 and 60 minutes.
        oracle: Probability of overload given the hidden state, by simulation.
    """

    base_rate: float
    positives: int
    negatives: int
    persistence: float
    logistic: float
    trees: float
    oracle: float


@dataclass(frozen=True, kw_only=True)
class LoadScores:
    """Recall over all windows, and over those whose last hour saw no overload."""

    all_windows: Recall
    clean_onsets: Recall


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Windows of some shards: features [N, D], overload now, label, and probability given the hidden state [N]."""

    x: npt.NDArray[np.float32]
    now: npt.NDArray[np.uint8]
    ahead: BoolArray
    oracle: FloatArray
    rate: float


def score_load(path: str | Path, *, seed: int = 0, max_shards: int = 60) -> LoadScores:
    """Score baselines and the oracle on the test shards of a load file.

    Args:
        path: The file.
        seed: Seed of the choice of windows and of the oracle's simulations.
        max_shards: Test shards used; twice as many train shards fit the models.

    Returns:
        The scores.

    Raises:
        ConfigError: If max_shards is below 1.
        DataError: If the file is damaged, or its shards never meet overload.
    """
    in_range("max_shards", max_shards, low=1, high=np.inf)
    with LoadFile(path) as file:
        found = {}
        for clean in (False, True):
            train = _sample(file, file.shards_of("train")[: 2 * max_shards], seed=seed, clean=clean, oracle=False)
            test = _sample(file, file.shards_of("test")[:max_shards], seed=seed, clean=clean, oracle=True)
            found[clean] = _recalls(train, test)
    return LoadScores(all_windows=found[False], clean_onsets=found[True])


def recall_at(score: npt.NDArray[Any], ahead: BoolArray, *, false_alarms: float = FALSE_ALARMS) -> float:
    """Return the part of the positives whose score exceeds all but a part ``false_alarms`` of the negatives' scores.

    >>> recall_at(np.array([1, 2, 3, 4]), np.array([False, False, True, True]), false_alarms=0.5)
    1.0
    """
    negatives = np.sort(score[~ahead])
    threshold = negatives[len(negatives) - 1 - int(false_alarms * len(negatives))]
    return float(np.mean(score[ahead] > threshold))


def window_features(features: npt.NDArray[np.float32], ends: IntArray) -> npt.NDArray[np.float32]:
    """Return what the boosted trees see: last values, then means and slopes over 5, 15 and 60 minutes.

    Args:
        features: float32 [T, 11] of a shard.
        ends: int64 [N], the last step of each window, at least 59.

    Returns:
        float32 [N, 77]. A slope is least squares, per minute.
    """
    wide = features.astype(np.float64)
    step = np.arange(len(wide))[:, None]
    zero = np.zeros((1, wide.shape[1]))
    total = np.concatenate([zero, np.cumsum(wide, axis=0)])
    moment = np.concatenate([zero, np.cumsum(wide * step, axis=0)])
    columns = [wide[ends]]
    for span in SPANS:
        sums, moments = (sum_[ends + 1] - sum_[ends + 1 - span] for sum_ in (total, moment))
        middle = (ends - 0.5 * (span - 1))[:, None]
        columns += [sums / span, (moments - middle * sums) / (span * (span**2 - 1) / 12)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _sample(file: LoadFile, shards: IntArray, *, seed: int, clean: bool, oracle: bool) -> _Sample:
    parts = [_windows(file, int(shard), seed=seed, clean=clean, oracle=oracle) for shard in shards]
    if not any(part.ahead.any() for part in parts):
        raise DataError(f"{file.path}: no window of {len(shards)} shards comes before overload, expected some to score")
    return _Sample(
        x=np.concatenate([part.x for part in parts]),
        now=np.concatenate([part.now for part in parts]),
        ahead=np.concatenate([part.ahead for part in parts]),
        oracle=np.concatenate([part.oracle for part in parts]),
        rate=float(np.mean([part.rate for part in parts])),
    )


def _windows(file: LoadFile, shard: int, *, seed: int, clean: bool, oracle: bool) -> _Sample:
    """Take windows of a shard: as many of each label as there are, up to a limit."""
    block, rng = file.shard(shard), stream(seed, "score", shard, int(clean))
    found = labels(block.overload)
    allowed = found.clean.copy() if clean else np.ones(len(block.overload), dtype=bool)
    allowed[: CLEAN - 1] = allowed[len(allowed) - HORIZON :] = False
    ends = np.concatenate(
        [rng.permutation(np.flatnonzero(allowed & (found.ahead == label)))[:MAX_WINDOWS] for label in (False, True)]
    )
    info, chances = file.info, np.zeros(len(ends))
    if oracle:
        states = hidden_states(info.seed, shard, steps=info.steps, splits=info.splits)[ends]
        parameters = draw_parameters(info.seed, shard, splits=info.splits)
        chances = overload_probability(states, parameters, rng, horizon=HORIZON, repeats=ROLLOUTS)
    return _Sample(
        x=window_features(block.features, ends),
        now=block.overload[ends],
        ahead=found.ahead[ends],
        oracle=chances,
        rate=float(found.ahead[allowed].mean()) if allowed.any() else 0.0,
    )


def _recalls(train: _Sample, test: _Sample) -> Recall:
    last = len(test.x[0]) // (1 + 2 * len(SPANS))
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    logistic.fit(train.x[:, :last], train.ahead)
    trees = HistGradientBoostingClassifier(max_iter=200, learning_rate=0.1, early_stopping=False, random_state=0)
    trees.fit(train.x, train.ahead)
    return Recall(
        base_rate=test.rate,
        positives=int(test.ahead.sum()),
        negatives=int((~test.ahead).sum()),
        persistence=recall_at(1000.0 * test.now + test.x[:, CPU], test.ahead),
        logistic=recall_at(logistic.decision_function(test.x[:, :last]), test.ahead),
        trees=recall_at(trees.decision_function(test.x), test.ahead),
        oracle=recall_at(test.oracle, test.ahead),
    )
