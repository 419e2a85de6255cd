"""Load data small enough to train on in a test: by hand, and by the generator."""

import numpy as np

from nerv_fl.bootstrap.forecast_data import LoadSeries
from nerv_fl.data.load_schema import labels
from nerv_fl.models.forecaster import METRICS
from nerv_fl.rng import stream
from nerv_fl.types import BoolArray


def series_of(overload: BoolArray) -> LoadSeries:
    """Return a split with this overload, bool [M, T], and metrics that are noise around it and what announces it."""
    noise = stream(1, "series").exponential(size=(*overload.shape, METRICS)).astype(np.float32)
    found = [labels(row.astype(np.uint8)) for row in overload]
    ahead = np.stack([each.ahead for each in found])
    return LoadSeries(
        shards=np.arange(len(overload)),
        features=noise + (overload + 2 * ahead)[..., None].astype(np.float32),
        overload=overload,
        ahead=ahead,
        clean=np.stack([each.clean for each in found]),
    )


def one_overload(*, num_shards: int = 2, num_steps: int = 300, start: int = 150, length: int = 20) -> BoolArray:
    """Return shards of which each is overloaded once."""
    overload = np.zeros((num_shards, num_steps), dtype=bool)
    overload[:, start : start + length] = True
    return overload
