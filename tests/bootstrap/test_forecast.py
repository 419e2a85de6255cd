"""The forecaster from data to files, on few shards and few units, and what stops it.

Shapes: B windows.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datagen.sharding import generate_load
from nerv_fl.bootstrap.forecast import Forecasting, train_forecaster
from nerv_fl.bootstrap.forecast_data import LoadSeries
from nerv_fl.bootstrap.forecast_evaluate import forecast as forecast_windows
from nerv_fl.bootstrap.forecast_evaluate import torch_predict
from nerv_fl.bootstrap.forecast_fit import Evaluation, ForecastSettings
from nerv_fl.bootstrap.forecast_report import report_lines
from nerv_fl.bootstrap.forecast_windows import Amounts, Examination
from nerv_fl.data.load import LoadFile
from nerv_fl.errors import CheckpointError, DataError
from nerv_fl.models.forecaster_files import OnnxForecaster, load_forecaster

SETTINGS = ForecastSettings(
    steps=60, batch_size=32, warmup_steps=5, evaluate_every=20, validation_windows=64, learning_rate=0.01
)
AMOUNTS = Amounts(uniform=600, clean=400, days=2)
WIDTH = 12
FILES = {
    "checkpoint.pt",
    "forecaster.int8.onnx",
    "forecaster.safetensors",
    "metrics.json",
    "recall.png",
    "reliability.png",
    "training.png",
}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("load") / "load.h5"
    generate_load(path, shards=60, steps=1600, seed=7)
    return path


def train(load: Path, out: Path, *, settings: ForecastSettings = SETTINGS, resume: bool = False) -> Forecasting:
    return train_forecaster(load, out=out, settings=settings, amounts=AMOUNTS, width=WIDTH, resume=resume)


@pytest.fixture(scope="module")
def trained(load: Path, tmp_path_factory: pytest.TempPathFactory) -> Forecasting:
    return train(load, tmp_path_factory.mktemp("trained") / "run")


def test_everything_is_written(trained: Forecasting, load: Path) -> None:
    assert {path.name for path in trained.folder.iterdir()} == FILES
    table = json.loads((trained.folder / "metrics.json").read_text())
    assert table["best"]["step"] == trained.best.step
    assert table["measures"]["int8"]["clean_recall_5"] == trained.measures["int8"].clean_recall_5
    assert sum(table["measures"]["float32"]["reliability"]["count"]) == AMOUNTS.uniform
    assert [each["step"] for each in table["history"]] == [0, 20, 40, 60]
    facts = load_forecaster(trained.folder / "forecaster.safetensors")[1]
    assert facts["best_step"] == trained.best.step
    with LoadFile(load) as file:
        assert facts["content_sha256"] == file.info.content_sha256
    assert trained.size_bytes == (trained.folder / "forecaster.int8.onnx").stat().st_size


def test_training_has_learned_something(trained: Forecasting) -> None:
    assert trained.measures["float32"].all_recall_5 > 0.6
    assert trained.best.loss < 0.9 * json.loads((trained.folder / "metrics.json").read_text())["history"][0]["loss"]


def test_what_the_files_hold_is_what_was_examined(trained: Forecasting, load: Path) -> None:
    """Mean forecasts of calibrated probabilities are the rate of overload on validation shards, as Platt's are."""
    model, _ = load_forecaster(trained.folder / "forecaster.safetensors")
    with LoadFile(load) as file:
        series = LoadSeries.read(file, "validation")
    seen = Examination.of(series, amounts=AMOUNTS, seed=SETTINGS.seed)
    exact = forecast_windows(torch_predict(model), series, seen.uniform)[1]
    small = forecast_windows(OnnxForecaster(trained.folder / "forecaster.int8.onnx"), series, seen.uniform)[1]
    assert exact.mean() == pytest.approx(seen.uniform.of(series.ahead).mean(), abs=1e-4)
    assert 0 < np.abs(exact - small).max() < 0.1


def test_thresholds_come_from_validation_shards(trained: Forecasting, load: Path) -> None:
    model, _ = load_forecaster(trained.folder / "forecaster.safetensors")
    with LoadFile(load) as file:
        series = LoadSeries.read(file, "validation")
    seen = Examination.of(series, amounts=AMOUNTS, seed=SETTINGS.seed)
    score = forecast_windows(torch_predict(model), series, seen.clean)[1]
    negatives = score[~seen.clean.of(series.ahead)]
    met = (negatives > trained.thresholds["float32"].clean_5).mean()
    assert 0.04 < met <= 0.05


def test_the_report_gives_every_measure_its_target(trained: Forecasting) -> None:
    lines = report_lines(trained)
    assert lines[0] == (
        "| measure | float32 | int8 | logistic, clean windows | logistic, all windows | target | reached |"
    )
    (recall,) = [line for line in lines if line.startswith("| clean onsets, recall at 5 %")]
    value = trained.measures["float32"].clean_recall_5
    assert f"| {value:.1%} |" in recall
    assert recall.endswith("| >= 95.0% | yes |") == (min(value, trained.measures["int8"].clean_recall_5) >= 0.95)
    assert sum("over no change's | " in line for line in lines) == 11
    assert f"int8 file {trained.size_bytes:,} bytes" in lines[-2]
    assert lines[-2].endswith("(target +-2 %: missed).")


# --- Same bits --------------------------------------------------------------------------------------------------------


def same_files(one: Path, other: Path) -> bool:
    names = ("forecaster.safetensors", "forecaster.int8.onnx", "recall.png")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


class KilledError(Exception):
    """What stops a training half-way."""


def kill_after_two(evaluation: Evaluation, num_steps: int) -> None:
    if evaluation.step == 40:
        raise KilledError


def test_a_killed_training_goes_on_to_the_same_bytes(trained: Forecasting, load: Path, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train_forecaster(
            load, out=tmp_path / "run", settings=SETTINGS, amounts=AMOUNTS, width=WIDTH, told=kill_after_two
        )
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint.pt"}
    again = train(load, tmp_path / "run", resume=True)
    assert same_files(again.folder, trained.folder)
    assert again.measures["int8"].curve == trained.measures["int8"].curve


def test_a_finished_training_is_examined_again(trained: Forecasting, load: Path) -> None:
    assert train(load, trained.folder, resume=True).measures["float32"].curve == trained.measures["float32"].curve


# --- DP ---------------------------------------------------------------------------------------------------------------


def test_private_training_states_its_epsilon(load: Path, tmp_path: Path) -> None:
    result = train(load, tmp_path / "run", settings=replace(SETTINGS, steps=20, dp=True))
    assert result.epsilon is not None
    assert 0 < result.epsilon < 100
    facts = load_forecaster(tmp_path / "run" / "forecaster.safetensors")[1]
    assert (facts["dp"], facts["epsilon"], facts["delta"]) == (True, result.epsilon, 1e-5)


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_training_is_refused(trained: Forecasting, load: Path) -> None:
    message = f"{trained.folder} holds a training, expected a new folder; --resume goes on with it"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        train(load, trained.folder)


def test_a_checkpoint_of_other_settings_is_refused(trained: Forecasting, load: Path) -> None:
    message = (
        f"{trained.folder / 'checkpoint.pt'} belongs to a training with learning_rate 0.01, expected 0.02: "
        "use the same settings and data, or another folder"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        train(load, trained.folder, settings=replace(SETTINGS, learning_rate=0.02), resume=True)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_what_is_no_checkpoint_is_refused(load: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "checkpoint.pt"
    if content is not None:
        path.write_bytes(content)
    message = rf"^{re.escape(str(path))} cannot be read \(.*\), expected a checkpoint of the forecaster$"
    with pytest.raises(CheckpointError, match=message):
        train(load, tmp_path, resume=True)


def test_weights_that_stop_being_finite_leave_the_best(
    load: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ForecastSettings, "rate", lambda _, step: float("nan") if step > 20 else 0.01)
    with pytest.raises(DataError, match=r"^training stopped being finite at step 22 .+ those of step (0|20)$"):
        train(load, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint.pt", "forecaster.safetensors"}
    model, facts = load_forecaster(tmp_path / "run" / "forecaster.safetensors")
    assert facts == {"best_step": 20, "calibrated": False}
    assert model.width == WIDTH


def test_a_full_disk_leaves_the_earlier_checkpoint(load: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(data)

    monkeypatch.setattr("nerv_fl.bootstrap.forecast_checkpoint.write_atomically", full)
    with pytest.raises(OSError, match="No space left on device"):
        train(load, tmp_path / "run")
    monkeypatch.undo()
    assert train(load, tmp_path / "run", resume=True).num_steps == 60


def test_shards_shorter_than_a_day_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "load.h5"
    generate_load(path, shards=60, steps=400, seed=7)
    with pytest.raises(DataError, match=r"^shards of 400 steps, expected at least 1509: a day$"):
        train(path, tmp_path / "run", settings=replace(SETTINGS, steps=1))
