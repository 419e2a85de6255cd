"""The forecaster's setup: shard loads, and fresh weights over the scale of the public ones.

The public shards give how the metrics lie and how often overload comes: nothing else is learned before round 1.
`nerv-fl bootstrap forecaster` trains centrally, and `bootstrap.weights` starts a federation from what it made.
"""

from pathlib import Path

import numpy as np

from datagen.sharding import generate_load
from nerv_fl.bootstrap.forecast_data import LoadSeries, fit_scale
from nerv_fl.config import RunConfig
from nerv_fl.data.load import LoadFile
from nerv_fl.models.forecaster import Forecaster
from nerv_fl.models.forecaster_files import save_forecaster
from nerv_fl.rng import torch_stream
from nerv_fl.tasks.forecaster import AROUND, MIN_RATE
from simulations.setups.setup import OnStep, pool_seed


class ForecasterSetup:
    """Shards of `data.steps` windows each, all of one kind, with splits only recommended."""

    def num_public_chains(self, config: RunConfig) -> int:
        """Return the shards whose scale is taken."""
        return config.data.bootstrap_chains

    def make_data(self, config: RunConfig, path: Path, *, pool: str, chains: int) -> None:
        """Simulate a pool's shards."""
        seed = pool_seed(config, pool)
        generate_load(path, shards=chains, steps=config.data.steps + AROUND, seed=seed, resume=True)

    def content_hash(self, path: Path) -> str:
        """Return the hash of a load file's content."""
        with LoadFile(path) as file:
            return file.info.content_sha256

    def make_start(self, config: RunConfig, public: Path, *, out: Path, on_step: OnStep) -> None:
        """Write a forecaster with fresh weights."""
        with LoadFile(public) as file:
            series = LoadSeries.of(file, np.arange(file.info.shards))
        rate = float(np.clip(series.ahead.mean(), MIN_RATE, 1.0 - MIN_RATE))
        model = Forecaster(fit_scale(series), width=config.model.width)
        model.draw_parameters(torch_stream(config.seed, "forecaster", "weights"), overload_rate=rate)
        save_forecaster(out, model, facts={"overload_rate": rate, "seed": config.seed})
        on_step(0, 0, float("nan"))
