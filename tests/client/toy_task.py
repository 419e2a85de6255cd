"""A small task for preflight tests: regression on 4 numbers a sample, with data in memory.

Faulty and sound tasks override a method or two of it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nerv_fl.client.preflight import check_task
from nerv_fl.config import RunConfig
from nerv_fl.privacy.layers import Linear
from nerv_fl.rng import stream
from nerv_fl.tasks.task import DataSize, Task
from nerv_fl.types import IntArray

CHAINS, STEPS, WIDTH = 6, 4, 4


class Rows(NamedTuple):
    """Samples: features (B, 4), token numbers (B, 3), targets (B,)."""

    x: Tensor
    tokens: Tensor
    y: Tensor

    @property
    def num_samples(self) -> int:
        return len(self.y)

    def part(self, start: int, stop: int) -> "Rows":
        return Rows(*(column[start:stop] for column in self))


@dataclass
class Arrays:
    """A data file in memory."""

    x: np.ndarray
    tokens: np.ndarray
    y: np.ndarray

    def close(self) -> None:
        """Hold nothing open."""


def make_arrays() -> Arrays:
    rng = stream(3, "toy")
    count = CHAINS * STEPS
    x = rng.normal(size=(count, WIDTH)).astype(np.float32)
    tokens = rng.integers(0, 3, size=(count, 3))
    tokens[:, 2] = tokens[:, 0]  # each sample has a token twice
    return Arrays(x=x, tokens=tokens, y=(10 * x[:, 0] + rng.normal(size=count)).astype(np.float32))


class Toy(Task[nn.Module, Arrays, Rows]):
    """Squared error of a linear model."""

    def build(self) -> nn.Module:
        return nn.Sequential(Linear(WIDTH, 8), nn.Tanh(), Linear(8, 1))

    def draw_parameters(self, model: nn.Module, generator: torch.Generator) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def open(self, path: Path) -> Arrays:
        return make_arrays()

    def size_of(self, data: Arrays) -> DataSize:
        return DataSize(CHAINS, STEPS)

    def read(self, data: Arrays, samples: IntArray) -> Rows:
        return Rows(*(torch.from_numpy(column[samples]) for column in (data.x, data.tokens, data.y)))

    def predict(self, model: nn.Module, batch: Rows) -> Tensor:
        """Return the prediction of each sample, (B,)."""
        output: Tensor = model(batch.x)[:, 0]
        return output

    def losses(self, model: nn.Module, batch: Rows) -> Tensor:
        return (self.predict(model, batch) - batch.y).square()


def preflight(kind: type[Toy], **training: object) -> None:
    """Run the preflight of a toy task."""
    config = RunConfig()
    config = replace(config, training=replace(config.training, **training))  # type: ignore[arg-type]
    check_task(kind(config, {}), make_arrays(), np.arange(CHAINS * STEPS))
