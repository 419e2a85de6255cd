"""What a federation trains: a model, the loss of each sample, and what held-out samples say of it.

The loop around a task (DP-SGD, sealing, aggregation, step search, gate, Shapley values, rewards) knows no more of the
model than this. Six methods must be written; the others have defaults that suit a model without claims of its own.

A task's data are files of *chains*: samples of one chain depend on each other, chains do not. Sample k of chain c has
the number c * steps + k.

Shapes: B samples, P parameters.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nerv_fl.config import GateConfig, RunConfig
from nerv_fl.data.partition import by_chain
from nerv_fl.errors import ConfigError, TaskError
from nerv_fl.models.encoder import get_flat
from nerv_fl.records import Homomorphism, Standing
from nerv_fl.tasks.initial_model import Constants, read_start
from nerv_fl.tasks.metrics import Measured, Measures, Summary, broken_ratio, mean_of
from nerv_fl.types import IntArray, Vector


class Batch(Protocol):
    """Tensors of B samples, whatever they hold."""

    @property
    def num_samples(self) -> int:
        """B."""

    def part(self, start: int, stop: int) -> Self:
        """Return samples `start` to `stop`."""


class Data(Protocol):
    """An open data file."""

    def close(self) -> None:
        """Close it."""


class DataSize(NamedTuple):
    """How many chains a file holds, and samples of each."""

    chains: int
    steps: int


M = TypeVar("M", bound=nn.Module)
D = TypeVar("D", bound=Data)
B = TypeVar("B", bound=Batch)
Losses: TypeAlias = Callable[[B], Tensor]
"""The loss of each sample of a batch, (B,)."""


class Task(ABC, Generic[M, D, B]):
    """A model M that a federation can train, on data D in batches B.

    Args:
        config: The run's settings.
        constants: Those of the run's start.

    Raises:
        ConfigError: If a constant, or a setting, is not what this task allows.
    """

    def __init__(self, config: RunConfig, constants: Constants) -> None:
        self.config = config
        self.constants = constants

    # --- must be written ----------------------------------------------------------------------------------------------

    @abstractmethod
    def build(self) -> M:
        """Return the model; every parameter must lie in a layer that can form per-sample gradients.

        `nerv_fl.privacy.layers` and `nerv_fl.privacy.recurrent` have such layers.
        """

    @abstractmethod
    def draw_parameters(self, model: M, generator: torch.Generator) -> None:
        """Draw every parameter afresh."""

    @abstractmethod
    def open(self, path: Path) -> D:
        """Open a data file.

        Raises:
            DataError: If it is missing, damaged, or does not fit the model.
        """

    @abstractmethod
    def size_of(self, data: D) -> DataSize:
        """Return how many chains a file holds, and samples of each."""

    @abstractmethod
    def read(self, data: D, samples: IntArray) -> B:
        """Return samples, int64 [B], by number: the same tensors whenever the same sample is read."""

    @abstractmethod
    def losses(self, model: M, batch: B) -> Tensor:
        """Return the loss of each sample, (B,). Nothing may mix samples, or clipping one bounds nothing."""

    # --- a node -------------------------------------------------------------------------------------------------------

    def draw(self, data: D, samples: IntArray, rng: np.random.Generator) -> B:
        """Return samples to train on; a task may draw from `rng` what is random in them, such as masks."""
        return self.read(data, samples)

    def objective(self, model: M) -> Losses[B]:
        """Return the losses of one local step; called once a step, so what depends on the weights alone goes here."""
        return partial(self.losses, model)

    def shards_of(self, data: D) -> IntArray:
        """Return the chains of each node, int64 [num_nodes, chains_per_node]: the same in every process of a run.

        Raises:
            DataError: If there are too few chains.
        """
        num_nodes, chains = self.config.federation.num_nodes, self.config.data.chains_per_node
        return by_chain(self.size_of(data).chains, num_nodes=num_nodes, chains_per_node=chains)

    # --- held-out samples ---------------------------------------------------------------------------------------------

    def value_losses(self, model: M, batch: B) -> Tensor:
        """Return the losses whose gradient says what a move of *all* weights does; for most models, `losses`."""
        return self.losses(model, batch)

    def columns(self, model: M, batch: B) -> Mapping[str, Tensor]:
        """Return "loss" and further measures of each sample, (B,) by name; the lower the better, all of them.

        The gate guards the means of those that are not the loss.
        """
        return {"loss": self.losses(model, batch)}

    def measure(self, model: M, batch: B, *, chunk: int) -> Measures:
        """Measure every sample, `chunk` samples at a time (bits depend on it)."""
        parts = []
        with torch.no_grad():
            for start in range(0, batch.num_samples, chunk):
                part = batch.part(start, start + chunk)
                columns = {name: _float64(column) for name, column in self._checked_columns(model, part).items()}
                parts.append(Measured(loss_B=columns.pop("loss"), columns=columns))
        return Measured.joined(parts)

    def _checked_columns(self, model: M, batch: B) -> Mapping[str, Tensor]:
        columns: Any = self.columns(model, batch)
        if not isinstance(columns, Mapping):
            found = type(columns).__name__
            raise TaskError(f"task {self.config.task!r}: columns() gives a {found}, expected a mapping of names")
        if "loss" not in columns:
            raise TaskError(
                f"task {self.config.task!r}: columns() gives the columns {list(columns)}, expected 'loss' among them"
            )
        for name, column in columns.items():
            if not isinstance(column, Tensor):
                found = type(column).__name__
                raise TaskError(
                    f"task {self.config.task!r}: columns() gives a {found} as column {name!r}, expected a torch.Tensor"
                )
        checked: Mapping[str, Tensor] = columns
        return checked

    def summarise(self, measures: Any) -> Summary:
        """Return the means over a pool."""
        return mean_of(measures)

    def broken_condition(self, before: Any, after: Any, *, limits: GateConfig) -> str:
        """Return the first condition that a model breaks against the one before, in words, or an empty string."""
        return broken_ratio(before, after, max_ratio=limits.max_measure_ratio)

    def trivial(self, fitted_on: D, data: D, samples: IntArray) -> Mapping[str, float]:
        """Return what trivial models, fitted on one file, reach on samples of another, under the measures' names."""
        return {}

    def standing(
        self, summary: Any, *, trivial: Mapping[str, float], homomorphism: Homomorphism | None = None
    ) -> Standing:
        """Return what a round's record says of a model."""
        return Standing(loss=summary.loss, measures=dict(summary.measures), trivial=dict(trivial))

    def references(self, model: M, batch: B) -> Mapping[str, Summary]:
        """Return models to compare with, by name, that are made of one: nothing, for most models."""
        return {}

    # --- the server ---------------------------------------------------------------------------------------------------

    def settle(self, model: M) -> None:
        """Move a candidate to the one representative of all that compute the same; nothing, for most models."""

    def free_gradient(self, model: M) -> Tensor:
        """Return the gradient of loss terms that need no data, (P,): the server adds it, without noise."""
        return torch.zeros_like(get_flat(model))

    def certify(self, model: M, data: D, samples: IntArray, *, bound: float) -> Homomorphism | None:
        """Test what the model claims of itself on samples of a pool; None if it claims nothing."""
        return None

    # --- a simulation -------------------------------------------------------------------------------------------------

    @classmethod
    def make_data(cls, config: RunConfig, path: Path, *, chains: int, seed: int) -> None:
        """Write a data file of so many chains, of `config.data.steps` samples each: equal arguments, equal bytes.

        Raises:
            ConfigError: If the task cannot make any.
        """
        raise ConfigError(f"task {config.task!r} has no make_data, expected one: a simulation makes its own data")

    @classmethod
    def find_constants(cls, config: RunConfig, public: Path) -> Constants:
        """Return what a task takes from the public data before anything is trained."""
        return {}

    # --- where a run starts -------------------------------------------------------------------------------------------

    @classmethod
    def read_start(cls, path: Path, config: RunConfig) -> tuple[Vector, Constants]:
        """Return the weights that a run starts from, float32 (P,), and the constants beside them.

        Raises:
            CheckpointError: If the file is missing, damaged, or of another model.
        """
        return read_start(path, lambda constants: cls(config, constants).build())


def _float64(column: Tensor) -> Any:
    return column.detach().double().cpu().numpy()
