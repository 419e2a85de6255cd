"""The forecaster from data to files: train, calibrate, quantise, examine.

Writes into a folder: forecaster.safetensors, forecaster.int8.onnx, metrics.json, three figures, and checkpoint.pt, from
which an interrupted training goes on to the same bits.

Under DP, epsilon is that of one *window*, add or remove, drawn by Poisson sampling; windows are taken as fixed rows. A
minute enters up to 100 windows (the metrics of 61, the labels of the others) and a shard thousands, so this epsilon
protects neither. It covers the gradients alone: the scale of the metrics, the rates of the two kinds of windows, the
offsets, early stop, calibration and thresholds read the data as they are.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from nerv_fl.bootstrap.forecast_checkpoint import identity, read_progress, write_progress
from nerv_fl.bootstrap.forecast_data import LoadSeries, PoissonWindows, fit_scale
from nerv_fl.bootstrap.forecast_evaluate import (
    LastMinute,
    Measures,
    Predict,
    Thresholds,
    answer,
    forecast,
    measure,
    torch_predict,
)
from nerv_fl.bootstrap.forecast_fit import Evaluation, ForecastSettings, Lesson, Progress, Weights, epsilon, fit
from nerv_fl.bootstrap.forecast_int8 import export_corrected
from nerv_fl.bootstrap.forecast_measures import platt
from nerv_fl.bootstrap.forecast_plots import plot_all
from nerv_fl.bootstrap.forecast_windows import Amounts, Counts, Examination, count, last_minute_places
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import SPLITS
from nerv_fl.errors import CheckpointError, DataError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.models.forecaster import WIDTH, WINDOW, Forecaster
from nerv_fl.models.forecaster_files import Forecasts, OnnxForecaster, save_forecaster
from nerv_fl.rng import torch_stream
from nerv_fl.threads import use_one_thread

CHECKPOINT: Final = "checkpoint.pt"
WEIGHTS: Final = "forecaster.safetensors"
INT8: Final = "forecaster.int8.onnx"
METRICS_FILE: Final = "metrics.json"
Told = Callable[[Evaluation, int], None]
"""Called with each evaluation and the number of steps."""


@dataclass(frozen=True, kw_only=True)
class Forecasting:
    """What a training gave.

    Attributes:
        folder: Where its files are.
        best: Validation of the weights kept.
        num_steps: Steps taken.
        num_parameters: Weights learned.
        size_bytes: Of the int8 file.
        epsilon: Of a window at the configured delta; None without DP.
        seconds: Of this process, training and examination.
        counts: What the test shards were asked.
        thresholds: Fixed on validation shards, by model.
        measures: On test shards, by model.
    """

    folder: Path
    best: Evaluation
    num_steps: int
    num_parameters: int
    size_bytes: int
    epsilon: float | None
    seconds: dict[str, float]
    counts: Counts
    thresholds: dict[str, Thresholds]
    measures: dict[str, Measures]


def train_forecaster(
    data: Path,
    *,
    out: Path,
    settings: ForecastSettings,
    amounts: Amounts | None = None,
    width: int = WIDTH,
    resume: bool = False,
    told: Told | None = None,
) -> Forecasting:
    """Train the forecaster on the train shards of a load file, and examine it on its test shards.

    Args:
        data: Load file.
        out: Folder for the results; made if missing.
        settings: Of the training.
        amounts: Windows of the examinations.
        width: Units of each layer; other than 296 only for tests.
        resume: Go on from the folder's checkpoint; a finished training is examined again.
        told: Told of each evaluation.

    Raises:
        CheckpointError: If the folder holds a training and `resume` is not given, or one of other settings or data.
        DataError: If the data do not suffice, or training stops being finite; its best weights are then in the folder.
        OSError: If a file cannot be written.
    """
    use_one_thread()
    began = time.monotonic()
    _open_folder(out, resume=resume)
    with LoadFile(data) as file:
        belongs_to = identity(settings, content_sha256=file.info.content_sha256)
        train, validation, test = (LoadSeries.read(file, split) for split in SPLITS)
    lesson = _lesson(train, validation, settings=settings)
    model = _new_model(train, settings=settings, width=width)
    progress = _fit(model, lesson, settings, out=out, belongs_to=belongs_to, resume=resume, told=told)
    trained = time.monotonic()
    seen, unseen = _examinations(validation, test, amounts=amounts or Amounts(), seed=settings.seed)
    _calibrate(model, progress.best_weights, examination=seen)
    spent = epsilon(lesson, settings, num_steps=progress.step) if settings.dp else None
    _save(model, progress, out=out, settings=settings, epsilon_spent=spent, data=belongs_to["content_sha256"])
    size = export_corrected(model, out / INT8, series=seen.series, places=seen.uniform)
    thresholds, measures = _examine(_models(model, train, out=out, settings=settings), seen, unseen)
    result = Forecasting(
        folder=out,
        best=progress.best,
        num_steps=progress.step,
        num_parameters=model.num_parameters,
        size_bytes=size,
        epsilon=spent,
        seconds={"training": trained - began, "examination": time.monotonic() - trained},
        counts=count(unseen),
        thresholds=thresholds,
        measures=measures,
    )
    _write_results(result, progress, belongs_to=belongs_to)
    return result


def _examinations(
    validation: LoadSeries, test: LoadSeries, *, amounts: Amounts, seed: int
) -> tuple[Examination, Examination]:
    seen, unseen = (Examination.of(series, amounts=amounts, seed=seed) for series in (validation, test))
    return seen, unseen


def _open_folder(out: Path, *, resume: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT).exists() and not resume:
        raise CheckpointError(f"{out} holds a training, expected a new folder; --resume goes on with it")


def _lesson(train: LoadSeries, validation: LoadSeries, *, settings: ForecastSettings) -> Lesson:
    batches, held_out = (
        PoissonWindows.of(series, expected_batch=settings.batch_size) for series in (train, validation)
    )
    return Lesson.of(batches, held_out, settings)


def _new_model(train: LoadSeries, *, settings: ForecastSettings, width: int) -> Forecaster:
    model = Forecaster(fit_scale(train), width=width)
    generator = torch_stream(settings.seed, "forecaster", "weights")
    model.draw_parameters(generator, overload_rate=float(train.ahead.mean()))
    return model


def _fit(
    model: Forecaster,
    lesson: Lesson,
    settings: ForecastSettings,
    *,
    out: Path,
    belongs_to: dict[str, Any],
    resume: bool,
    told: Told | None,
) -> Progress:
    """Train, writing a checkpoint after each evaluation; if it stops being finite, leave the best weights in `out`."""
    begun = read_progress(out / CHECKPOINT, belongs_to=belongs_to) if resume else None
    kept = [begun] if begun else []

    def keep(progress: Progress) -> None:
        write_progress(out / CHECKPOINT, progress, belongs_to=belongs_to)
        kept[:] = [progress]
        if told:
            told(progress.history[-1], settings.steps)

    try:
        return fit(model, lesson, settings, begun=begun, keep=keep)
    except DataError:
        for progress in kept:
            model.load_state_dict(progress.best_weights)
            save_forecaster(out / WEIGHTS, model, facts={"best_step": progress.best.step, "calibrated": False})
        raise


def _calibrate(model: Forecaster, weights: Weights, *, examination: Examination) -> None:
    """Load weights, and fit slope and intercept to the uniform windows of validation shards."""
    model.load_state_dict(weights)
    model.eval()
    with torch.no_grad():
        model.slope.fill_(1.0)
        model.intercept.zero_()

    def raw(metrics_BTD: npt.NDArray[np.float32]) -> Forecasts:
        with torch.no_grad():
            found = model.every_step(torch.from_numpy(metrics_BTD), first=WINDOW - 1)
        return found.next_BSD[:, 0].numpy(), found.logit_BS[:, 0].numpy()

    _, logit_N = forecast(raw, examination.series, examination.uniform)
    slope, intercept = platt(logit_N, examination.uniform.of(examination.series.ahead))
    with torch.no_grad():
        model.slope.fill_(slope)
        model.intercept.fill_(intercept)


def _save(
    model: Forecaster,
    progress: Progress,
    *,
    out: Path,
    settings: ForecastSettings,
    epsilon_spent: float | None,
    data: str,
) -> None:
    """Write the weights."""
    facts = {
        "seed": settings.seed,
        "content_sha256": data,
        "best_step": progress.best.step,
        "num_steps": progress.step,
        "calibrated": True,
        "dp": settings.dp,
        "epsilon": epsilon_spent,
        "delta": settings.privacy.delta if settings.dp else None,
    }
    save_forecaster(out / WEIGHTS, model, facts=facts)


def _models(model: Forecaster, train: LoadSeries, *, out: Path, settings: ForecastSettings) -> dict[str, Predict]:
    """Return the models to examine: float32, int8, and logistic regressions on the last minute."""
    evenly, onsets = (LastMinute(train, places) for places in last_minute_places(train, seed=settings.seed))
    return {
        "float32": torch_predict(model),
        "int8": OnnxForecaster(out / INT8),
        "logistic, clean windows": onsets,
        "logistic, all windows": evenly,
    }


def _examine(
    models: dict[str, Predict], seen: Examination, unseen: Examination
) -> tuple[dict[str, Thresholds], dict[str, Measures]]:
    thresholds, measures = {}, {}
    for name, predict in models.items():
        thresholds[name] = Thresholds.of(answer(predict, seen, watched=False), seen)
        measures[name] = measure(answer(predict, unseen), unseen, thresholds[name])
    return thresholds, measures


def _write_results(result: Forecasting, progress: Progress, *, belongs_to: dict[str, Any]) -> None:
    plot_all(result.folder, history=progress.history, measures=result.measures, best_step=progress.best.step)
    table = {**asdict(result), "history": [asdict(entry) for entry in progress.history], "belongs_to": belongs_to}
    del table["folder"]  # it may be moved
    text = json.dumps(table, indent=1, default=_plain)
    write_atomically(result.folder / METRICS_FILE, text.encode())


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else str(value)
