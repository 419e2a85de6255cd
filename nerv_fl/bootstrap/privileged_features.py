"""Hints: what public data cannot say, given to a pretraining now and then, so that it learns to use it.

In `genesis` the accounts of every chain are shuffled, so an account's position tells nothing of its balance. No
gradient reaches the positions, and a network that was trained on it has no place for such knowledge: the nodes, whose
accounts do have fixed roles, would have to build one at the price of DP noise in every weight. So a share of the public
samples tell their accounts' balances, blurred, where the positions are added:

    h_i = (k / K) (z_i a + c)      z_i = y_i + e_i,  e_i ~ N(0, 1 / k),  k ~ U(0, K) for each sample

y_i is the bucket of account i's balance in standard deviations from the public mean. (k z_i, k) are the natural
parameters of a Gaussian belief about y_i, in which log-probabilities are linear; 0 is no belief at all, and then the
network says the unigram. a and c are fixed random directions of length `bootstrap.hint_norm`. After it, to teach the
network a fact about account i is to move position i, and DP noise need fall on nothing else (`training.trainable`).

Only training sees hints; no measure does.

Shapes: B samples, A accounts, D width, T tokens, K buckets.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from nerv_fl.config import BootstrapConfig
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.encoder import Encoder
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray


@dataclass(frozen=True, kw_only=True)
class Hints:
    """How samples are told about their accounts.

    Attributes:
        settings: Share, precision and length.
        mean: Mean bucket of the public balances.
        std: Their standard deviation, buckets.
        directions_2D: a and c, float32.
    """

    settings: BootstrapConfig
    mean: float
    std: float
    directions_2D: Tensor

    @classmethod
    def of(cls, unigram_K: FloatArray, *, settings: BootstrapConfig, seed: int, width: int) -> "Hints":
        """Return the hints of public balances.

        Args:
            unigram_K: Log-probability of each bucket.
            settings: Share, precision and length.
            seed: Seed of the run, which fixes the directions.
            width: D.
        """
        chance_K, bucket_K = np.exp(unigram_K), np.arange(len(unigram_K))
        mean = float(chance_K @ bucket_K / chance_K.sum())
        variance = float(chance_K @ np.square(bucket_K - mean) / chance_K.sum())
        drawn_2D = stream(seed, "bootstrap", "hints").standard_normal((2, width))
        length = settings.hint_norm / np.linalg.norm(drawn_2D, axis=1, keepdims=True)
        return cls(
            settings=settings,
            mean=mean,
            std=math.sqrt(variance),
            directions_2D=torch.from_numpy((length * drawn_2D).astype(np.float32)),
        )

    def give(self, batch: StateBatch, rng: np.random.Generator) -> StateBatch:
        """Return the batch with hints in a share of its samples; nothing is drawn where the share is 0."""
        settings = self.settings
        if not settings.hint_share:
            return batch
        y_BA = (batch.targets_BA.numpy() - self.mean) / self.std
        precision_B1 = rng.uniform(0, settings.hint_precision, size=(len(y_BA), 1))
        precision_B1 *= rng.random((len(y_BA), 1)) < settings.hint_share
        # k z = k y + sqrt(k) e, which is 0 where nothing is told.
        told_BA = precision_B1 * y_BA + np.sqrt(precision_B1) * rng.standard_normal(y_BA.shape)
        natural_BA2 = np.stack([told_BA, np.broadcast_to(precision_B1, y_BA.shape)], axis=2) / settings.hint_precision
        return replace(batch, hint_BAD=torch.from_numpy(natural_BA2.astype(np.float32)) @ self.directions_2D)


@contextmanager
def hinted(encoder: Encoder, hint_BAD: Tensor | None) -> Iterator[None]:
    """Add hints to the positions of the balances in every state of a batch until the context ends."""
    if hint_BAD is None:
        yield
        return
    hint_B1TD = hint_BAD.new_zeros(hint_BAD.shape[0], 1, encoder.preset.num_tokens, encoder.preset.width)
    hint_B1TD[:, 0, 2::2] = hint_BAD

    def add(_module: nn.Module, _inputs: tuple[Tensor, ...], output_BGTD: Tensor) -> Tensor:
        return output_BGTD + hint_B1TD

    hook = encoder.positions.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()
