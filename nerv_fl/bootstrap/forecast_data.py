"""What the forecaster trains on: a split of a load file in memory, and Poisson samples of its windows.

A window ends at any minute that has an hour before it and the horizon after it. Those that end from 10 minutes before
a clean onset to 20 after are *near* one: half of each batch, though they are 2 % of all. Each window is drawn on its
own, with a probability that depends on nothing but whether it is near; so the same draws serve DP-SGD.

The logits are to be those of all windows, not of the batches. A step of class (clean c, overload ahead y) is drawn at a
mean rate R_cy, known exactly; training therefore adds log(R_c1 / R_c0) to the logit before it takes the loss.

Source: King and Zeng, "Logistic regression in rare events data", 2001, section 4.1 (prior correction).

Shapes: M shards, T minutes of each, B windows, W = 61 steps (60 and the next), S judged steps, D = 11 metrics.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import HORIZON, labels
from nerv_fl.errors import DataError
from nerv_fl.models.forecast_losses import FIRST, Windows
from nerv_fl.models.forecaster import WINDOW, LoadScale
from nerv_fl.types import BoolArray, FloatArray, IntArray

NEAR_BEFORE: Final = HORIZON
NEAR_AFTER: Final = 20


@dataclass(frozen=True, kw_only=True)
class LoadSeries:
    """A split of a load file: features float32 [M, T, D]; overload now, ahead, and clean: bool [M, T]."""

    shards: IntArray
    features: npt.NDArray[np.float32]
    overload: BoolArray
    ahead: BoolArray
    clean: BoolArray

    @classmethod
    def read(cls, file: LoadFile, split: str) -> "LoadSeries":
        """Read all shards of a split.

        Raises:
            DataError: If it has none, they are shorter than a window and its horizon, or none meets a clean onset.
        """
        shards, needed = file.shards_of(split), WINDOW + HORIZON + 1
        if len(shards) == 0:
            raise DataError(f"{file.path} has 0 {split} shards, expected at least 1")
        if file.info.steps < needed:
            raise DataError(f"{file.path} has {file.info.steps} steps, expected at least {needed}")
        series = cls.of(file, shards)
        if not (series.onset & series.usable).any():
            raise DataError(f"{file.path}: none of {len(shards)} {split} shards meets a clean onset, expected some")
        return series

    @classmethod
    def of(cls, file: LoadFile, shards: IntArray) -> "LoadSeries":
        """Read some shards, int64 [M]."""
        features = np.stack([file.array("features", int(shard)) for shard in shards])
        overload = np.stack([file.array("overload", int(shard)) for shard in shards])
        found = [labels(row) for row in overload]
        return cls(
            shards=shards,
            features=features,
            overload=overload == 1,
            ahead=np.stack([each.ahead for each in found]),
            clean=np.stack([each.clean for each in found]),
        )

    @property
    def onset(self) -> BoolArray:
        """Whether overload comes to a shard that had none for an hour, bool [M, T]."""
        onset: BoolArray = self.ahead & self.clean
        return onset

    @property
    def usable(self) -> BoolArray:
        """Whether a window may end here, bool [M, T]."""
        usable: BoolArray = np.zeros(self.ahead.shape, dtype=bool)
        usable[:, WINDOW - 1 : -HORIZON] = True
        return usable

    def near(self) -> BoolArray:
        """Whether a window that ends here is near a clean onset, bool [M, T]."""
        num_steps = self.ahead.shape[1]
        begins = self.onset.copy()
        begins[:, 1:] &= ~self.onset[:, :-1]
        near = np.zeros_like(begins)
        for shard, step in np.argwhere(begins):
            near[shard, step : min(step + NEAR_BEFORE + NEAR_AFTER, num_steps)] = True
        return near & self.usable

    def windows(self, shards: IntArray, ends: IntArray) -> Windows:
        """Return windows by the place of their shard in this split and their last step, int64 [B] each."""
        steps = ends[:, None] + np.arange(1 - WINDOW, 2)
        judged = steps[:, FIRST:WINDOW]
        return Windows(
            metrics_BWD=torch.from_numpy(self.features[shards[:, None], steps]),
            ahead_BS=torch.from_numpy(self.ahead[shards[:, None], judged].astype(np.float32)),
            clean_BS=torch.from_numpy(self.clean[shards[:, None], judged]),
        )


@dataclass(frozen=True, kw_only=True)
class PoissonWindows:
    """Batches in which every window of a split is drawn on its own.

    Attributes:
        series: The split.
        near: int64 [N], windows near a clean onset, by ``shard * T + end``.
        far: int64 [N'], the others.
        near_rate: Probability of each near one.
        far_rate: Probability of each other one.
    """

    series: LoadSeries
    near: IntArray
    far: IntArray
    near_rate: float
    far_rate: float

    @classmethod
    def of(cls, series: LoadSeries, *, expected_batch: int) -> "PoissonWindows":
        """Set the rates so that half of the expected batch is near.

        Raises:
            DataError: If the split has fewer windows of either kind than that.
        """
        is_near = series.near()
        near, far = np.flatnonzero(is_near), np.flatnonzero(series.usable & ~is_near)
        half = expected_batch / 2
        for kind, found in (("near a clean onset", near), ("far from any", far)):
            if len(found) < half:
                raise DataError(f"{len(found)} windows are {kind}, expected at least {half:g} (half of a batch)")
        return cls(series=series, near=near, far=far, near_rate=half / len(near), far_rate=half / len(far))

    def draw(self, rng: np.random.Generator) -> Windows:
        """Draw a batch; its size varies around the expected one."""
        drawn = [
            rng.choice(group, size=rng.binomial(len(group), rate), replace=False)
            for group, rate in ((self.near, self.near_rate), (self.far, self.far_rate))
        ]
        return self._take(np.concatenate(drawn))

    def fixed(self, rng: np.random.Generator, *, size: int) -> Windows:
        """Draw ``size`` windows without replacement, half of them near: for validation."""
        near = min(size // 2, len(self.near))
        far = min(size - near, len(self.far))
        return self._take(
            np.concatenate(
                [rng.choice(self.near, size=near, replace=False), rng.choice(self.far, size=far, replace=False)]
            )
        )

    def offsets(self) -> FloatArray:
        """Return log(R_c1 / R_c0) of steps that are not clean and of those that are, float64 [2]."""
        rate: FloatArray = np.zeros(self.series.ahead.shape)
        rate.reshape(-1)[self.near], rate.reshape(-1)[self.far] = self.near_rate, self.far_rate
        total = np.concatenate([np.zeros((len(rate), 1)), np.cumsum(rate, axis=1)], axis=1)
        step = np.arange(rate.shape[1])
        until = np.minimum(step + WINDOW - FIRST, rate.shape[1])
        drawn = total[:, until] - total[:, step]
        return np.array(
            [
                np.log(_mean(drawn, self.series.ahead & kind) / _mean(drawn, ~self.series.ahead & kind))
                for kind in (~self.series.clean, self.series.clean)
            ]
        )

    def _take(self, places: IntArray) -> Windows:
        shards, ends = np.divmod(places, self.series.ahead.shape[1])
        return self.series.windows(shards, ends)


def fit_scale(series: LoadSeries) -> LoadScale:
    """Return how the metrics of a split lie; a metric that never changes gets the scale 1."""
    wide = series.features.reshape(-1, series.features.shape[-1])
    logs = np.log1p(np.maximum(wide, 0.0))
    change = np.sqrt(np.square(np.diff(series.features, axis=1)).mean(axis=(0, 1), dtype=np.float64))
    return LoadScale(
        mean=wide.mean(axis=0, dtype=np.float64),
        std=_no_zero(wide.std(axis=0, dtype=np.float64)),
        log_mean=logs.mean(axis=0, dtype=np.float64),
        log_std=_no_zero(logs.std(axis=0, dtype=np.float64)),
        change=_no_zero(change),
    )


def _no_zero(values: FloatArray) -> FloatArray:
    return np.where(values > 0, values, 1.0)


def _mean(values: FloatArray, where: BoolArray) -> float:
    """Return the mean of some values; a class without a step counts as drawn at rate 1."""
    return float(values[where].mean()) if where.any() and values[where].any() else 1.0
