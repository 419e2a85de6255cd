"""The public data of a pretraining: samples to train on, chains held out, and what is counted once over all of it.

Samples are read as they are drawn, so a ledger may be larger than memory.

Shapes: N samples, A accounts, K buckets.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from nerv_fl.bootstrap.privileged_features import Hints
from nerv_fl.config import RunConfig
from nerv_fl.data import Ledger, Samples
from nerv_fl.errors import DataError
from nerv_fl.models.batch import StateBatch, draw_masks, evaluation_masks, make_batch, movement
from nerv_fl.models.evaluate import BalanceBaselines
from nerv_fl.models.losses import MOVEMENT_FLOOR
from nerv_fl.models.presets import Preset
from nerv_fl.types import FloatArray

BLOCK_BALANCES: Final = 2**22
"""Balances read at a time while counting."""


class PublicData:
    """A ledger of the `genesis` profile whose last `data.heldout_chains` chains are held out.

    Args:
        ledger: The ledger, open.
        config: The run's settings.
        preset: Sizes of the model.

    Raises:
        DataError: If the ledger is of another number of accounts, or too small.
    """

    def __init__(self, ledger: Ledger, *, config: RunConfig, preset: Preset) -> None:
        ledger.require_accounts(preset.num_accounts)
        info, num_heldout = ledger.info, config.data.heldout_chains
        if info.chains <= num_heldout:
            raise DataError(
                f"{ledger.path} has {info.chains} chains, expected more than data.heldout_chains = {num_heldout}"
            )
        self._ledger, self._config = ledger, config
        self.num_samples = (info.chains - num_heldout) * info.steps
        self.content_sha256 = info.content_sha256
        chains = np.arange(num_heldout)
        self.heldout = ledger.read(self.num_samples + chains * info.steps + chains % info.steps)
        self.movement_floor, self.baselines = self._count()
        self._hints = Hints.of(
            self.baselines.unigram_K, settings=config.bootstrap, seed=config.seed, width=preset.width
        )

    def heldout_batch(self) -> StateBatch:
        """Return one step of each chain held out, under masks fixed by the seed."""
        return make_batch(self.heldout, evaluation_masks(self._config.seed, self.heldout))

    def draw(self, rng: np.random.Generator) -> StateBatch:
        """Draw the next batch: `bootstrap.batch_size` samples, or under DP each sample with the same probability."""
        settings = self._config.bootstrap
        if settings.dp:
            rows = np.flatnonzero(rng.random(self.num_samples) < settings.batch_size / self.num_samples)
        else:
            rows = rng.integers(self.num_samples, size=settings.batch_size)
        num_accounts = self._ledger.info.accounts
        masked_BA = draw_masks(rng, num_samples=len(rows), num_accounts=num_accounts)
        return self._hints.give(make_batch(self._ledger.read(rows), masked_BA), rng)

    def trivial_cross_entropies(self) -> tuple[float, float]:
        """Return what the unigram and the per-account unigram reach on the chains held out, nats."""
        masked_BA = evaluation_masks(self._config.seed, self.heldout)
        return self.baselines.cross_entropy(self.heldout.before, masked_BA)

    def _count(self) -> tuple[float, BalanceBaselines]:
        movements: list[FloatArray] = []
        counts_AK = BalanceBaselines.count(self.heldout.before[:0])
        for block in self._blocks():
            movements.append(movement(block))
            counts_AK += BalanceBaselines.count(block.before)
        return MOVEMENT_FLOOR * float(np.median(np.concatenate(movements))), BalanceBaselines.from_counts(counts_AK)

    def _blocks(self) -> Iterator[Samples]:
        size = max(1, BLOCK_BALANCES // self._ledger.info.accounts)
        for start in range(0, self.num_samples, size):
            yield self._ledger.read(np.arange(start, min(start + size, self.num_samples)))
