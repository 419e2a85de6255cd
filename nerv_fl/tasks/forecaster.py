"""The shard-load forecaster as a task: each node holds the metrics of its own shards, minute by minute.

A chain is a shard, a sample a window of an hour and the minute after it; sample k ends at minute 59 + k. Every window
is drawn alike. Constants are how the metrics lie on the public data, and how often overload comes there.

Shapes: B windows, W = 61 steps, S judged steps, D = 11 metrics.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from nerv_fl.config import RunConfig
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import HORIZON, labels
from nerv_fl.errors import CheckpointError, ConfigError, DataError
from nerv_fl.models.encoder import get_flat
from nerv_fl.models.forecast_losses import FIRST, WindowLosses, Windows, trivial_losses, window_losses
from nerv_fl.models.forecaster import METRICS, WINDOW, Forecaster, LoadScale
from nerv_fl.models.forecaster_files import load_forecaster
from nerv_fl.tasks.initial_model import Constants
from nerv_fl.tasks.task import DataSize, Task
from nerv_fl.types import IntArray, Vector

POSITIVE: Final = ("std", "log_std", "change")
MIN_RATE: Final = 1e-4
AROUND: Final = WINDOW + HORIZON - 1
"""Minutes of a shard beyond its windows: an hour before the first one's end, the horizon after the last one's."""


class ForecasterTask(Task[Forecaster, LoadFile, Windows]):
    """The forecaster; its constants are the fields of `LoadScale`, 11 numbers each, and `overload_rate`."""

    def __init__(self, config: RunConfig, constants: Constants) -> None:
        super().__init__(config, constants)
        self.scale = _scale_of(constants)
        self.overload_rate = _rate_of(constants)

    def build(self) -> Forecaster:
        """Return a forecaster of the configured width."""
        return Forecaster(self.scale, width=self.config.model.width)

    def draw_parameters(self, model: Forecaster, generator: torch.Generator) -> None:
        """Draw every parameter afresh; the heads start at no change, and at the public rate of overload."""
        model.draw_parameters(generator, overload_rate=self.overload_rate)

    def open(self, path: Path) -> LoadFile:
        """Open a load file."""
        file = LoadFile(path)
        if file.info.steps <= AROUND:
            raise DataError(f"{path} has {file.info.steps} steps, expected at least {AROUND + 1}")
        return file

    def size_of(self, data: LoadFile) -> DataSize:
        """Return the file's shards, and windows of each."""
        return DataSize(data.info.shards, data.info.steps - AROUND)

    def read(self, data: LoadFile, samples: IntArray) -> Windows:
        """Return windows by number."""
        shards, places = np.divmod(samples, self.size_of(data).steps)
        ends = places + WINDOW - 1
        judged = (ends[:, None] + np.arange(FIRST + 1 - WINDOW, 1)).astype(np.int64)
        ahead_BS, clean_BS = (np.empty(judged.shape, dtype=np.bool_) for _ in range(2))
        for shard in np.unique(shards):
            rows, found = shards == shard, labels(data.array("overload", int(shard)))
            ahead_BS[rows], clean_BS[rows] = found.ahead[judged[rows]], found.clean[judged[rows]]
        return Windows(
            metrics_BWD=torch.from_numpy(data.windows(shards, ends + 1, length=WINDOW + 1)),
            ahead_BS=torch.from_numpy(ahead_BS.astype(np.float32)),
            clean_BS=torch.from_numpy(clean_BS),
        )

    def losses(self, model: Forecaster, batch: Windows) -> Tensor:
        """Return the loss of each window: overload, and a quarter of the metrics' error."""
        return window_losses(model, batch).total_B

    def columns(self, model: Forecaster, batch: Windows) -> Mapping[str, Tensor]:
        """Return the loss, cross-entropy of overload in nats, and error of the metrics in root mean square changes."""
        return _by_name(window_losses(model, batch))

    def trivial(self, fitted_on: LoadFile, data: LoadFile, samples: IntArray) -> Mapping[str, float]:
        """Return what the base rate of overload, and no change of any metric, reach."""
        ahead = [labels(fitted_on.array("overload", shard)).ahead for shard in range(fitted_on.info.shards)]
        rate = float(np.clip(np.mean(ahead), MIN_RATE, 1.0 - MIN_RATE))
        change_D = torch.from_numpy(self.scale.change).float()
        found = trivial_losses(self.read(data, samples), overload_rate=rate, change_D=change_D)
        return {name: float(column.double().mean()) for name, column in _by_name(found).items()}

    @classmethod
    def read_start(cls, path: Path, config: RunConfig) -> tuple[Vector, Constants]:
        """Return the weights of a forecaster's file, its scale, and its rate of overload.

        Raises:
            CheckpointError: If the file is damaged, no forecaster, or of another width.
        """
        model, facts = load_forecaster(path)
        if model.width != config.model.width:
            raise CheckpointError(f"{path} has width {model.width}, expected {config.model.width} (model.width)")
        scale = {item.name: getattr(model, item.name).double().tolist() for item in fields(LoadScale)}
        return get_flat(model).numpy(), {**scale, "overload_rate": facts.get("overload_rate", MIN_RATE)}


def constants_of(scale: LoadScale, *, overload_rate: float) -> Constants:
    """Return the constants of a task from how the public data lie."""
    return {name: column.tolist() for name, column in asdict(scale).items()} | {"overload_rate": overload_rate}


def _by_name(losses: WindowLosses) -> dict[str, Tensor]:
    return {"loss": losses.total_B, "overload": losses.overload_B, "metrics": losses.metrics_B}


def _scale_of(constants: Constants) -> LoadScale:
    columns = {}
    for item in fields(LoadScale):
        column = constants.get(item.name)
        if not isinstance(column, list) or len(column) != METRICS or not all(map(_is_finite, column)):
            raise ConfigError(f"{item.name} is {column!r}, expected {METRICS} finite numbers")
        columns[item.name] = np.array(column, dtype=np.float64)
        if item.name in POSITIVE and not (columns[item.name] > 0).all():
            raise ConfigError(f"{item.name} is {column!r}, expected numbers above 0")
    return LoadScale(**columns)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _rate_of(constants: Constants) -> float:
    rate = constants.get("overload_rate")
    if not isinstance(rate, float) or not MIN_RATE <= rate <= 1.0 - MIN_RATE:
        raise ConfigError(f"overload_rate is {rate!r}, expected a number in [{MIN_RATE:g}, {1.0 - MIN_RATE:g}]")
    return rate
