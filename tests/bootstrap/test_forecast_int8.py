"""The int8 file forecasts no change where the model does: what rounding moves on average is taken off.

Shapes: N windows, D metrics.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from nerv_fl.bootstrap.forecast_evaluate import forecast, torch_predict
from nerv_fl.bootstrap.forecast_int8 import EVERY, export_corrected
from nerv_fl.bootstrap.forecast_windows import Places
from nerv_fl.models.forecaster import WINDOW, Forecaster, LoadScale
from nerv_fl.models.forecaster_files import OnnxForecaster, export_int8
from nerv_fl.rng import torch_stream
from nerv_fl.types import FloatArray
from tests.bootstrap.forecast_load import one_overload, series_of

SERIES = series_of(one_overload(num_shards=4, num_steps=200))
PLACES = Places(shards=np.repeat(np.arange(4), 100), ends=np.tile(np.arange(WINDOW, WINDOW + 100), 4))


@pytest.fixture
def model() -> Forecaster:
    """A model whose head magnifies what rounding does to the LSTM's states, far from 0."""
    model = Forecaster(LoadScale.unit(), width=12)
    model.draw_parameters(torch_stream(1, "int8"), overload_rate=0.1)
    with torch.no_grad():
        model.change.fill_(10.0)
        model.metrics_head.weight.mul_(30.0)
        model.metrics_head.bias.fill_(20.0)
    return model.eval()


def moved(model: Forecaster, path: Path, *, places: Places) -> FloatArray:
    """Return by how much int8 moves each metric, the median over windows, float64 [D]."""
    rounded_ND, exact_ND = (forecast(each, SERIES, places)[0] for each in (OnnxForecaster(path), torch_predict(model)))
    return np.median(rounded_ND.astype(np.float64) - exact_ND, axis=0)


def test_what_rounding_moves_is_taken_off(model: Forecaster, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    some = Places(shards=PLACES.shards[::EVERY], ends=PLACES.ends[::EVERY])
    size = export_int8(model, tmp_path / "plain.onnx")
    assert export_corrected(model, tmp_path / "corrected.onnx", series=SERIES, places=PLACES) == size
    plain_D, corrected_D = (moved(model, tmp_path / f"{name}.onnx", places=some) for name in ("plain", "corrected"))
    assert np.abs(plain_D).max() > 0.05
    assert np.abs(corrected_D).max() < 1e-3
    assert np.abs(moved(model, tmp_path / "corrected.onnx", places=PLACES)).max() < np.abs(plain_D).max()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_same_model_is_the_same_file(model: Forecaster, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_corrected(model, tmp_path / name, series=SERIES, places=PLACES)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
