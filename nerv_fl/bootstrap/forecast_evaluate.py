"""The forecaster's examination on shards that training never saw, beside models that know one minute only.

Three samples of windows: *uniform*, drawn evenly, for recall over all windows, calibration and the errors of the
metrics; *clean*, all minutes before the episodes and clean minutes without, for recall on clean onsets; and *watched*,
every minute of whole days, for false alarms. Thresholds for 5 % and 1 % false alarms are fixed on the uniform and clean
windows of validation shards, and then applied to test shards as they are.

Shapes: N windows, B of them at a time, T steps, D metrics.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from nerv_fl.bootstrap.forecast_data import LoadSeries
from nerv_fl.bootstrap.forecast_measures import (
    ALARM,
    Reliability,
    Scores,
    count_false_alarms,
    episodes,
    leads,
    log_loss,
    recall_above,
    reliability,
    threshold_at,
)
from nerv_fl.bootstrap.forecast_windows import DAY, Examination, Places
from nerv_fl.data.load_schema import FEATURES
from nerv_fl.models.forecaster import WINDOW, Forecaster
from nerv_fl.models.forecaster_files import Forecasts
from nerv_fl.types import BoolArray, IntArray

Predict = Callable[[npt.NDArray[np.float32]], Forecasts]
"""A model: raw metrics, float32 (B, 60, 11), to the next metrics and the probability of overload."""
CHUNK: Final = 64
CURVE: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
"""False-alarm rates of the recall curve."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A model's forecasts of an examination: next metrics of the uniform windows, and probabilities of each sample."""

    next_ND: npt.NDArray[np.float32]
    uniform: Scores
    clean: Scores
    watched: Scores


def answer(predict: Predict, examination: Examination, *, watched: bool = True) -> Answers:
    """Let a model forecast an examination's windows; without ``watched``, none of those."""
    next_ND, uniform = forecast(predict, examination.series, examination.uniform)
    _, clean = forecast(predict, examination.series, examination.clean)
    days = forecast(predict, examination.series, examination.watched)[1] if watched else np.zeros(0)
    return Answers(next_ND=next_ND, uniform=uniform, clean=clean, watched=days)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Probabilities that 5 % of all windows, and 5 % and 1 % of clean windows, without overload ahead exceed."""

    all_5: float
    clean_5: float
    clean_1: float

    @classmethod
    def of(cls, answers: Answers, examination: Examination) -> "Thresholds":
        """Fix the thresholds, on validation shards."""
        uniform, clean = (place.of(examination.series.ahead) for place in (examination.uniform, examination.clean))
        return cls(
            all_5=threshold_at(answers.uniform, uniform, false_alarms=0.05),
            clean_5=threshold_at(answers.clean, clean, false_alarms=0.05),
            clean_1=threshold_at(answers.clean, clean, false_alarms=0.01),
        )


@dataclass(frozen=True, kw_only=True)
class Measures:
    """How a model did; every rate is a part, of 1.

    Attributes:
        all_recall_5: Recall over all windows at the threshold for 5 % false alarms.
        all_false_5: False alarms at that threshold on these shards.
        clean_recall_5: Recall on clean onsets at the threshold for 5 %.
        clean_false_5: False alarms on these shards' clean windows.
        clean_recall_1: The same at the threshold for 1 %.
        clean_false_1: The same.
        found: Episodes with an alarm at p > 0.92 in the 10 minutes before.
        lead_min: Median minutes from the first of those alarms, over the episodes found; 0 if there is none.
        false_alarms_day: False alarms at p > 0.92, a shard and day.
        error_ratio: Of each metric, the mean absolute error over that of predicting no change.
        calibration_error: Expected calibration error over uniform windows.
        log_loss: Cross-entropy over uniform windows, in nats.
        reliability: The groups behind the calibration error.
        curve: Recall on clean onsets at the false-alarm rates of `CURVE`, thresholds from these same windows.
    """

    all_recall_5: float
    all_false_5: float
    clean_recall_5: float
    clean_false_5: float
    clean_recall_1: float
    clean_false_1: float
    found: float
    lead_min: float
    false_alarms_day: float
    error_ratio: dict[str, float]
    calibration_error: float
    log_loss: float
    reliability: Reliability
    curve: tuple[float, ...]


def measure(answers: Answers, examination: Examination, thresholds: Thresholds) -> Measures:
    """Mark a model's forecasts, at thresholds fixed elsewhere."""
    ahead, clean_ahead = (place.of(examination.series.ahead) for place in (examination.uniform, examination.clean))
    all_recall, all_false = recall_above(answers.uniform, ahead, threshold=thresholds.all_5)
    recall_5, false_5 = recall_above(answers.clean, clean_ahead, threshold=thresholds.clean_5)
    recall_1, false_1 = recall_above(answers.clean, clean_ahead, threshold=thresholds.clean_1)
    lead = _leads(answers, examination)
    groups = reliability(answers.uniform, ahead)
    return Measures(
        all_recall_5=all_recall,
        all_false_5=all_false,
        clean_recall_5=recall_5,
        clean_false_5=false_5,
        clean_recall_1=recall_1,
        clean_false_1=false_1,
        found=float((lead > 0).mean()),
        lead_min=float(np.median(lead[lead > 0])) if lead.any() else 0.0,
        false_alarms_day=_false_alarms(answers, examination),
        error_ratio=_error_ratio(answers, examination),
        calibration_error=groups.error,
        log_loss=log_loss(answers.uniform, ahead),
        reliability=groups,
        curve=tuple(_recall_at(answers.clean, clean_ahead, false_alarms=rate) for rate in CURVE),
    )


class LastMinute:
    """Logistic regression on the last minute's metrics; of the next minute it says that nothing changes.

    Args:
        series: Train shards.
        places: Windows to fit on.
    """

    def __init__(self, series: LoadSeries, places: Places) -> None:
        self._model: Pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        self._model.fit(series.features[places.shards, places.ends], places.of(series.ahead))

    def __call__(self, metrics_BTD: npt.NDArray[np.float32]) -> Forecasts:
        """Forecast from the last minute of each window."""
        return metrics_BTD[:, -1], self._model.predict_proba(metrics_BTD[:, -1])[:, 1]


def torch_predict(model: Forecaster) -> Predict:
    """Return a forecaster as what an examination takes."""

    def predict(metrics_BTD: npt.NDArray[np.float32]) -> Forecasts:
        with torch.no_grad():
            next_BD, overload_B = model(torch.from_numpy(metrics_BTD))
        return next_BD.numpy(), overload_B.numpy()

    return predict


def forecast(predict: Predict, series: LoadSeries, places: Places) -> Forecasts:
    """Let a model forecast windows, a chunk at a time."""
    back = np.arange(1 - WINDOW, 1)
    parts = [
        predict(
            series.features[places.shards[start : start + CHUNK, None], places.ends[start : start + CHUNK, None] + back]
        )
        for start in range(0, len(places.ends), CHUNK)
    ]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _leads(answers: Answers, examination: Examination) -> IntArray:
    onset = examination.series.usable & examination.series.onset
    alarm = np.zeros_like(onset)
    alarm[examination.clean.shards, examination.clean.ends] = answers.clean > ALARM
    return leads(alarm, episodes(onset))


def _false_alarms(answers: Answers, examination: Examination) -> float:
    """Count day by day: an alarm that goes on past midnight counts on either."""
    overload, ahead = (examination.watched.of(item) for item in (examination.series.overload, examination.series.ahead))
    alarm = (answers.watched > ALARM) & ~overload
    days = [slice(start, start + DAY) for start in range(0, len(alarm), DAY)]
    return sum(count_false_alarms(alarm[day], ahead[day]) for day in days) / len(days)


def _error_ratio(answers: Answers, examination: Examination) -> dict[str, float]:
    shards, ends = examination.uniform.shards, examination.uniform.ends
    now_ND, next_ND = (examination.series.features[shards, ends + later].astype(np.float64) for later in (0, 1))
    missed_D, changed_D = (np.abs(guess - next_ND).mean(axis=0) for guess in (answers.next_ND, now_ND))
    return {name: float(ratio) for name, ratio in zip(FEATURES, missed_D / np.maximum(changed_D, 1e-12), strict=True)}


def _recall_at(score: Scores, ahead: BoolArray, *, false_alarms: float) -> float:
    return recall_above(score, ahead, threshold=threshold_at(score, ahead, false_alarms=false_alarms))[0]
