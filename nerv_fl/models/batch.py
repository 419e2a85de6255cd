"""From ledger samples to the tensors of one training or evaluation batch.

One sample is a triple (before, after, masked): the state before the batch, the state after it, and the state before
with some balances masked. Nothing mixes samples.

Shapes: B samples, G = 3 states, T tokens, A accounts, D width.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nerv_fl.data import Samples
from nerv_fl.rng import stream
from nerv_fl.tokens import bucket, tokens
from nerv_fl.types import BoolArray, FloatArray, IntArray

MIN_MASK_RATE = 0.15
"""Smallest share of masked balances; the rate is uniform from here to 1."""
ALL_MASKED_PROBABILITY = 0.1
"""Probability that every balance is masked, so that the blank state is in distribution."""


@dataclass(frozen=True, kw_only=True)
class StateBatch:
    """Tensors of B samples.

    Attributes:
        tokens_B3T: int64, the states before, after and masked.
        weights_B2A: float32, b_i / T before and after.
        targets_BA: int64, bucket of each balance before.
        masked_BA: bool, which of them are masked; at least one in each sample.
        hint_BAD: float32, what is added to the positions of the balances, in a pretraining with hints.
    """

    tokens_B3T: Tensor
    weights_B2A: Tensor
    targets_BA: Tensor
    masked_BA: Tensor
    hint_BAD: Tensor | None = None

    @property
    def num_samples(self) -> int:
        """B."""
        return self.tokens_B3T.shape[0]

    def part(self, start: int, stop: int) -> "StateBatch":
        """Return samples `start` to `stop`."""
        return StateBatch(
            tokens_B3T=self.tokens_B3T[start:stop],
            weights_B2A=self.weights_B2A[start:stop],
            targets_BA=self.targets_BA[start:stop],
            masked_BA=self.masked_BA[start:stop],
            hint_BAD=None if self.hint_BAD is None else self.hint_BAD[start:stop],
        )

    def to(self, device: torch.device) -> "StateBatch":
        """Return the same batch on a device."""
        return StateBatch(
            tokens_B3T=self.tokens_B3T.to(device),
            weights_B2A=self.weights_B2A.to(device),
            targets_BA=self.targets_BA.to(device),
            masked_BA=self.masked_BA.to(device),
            hint_BAD=None if self.hint_BAD is None else self.hint_BAD.to(device),
        )


def draw_masks(rng: np.random.Generator, *, num_samples: int, num_accounts: int) -> BoolArray:
    """Draw which balances are masked, bool (B, A).

    Each sample's rate is uniform in 0.15..1, and 1 with probability 0.1; at least one balance is masked.
    """
    rate_B1 = rng.uniform(MIN_MASK_RATE, 1.0, size=(num_samples, 1))
    rate_B1[rng.random(num_samples) < ALL_MASKED_PROBABILITY] = 1.0
    masked_BA: BoolArray = rng.random((num_samples, num_accounts)) < rate_B1
    masked_BA[np.arange(num_samples), rng.integers(num_accounts, size=num_samples)] = True
    return masked_BA


def evaluation_masks(seed: int, samples: Samples) -> BoolArray:
    """Return the masks of held-out samples: fixed by (seed, chain, step), the same for every encoder."""
    num_accounts = samples.before.shape[1]
    rows = [
        draw_masks(stream(seed, "mask", int(chain), int(step)), num_samples=1, num_accounts=num_accounts)
        for chain, step in zip(samples.chain, samples.step, strict=True)
    ]
    return np.concatenate(rows) if rows else np.zeros((0, num_accounts), dtype=np.bool_)


def make_batch(samples: Samples, masked_BA: BoolArray) -> StateBatch:
    """Return the tensors of samples under given masks."""
    states_B3T = np.stack(
        [tokens(samples.before), tokens(samples.after), tokens(samples.before, masked=masked_BA)], axis=1
    )
    return StateBatch(
        tokens_B3T=torch.from_numpy(states_B3T),
        weights_B2A=torch.from_numpy(balance_weights(samples)),
        targets_BA=torch.from_numpy(bucket(samples.before)),
        masked_BA=torch.from_numpy(masked_BA),
    )


def balance_weights(samples: Samples) -> npt.NDArray[np.float32]:
    """Return b_i / T before and after, float32 (B, 2, A); T is the chain's supply at the epoch's start."""
    balances_B2A: IntArray = np.stack([samples.before, samples.after], axis=1)
    return (balances_B2A / samples.supply_nano[:, None, None]).astype(np.float32)


def movement(samples: Samples) -> FloatArray:
    """Return |(b' - b) / T|_2 of each sample, float64 (B,): |sum delta| if V were orthonormal."""
    change_BA = (samples.after - samples.before) / samples.supply_nano[:, None]
    return np.asarray(np.linalg.norm(change_BA, axis=1), dtype=np.float64)
