"""The held-out pools, and everything that is measured on them.

Three ledgers that no node has: *search* chooses the step and values the nodes, *certify* judges the candidate,
*final* is opened once, at the end. `Pools` measures in this process; `nerv_fl.server.workers` spreads the same calls
over processes.

Shapes: B samples, K samples, N directions, P parameters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch

from nerv_fl.arrays import BoolArray, FloatArray, IntArray, Vector
from nerv_fl.config import RunConfig
from nerv_fl.models.batch import StateBatch, evaluation_masks, make_batch
from nerv_fl.models.encoder import Encoder, centre, get_flat, set_flat
from nerv_fl.models.evaluate import BalanceBaselines, SampleMeasures, measure_samples
from nerv_fl.models.homomorphism import check_bound
from nerv_fl.models.influence import mean_gradient, sample_gradients
from nerv_fl.models.losses import data_free_gradient
from nerv_fl.models.presets import get_preset
from nerv_fl.records import Homomorphism
from nerv_fl.rows import Rows
from nerv_fl.store import Samples, open_ledger
from nerv_fl.strategy.gate import SEARCH
from nerv_fl.threads import use_one_thread


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """What a measuring process needs to know.

    Attributes:
        config: The run's settings.
        paths: Ledger file of each pool.
        movement_floor: f of the loss.
    """

    config: RunConfig
    paths: Mapping[str, Path]
    movement_floor: float


class Pools:
    """Measures encoders on the pools, in this process.

    Args:
        settings: Pools and model.

    Raises:
        DataError: If a pool is missing, damaged, or of another account number than the model's.
    """

    def __init__(self, settings: PoolSettings) -> None:
        use_one_thread()
        config = settings.config
        self._settings = settings
        self._encoder = Encoder(get_preset(config.model.preset), readout=config.model.readout)
        self._files = {name: open_ledger(path) for name, path in settings.paths.items()}
        for file in self._files.values():
            file.require_accounts(self._encoder.preset.num_accounts)
        self._prepared = lru_cache(maxsize=64)(self._prepare)

    def num_chains(self, pool: str) -> int:
        """Return the number of chains of a pool."""
        return self._files[pool].info.chains

    def num_steps(self) -> int:
        """Return the number of steps of each chain."""
        return self._files[SEARCH].info.steps

    def measure(self, candidates: Sequence[Vector], pool: str, sample_ids: IntArray) -> list[SampleMeasures]:
        """Measure each candidate on the same samples under the same masks."""
        return [self.measure_one(candidate, pool, sample_ids) for candidate in candidates]

    def measure_one(self, candidate: Vector, pool: str, sample_ids: IntArray) -> SampleMeasures:
        """Measure one candidate."""
        set_flat(self._encoder, torch.from_numpy(candidate))
        return measure_samples(
            self._encoder,
            self._prepared(pool, sample_ids.tobytes()),
            movement_floor=self._settings.movement_floor,
            chunk=self._settings.config.enclave.chunk,
        )

    def bound(self, candidate: Vector, pool: str, sample_ids: IntArray, *, bound: float) -> Homomorphism:
        """Test the homomorphism bound on the batches of samples; the "mean" read-out by what it really does."""
        set_flat(self._encoder, torch.from_numpy(candidate))
        with torch.no_grad():
            table_AD = self._encoder.table().numpy()
        errors = None
        if self._encoder.readout == "mean":
            errors = self.measure_one(candidate, pool, sample_ids).drift_B
        return check_bound(self.read(pool, sample_ids, with_batches=True), table_AD, bound=bound, errors=errors)

    def centred(self, theta_P: Vector) -> Vector:
        """Return the same encoder with its origin at mean V = 0."""
        set_flat(self._encoder, torch.from_numpy(theta_P))
        centre(self._encoder)
        return get_flat(self._encoder).numpy()

    def data_free_descent(self, theta_P: Vector) -> Vector:
        """Return minus the gradient of the loss terms that need no data."""
        set_flat(self._encoder, torch.from_numpy(theta_P))
        server = self._settings.config.server
        gradient_P = data_free_gradient(
            self._encoder, spread_weight=server.spread_weight, size_weight=server.size_weight
        )
        return np.asarray(-gradient_P.numpy(), dtype=np.float32)

    def gradient_products(self, theta_P: Vector, pool: str, sample_ids: IntArray, *, directions: Rows) -> FloatArray:
        """Return minus <grad of sample k's loss, direction i>, float64 (K, N): a pass over the directions a chunk."""
        products_KN = [
            np.concatenate([gradients_kP @ block_nP.T for block_nP in directions.blocks()], axis=1)
            for gradients_kP in self.sample_gradients(theta_P, pool, sample_ids)
        ]
        return -np.concatenate(products_KN).astype(np.float64)

    def sample_gradients(self, theta_P: Vector, pool: str, sample_ids: IntArray) -> Iterator[Vector]:
        """Yield each sample's gradient, `enclave.chunk` samples at a time, float32 (n, P)."""
        set_flat(self._encoder, torch.from_numpy(theta_P))
        return sample_gradients(
            self._encoder,
            self._prepared(pool, sample_ids.tobytes()),
            movement_floor=self._settings.movement_floor,
            chunk=self._settings.config.enclave.chunk,
        )

    def mean_gradients(self, thetas: Sequence[Vector], pool: str, sample_ids: IntArray) -> list[FloatArray]:
        """Return the gradient of the samples' mean loss at each point, float64 (P,)."""
        return [self.mean_gradient(theta_P, pool, sample_ids) for theta_P in thetas]

    def mean_gradient(self, theta_P: Vector, pool: str, sample_ids: IntArray) -> FloatArray:
        """Return it at one point."""
        set_flat(self._encoder, torch.from_numpy(theta_P))
        return mean_gradient(
            self._encoder,
            self._prepared(pool, sample_ids.tobytes()),
            movement_floor=self._settings.movement_floor,
            chunk=self._settings.config.enclave.chunk,
        )

    def baselines(self, pool: str, sample_ids: IntArray) -> tuple[float, float]:
        """Return the cross-entropies of the unigram and of the per-account unigram, fitted on the search pool."""
        fitted = BalanceBaselines.fit(self._files[SEARCH].read_chains(0, self.num_chains(SEARCH)).balances)
        samples = self.read(pool, sample_ids)
        return fitted.cross_entropy(samples.before, self.masks(samples))

    def batch(self, pool: str, sample_ids: IntArray) -> StateBatch:
        """Return the tensors of samples under their evaluation masks."""
        return self._prepared(pool, sample_ids.tobytes())

    def masks(self, samples: Samples) -> BoolArray:
        """Return the evaluation masks of samples."""
        return evaluation_masks(self._settings.config.seed, samples)

    def read(self, pool: str, sample_ids: IntArray, *, with_batches: bool = False) -> Samples:
        """Return samples of a pool."""
        return self._files[pool].read(sample_ids, with_batches=with_batches)

    def close(self) -> None:
        """Close the ledgers."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        """Return the pools."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self.close()

    def _prepare(self, pool: str, packed_ids: bytes) -> StateBatch:
        samples = self.read(pool, np.frombuffer(packed_ids, dtype=np.int64))
        return make_batch(samples, self.masks(samples))
