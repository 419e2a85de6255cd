"""Marks of models whose worth is known: one that sees the label, one that always cries wolf, one minute's regression.

Shapes: B windows, T = 60 steps, D = 11 metrics.
"""

from dataclasses import replace

import numpy as np
import pytest

from nerv_fl.bootstrap.forecast_data import LoadSeries
from nerv_fl.bootstrap.forecast_evaluate import (
    CURVE,
    LastMinute,
    Measures,
    Predict,
    Thresholds,
    answer,
    measure,
    torch_predict,
)
from nerv_fl.bootstrap.forecast_windows import Amounts, Examination, last_minute_places
from nerv_fl.data.load_schema import FEATURES
from nerv_fl.models.forecaster import Forecaster, LoadScale
from nerv_fl.models.forecaster_files import Forecasts
from nerv_fl.rng import torch_stream
from nerv_fl.types import Vector
from tests.bootstrap.forecast_load import one_overload, series_of

LABEL, CLOCK = 0, 1


def series() -> LoadSeries:
    """Two shards of a day, overloaded once; metric 0 is the label of the minute, metric 1 counts the minutes."""
    found = series_of(one_overload(num_steps=1509, start=800))
    features = found.features.copy()
    features[..., LABEL] = found.ahead
    features[..., CLOCK] = np.arange(1509)
    return replace(found, features=features)


EXAMINATION = Examination.of(series(), amounts=Amounts(uniform=2000, clean=500, days=2), seed=7)
PERFECT = Thresholds(all_5=0.5, clean_5=0.5, clean_1=0.5)


def marks(predict: Predict, thresholds: Thresholds = PERFECT) -> Measures:
    return measure(answer(predict, EXAMINATION), EXAMINATION, thresholds)


def sees_all(metrics_BTD: Vector) -> Forecasts:
    after = metrics_BTD[:, -1].copy()
    after[:, CLOCK] += 1
    return after, metrics_BTD[:, -1, LABEL]


def test_one_who_sees_the_label_is_never_wrong() -> None:
    found = marks(sees_all)
    assert (found.all_recall_5, found.all_false_5) == (1.0, 0.0)
    assert (found.clean_recall_5, found.clean_recall_1, found.clean_false_1) == (1.0, 1.0, 0.0)
    assert (found.found, found.lead_min, found.false_alarms_day) == (1.0, 10.0, 0.0)
    assert found.calibration_error == 0.0
    assert found.log_loss == pytest.approx(1e-7, rel=0.01)
    assert found.error_ratio[FEATURES[CLOCK]] == 0.0
    assert found.error_ratio[FEATURES[5]] == 1.0
    assert found.curve == (1.0,) * len(CURVE)


def cries_wolf(metrics_BTD: Vector) -> Forecasts:
    return metrics_BTD[:, -1], np.full(len(metrics_BTD), 0.95, dtype=np.float32)


def test_one_who_always_cries_wolf_finds_all_at_a_price() -> None:
    """In each day one alarm before the overload, which is true, and one after it, which is false."""
    found = marks(cries_wolf)
    assert (found.found, found.lead_min, found.false_alarms_day) == (1.0, 10.0, 1.0)
    assert (found.all_recall_5, found.all_false_5) == (1.0, 1.0)
    rate = EXAMINATION.uniform.of(EXAMINATION.series.ahead).mean()
    assert found.calibration_error == pytest.approx(0.95 - rate)


def test_thresholds_are_those_of_their_own_windows() -> None:
    def by_clock(metrics_BTD: Vector) -> Forecasts:
        return metrics_BTD[:, -1], metrics_BTD[:, -1, CLOCK] / np.float32(2000)

    found = Thresholds.of(answer(by_clock, EXAMINATION, watched=False), EXAMINATION)
    at_those = marks(by_clock, found)
    assert 0.048 <= at_those.all_false_5 <= 0.05
    assert 0.046 <= at_those.clean_false_5 <= 0.05
    assert 0.008 <= at_those.clean_false_1 <= 0.01
    assert found.clean_5 < found.clean_1


def test_one_minute_s_regression_finds_what_one_minute_shows() -> None:
    evenly, _ = last_minute_places(EXAMINATION.series, seed=7)
    found = marks(LastMinute(EXAMINATION.series, evenly))
    assert found.clean_recall_5 == 1.0
    assert set(found.error_ratio.values()) == {1.0}


def test_a_module_answers_as_it_forecasts() -> None:
    model = Forecaster(LoadScale.unit(), width=3)
    model.draw_parameters(torch_stream(7, "weights"), overload_rate=0.05)
    next_BD, overload_B = torch_predict(model)(EXAMINATION.series.features[:, :60])
    assert (next_BD.shape, overload_B.shape) == ((2, 11), (2,))
