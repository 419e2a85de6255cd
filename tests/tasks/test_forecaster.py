"""The forecaster as a task: its windows against the central training's, and what it refuses.

Shapes: B windows, S judged steps, D metrics.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datagen.sharding import generate_load
from nerv_fl.bootstrap.forecast_data import LoadSeries, fit_scale
from nerv_fl.config import RunConfig, build
from nerv_fl.data.load import LoadFile
from nerv_fl.errors import CheckpointError, ConfigError, DataError
from nerv_fl.models.forecaster import METRICS, Forecaster, LoadScale
from nerv_fl.models.forecaster_files import save_forecaster
from nerv_fl.privacy.layers import per_sample_gradients
from nerv_fl.rng import torch_stream
from nerv_fl.tasks.forecaster import AROUND, ForecasterTask, constants_of

CONFIG = build({"task": "forecaster", "model.width": 6})
SHARDS, WINDOWS = 3, 400


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("load") / "load.h5"
    generate_load(path, shards=SHARDS, steps=WINDOWS + AROUND, seed=25)
    return path


@pytest.fixture(scope="module")
def series(path: Path) -> LoadSeries:
    with LoadFile(path) as file:
        return LoadSeries.of(file, np.arange(SHARDS))


@pytest.fixture(scope="module")
def task(series: LoadSeries) -> ForecasterTask:
    return ForecasterTask(CONFIG, constants_of(fit_scale(series), overload_rate=0.03))


@pytest.fixture(scope="module")
def model(task: ForecasterTask) -> Forecaster:
    made = task.build()
    task.draw_parameters(made, torch_stream(2, "weights"))
    return made


def test_samples_are_the_windows_of_the_central_training(task: ForecasterTask, path: Path, series: LoadSeries) -> None:
    samples = np.array([0, WINDOWS - 1, 2 * WINDOWS + 17, WINDOWS, 5])
    shards, places = np.divmod(samples, WINDOWS)
    expected = series.windows(shards, places + 59)

    with task.open(path) as data:
        assert task.size_of(data) == (SHARDS, WINDOWS)
        found = task.read(data, samples)

    assert found.num_samples == 5
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


def test_the_loss_is_overload_and_a_quarter_of_the_metrics(task: ForecasterTask, path: Path, model: Forecaster) -> None:
    with task.open(path) as data:
        batch = task.read(data, np.arange(0, SHARDS * WINDOWS, 50))
    columns = task.columns(model, batch)

    assert torch.equal(columns["loss"], columns["overload"] + 0.25 * columns["metrics"])
    assert torch.equal(columns["loss"], task.losses(model, batch))
    alone = torch.cat([task.losses(model, batch.part(row, row + 1)) for row in range(batch.num_samples)])
    torch.testing.assert_close(alone, columns["loss"])


def test_per_sample_gradients_are_those_of_each_window_alone(
    task: ForecasterTask, path: Path, model: Forecaster
) -> None:
    with task.open(path) as data:
        batch = task.read(data, np.array([3, 700]))
    with per_sample_gradients(model):
        task.objective(model)(batch).sum().backward()
    found = [vars(parameter)["grad_sample"].clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad_sample = None  # type: ignore[attr-defined]

    for row in range(2):
        expected = torch.autograd.grad(task.losses(model, batch.part(row, row + 1)).sum(), list(model.parameters()))
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine[row], theirs, rtol=1e-4, atol=1e-6)


def test_trivial_models_by_hand(task: ForecasterTask, path: Path, series: LoadSeries) -> None:
    samples = np.arange(0, SHARDS * WINDOWS, 7)
    with task.open(path) as data:
        found = task.trivial(data, data, samples)
        batch = task.read(data, samples)

    rate = series.ahead.mean()
    ahead = batch.ahead_BS.double().numpy()
    overload = -(ahead * np.log(rate) + (1 - ahead) * np.log(1 - rate)).mean()
    now, after = batch.metrics_BWD[:, 29:-1].double().numpy(), batch.metrics_BWD[:, 30:].double().numpy()
    metrics = (np.abs(after - now) / task.scale.change).mean()
    assert found["overload"] == pytest.approx(overload, rel=1e-5)
    assert found["metrics"] == pytest.approx(metrics, rel=1e-5)
    assert found["loss"] == pytest.approx(overload + 0.25 * metrics, rel=1e-5)


def test_a_start_comes_back_with_its_constants(task: ForecasterTask, model: Forecaster, tmp_path: Path) -> None:
    save_forecaster(tmp_path / "start.safetensors", model, facts={"overload_rate": 0.03})

    theta_P, constants = ForecasterTask.read_start(tmp_path / "start.safetensors", CONFIG)

    again = ForecasterTask(CONFIG, constants)
    assert len(theta_P) == model.num_parameters
    assert again.overload_rate == 0.03
    np.testing.assert_allclose(again.scale.change, task.scale.change, rtol=1e-6)


def test_a_start_of_another_width_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    save_forecaster(path, Forecaster(LoadScale.unit(), width=7), facts={})

    with pytest.raises(CheckpointError) as caught:
        ForecasterTask.read_start(path, CONFIG)

    assert str(caught.value) == f"{path} has width 7, expected 6 (model.width)"


def test_a_file_shorter_than_a_window_is_refused(task: ForecasterTask, tmp_path: Path) -> None:
    path = tmp_path / "short.h5"
    generate_load(path, shards=2, steps=AROUND, seed=5)

    with pytest.raises(DataError, match=rf"short\.h5 has {AROUND} steps, expected at least {AROUND + 1}$"):
        task.open(path)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mean", None, f"expected {METRICS} finite numbers"),
        ("mean", [0.0] * 10, f"expected {METRICS} finite numbers"),
        ("log_mean", [float("nan")] * METRICS, f"expected {METRICS} finite numbers"),
        ("std", [0.0] * METRICS, "expected numbers above 0"),
        ("change", [-1.0] * METRICS, "expected numbers above 0"),
        ("overload_rate", 0.0, "expected a number in [0.0001, 0.9999]"),
        ("overload_rate", "often", "expected a number in [0.0001, 0.9999]"),
    ],
)
def test_constants_that_would_break_the_loss_are_refused(name: str, value: Any, expected: str) -> None:
    constants = {**constants_of(LoadScale.unit(), overload_rate=0.03), name: value}

    with pytest.raises(ConfigError) as caught:
        ForecasterTask(RunConfig(), constants)

    assert str(caught.value).startswith(f"{name} is ")
    assert str(caught.value).endswith(expected)
