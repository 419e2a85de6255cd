"""The windows of an examination: drawn evenly, on clean onsets, and every minute of whole days.

Shapes: N windows, M shards, T steps.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nerv_fl.bootstrap.forecast_data import LoadSeries
from nerv_fl.bootstrap.forecast_measures import episodes
from nerv_fl.data.load_schema import HORIZON
from nerv_fl.errors import DataError
from nerv_fl.models.forecaster import WINDOW
from nerv_fl.rng import stream
from nerv_fl.types import BoolArray, IntArray
from nerv_fl.validation import in_range

DAY: Final = 1440
FITTED: Final = 100_000
"""Windows of a kind on which logistic regression is fitted."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How many windows an examination takes: uniform, clean without overload ahead, and watched shard-days."""

    uniform: int = 20_000
    clean: int = 20_000
    days: int = 100

    def __post_init__(self) -> None:
        """Refuse samples that measure nothing."""
        for name in ("uniform", "clean", "days"):
            in_range(name, getattr(self, name), low=1, high=10**8)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Windows of a split: the place of their shard in it and their last step, int64 [N]."""

    shards: IntArray
    ends: IntArray

    def of(self, values: BoolArray) -> BoolArray:
        """Return the values [M, T] at the windows' last steps, [N]."""
        return np.asarray(values[self.shards, self.ends])


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The windows of a split to be forecast; `watched` holds whole days, one after the other."""

    series: LoadSeries
    uniform: Places
    clean: Places
    watched: Places

    @classmethod
    def of(cls, series: LoadSeries, *, amounts: Amounts, seed: int) -> "Examination":
        """Draw the windows of a split, as many as there are if there are too few.

        Raises:
            DataError: If no whole day can be watched.
        """
        usable = series.usable
        before, calm = usable & series.onset, usable & series.clean & ~series.ahead
        starts = np.arange(WINDOW - 1, usable.shape[1] - HORIZON - DAY + 1, DAY)
        if len(starts) == 0:
            raise DataError(f"shards of {usable.shape[1]} steps, expected at least {WINDOW + DAY + HORIZON - 1}: a day")
        days = _drawn(np.ones((len(usable), len(starts)), dtype=bool), amounts.days, seed=seed, name="days")
        minutes = starts[days.ends][:, None] + np.arange(DAY)
        negatives = _drawn(calm, amounts.clean, seed=seed, name="clean")
        onset = _places(np.flatnonzero(before), usable.shape[1])
        return cls(
            series=series,
            uniform=_drawn(usable, amounts.uniform, seed=seed, name="uniform"),
            clean=Places(
                shards=np.concatenate([onset.shards, negatives.shards]),
                ends=np.concatenate([onset.ends, negatives.ends]),
            ),
            watched=Places(shards=np.repeat(days.shards, DAY), ends=minutes.reshape(-1)),
        )


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What an examination holds."""

    shards: int
    uniform: int
    uniform_ahead: int
    clean: int
    clean_ahead: int
    episodes: int
    shard_days: float


def count(examination: Examination) -> Counts:
    """Count an examination's windows, its episodes and the days watched."""
    ahead, clean_ahead = (place.of(examination.series.ahead) for place in (examination.uniform, examination.clean))
    return Counts(
        shards=len(examination.series.shards),
        uniform=len(ahead),
        uniform_ahead=int(ahead.sum()),
        clean=len(clean_ahead),
        clean_ahead=int(clean_ahead.sum()),
        episodes=len(episodes(examination.series.usable & examination.series.onset).shards),
        shard_days=len(examination.watched.ends) / DAY,
    )


def last_minute_places(train: LoadSeries, *, seed: int) -> tuple[Places, Places]:
    """Return what logistic regression is fitted on: windows drawn evenly, and clean ones, half of them onsets."""
    usable = train.usable
    onset, calm = (usable & train.clean & kind for kind in (train.ahead, ~train.ahead))
    drawn = [_drawn(where, FITTED, seed=seed, name="last minute") for where in (usable, onset, calm)]
    clean = Places(
        shards=np.concatenate([drawn[1].shards, drawn[2].shards]),
        ends=np.concatenate([drawn[1].ends, drawn[2].ends]),
    )
    return drawn[0], clean


def _places(flat: IntArray, num_steps: int) -> Places:
    shards, ends = np.divmod(flat, num_steps)
    return Places(shards=shards, ends=ends)


def _drawn(allowed: BoolArray, size: int, *, seed: int, name: str) -> Places:
    """Draw places without replacement, in their order."""
    flat = np.flatnonzero(allowed)
    chosen = stream(seed, "forecaster", "examination", name).choice(flat, size=min(size, len(flat)), replace=False)
    return _places(np.sort(chosen), allowed.shape[1])
