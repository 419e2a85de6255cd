"""Evaluation on the held-out pools.

No node has these three files: *search* chooses the step and values the nodes, *certify* decides on the candidate, and
*final* is opened once, after the last round. `Pools` evaluates in this process;
`nerv_fl.enclave.parallel_evaluation` spreads the same calls over processes. The task defines the metrics.

Shapes: B samples, K samples, N directions, P parameters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from nerv_fl.config import GateConfig, RunConfig
from nerv_fl.enclave.gate import SEARCH
from nerv_fl.models.encoder import get_flat, set_flat
from nerv_fl.models.influence import mean_gradient, sample_gradients
from nerv_fl.models.trainable import trained_P
from nerv_fl.records import Homomorphism
from nerv_fl.tasks.initial_model import Constants
from nerv_fl.tasks.metrics import Measures, Summary
from nerv_fl.tasks.registry import make_task
from nerv_fl.threads import use_one_thread
from nerv_fl.types import BoolArray, FloatArray, IntArray, Vector
from nerv_fl.vectors import Rows


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """What a measuring process needs to know.

    Attributes:
        config: The run's settings.
        paths: Data file of each pool.
        constants: Those of the task.
    """

    config: RunConfig
    paths: Mapping[str, Path]
    constants: Constants


class Pools:
    """Measures models on the pools, in this process.

    Args:
        settings: Pools and task.

    Raises:
        DataError: If a pool is missing, damaged, or does not fit the model.
    """

    def __init__(self, settings: PoolSettings) -> None:
        use_one_thread()
        self._settings = settings
        self.task = make_task(settings.config, settings.constants)
        self._model = self.task.build().eval()
        self._moves_P = trained_P(self._model, settings.config.training.trainable)
        self._files = {name: self.task.open(path) for name, path in settings.paths.items()}
        self._prepared = lru_cache(maxsize=64)(self._prepare)

    @property
    def moves_P(self) -> BoolArray | None:  # noqa: N802
        """Which coordinates a round may move, bool (P,), or None if all."""
        return self._moves_P

    def num_chains(self, pool: str) -> int:
        """Return the number of chains of a pool."""
        return self.task.size_of(self._files[pool]).chains

    def num_steps(self) -> int:
        """Return the number of samples of each chain."""
        return self.task.size_of(self._files[SEARCH]).steps

    def measure(self, candidates: Sequence[Vector], pool: str, sample_ids: IntArray) -> list[Measures]:
        """Measure each candidate on the same samples."""
        return [self.measure_one(candidate, pool, sample_ids) for candidate in candidates]

    def measure_one(self, candidate: Vector, pool: str, sample_ids: IntArray) -> Measures:
        """Measure one candidate."""
        return self.task.measure(self._at(candidate), self.batch(pool, sample_ids), chunk=self._chunk)

    def summarise(self, measures: Measures) -> Summary:
        """Return the means of what was measured."""
        return self.task.summarise(measures)

    def broken_condition(self, before: Summary, after: Summary, *, limits: GateConfig) -> str:
        """Return the first condition that a model breaks against the one before, in words, or an empty string."""
        return self.task.broken_condition(before, after, limits=limits)

    def bound(self, candidate: Vector, pool: str, sample_ids: IntArray, *, bound: float) -> Homomorphism | None:
        """Test what the model claims of itself on samples of a pool; None if it claims nothing."""
        return self.task.certify(self._at(candidate), self._files[pool], sample_ids, bound=bound)

    def centred(self, theta_P: Vector) -> Vector:
        """Return the one representative of all models that compute the same as this one."""
        model = self._at(theta_P)
        self.task.settle(model)
        return get_flat(model).numpy()

    def data_free_descent(self, theta_P: Vector) -> Vector:
        """Return minus the gradient of the loss terms that need no data."""
        return np.asarray(-self.task.free_gradient(self._at(theta_P)).numpy(), dtype=np.float32)

    def gradient_products(self, theta_P: Vector, pool: str, sample_ids: IntArray, *, directions: Rows) -> FloatArray:
        """Return minus <grad of sample k's loss, direction i>, float64 (K, N): a pass over the directions a chunk."""
        products_KN = [
            np.concatenate([gradients_kP @ block_nP.T for block_nP in directions.blocks()], axis=1)
            for gradients_kP in self.sample_gradients(theta_P, pool, sample_ids)
        ]
        return -np.concatenate(products_KN).astype(np.float64)

    def sample_gradients(self, theta_P: Vector, pool: str, sample_ids: IntArray) -> Iterator[Vector]:
        """Yield each sample's gradient, `enclave.chunk` samples at a time, float32 (n, P)."""
        model, batch = self._at(theta_P), self.batch(pool, sample_ids)
        return sample_gradients(model, batch, losses=self.task.value_losses, chunk=self._chunk)

    def mean_gradients(self, thetas: Sequence[Vector], pool: str, sample_ids: IntArray) -> list[FloatArray]:
        """Return the gradient of the samples' mean loss at each point, float64 (P,)."""
        return [self.mean_gradient(theta_P, pool, sample_ids) for theta_P in thetas]

    def mean_gradient(self, theta_P: Vector, pool: str, sample_ids: IntArray) -> FloatArray:
        """Return it at one point."""
        model, batch = self._at(theta_P), self.batch(pool, sample_ids)
        return mean_gradient(model, batch, losses=self.task.value_losses, chunk=self._chunk)

    def trivial(self, pool: str, sample_ids: IntArray) -> Mapping[str, float]:
        """Return what trivial models, fitted on the search pool, reach on samples of a pool."""
        return self.task.trivial(self._files[SEARCH], self._files[pool], sample_ids)

    def batch(self, pool: str, sample_ids: IntArray) -> Any:
        """Return the tensors of held-out samples."""
        return self._prepared(pool, sample_ids.tobytes())

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        """Return the pools."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self.close()

    @property
    def _chunk(self) -> int:
        return self._settings.config.enclave.chunk

    def _at(self, theta_P: Vector) -> Any:
        """Return the resident model with these weights."""
        set_flat(self._model, torch.from_numpy(theta_P))
        return self._model

    def _prepare(self, pool: str, packed_ids: bytes) -> Any:
        return self.task.read(self._files[pool], np.frombuffer(packed_ids, dtype=np.int64))
