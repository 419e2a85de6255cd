"""What a ledger looks like to a learner: how much changes, how unequal it is, and how well a bucket can be guessed.

Shapes: C chains of a block, S steps, A accounts, M = C * S batches, K buckets.
"""

from typing import Final

import numpy as np

from datagen.ledger.roles import num_rich
from nerv_fl.data.samples import ChainBlock
from nerv_fl.tokens import NUM_BUCKETS, bucket
from nerv_fl.types import BoolArray, FloatArray, IntArray

SMOOTHING: Final = 0.1


def unigram_cross_entropy(counts: IntArray) -> float:
    """Return the cross-entropy, in nats, of observations under their own frequencies: -sum p log p.

    Args:
        counts: int64 [K], how often each bucket was seen.

    >>> round(unigram_cross_entropy(np.array([2, 2, 0])), 4)
    0.6931
    """
    frequency = counts[counts > 0] / counts.sum()
    return float(-(frequency * np.log(frequency)).sum())


def account_cross_entropy(fitted: IntArray, *, scored: IntArray) -> float:
    """Return the cross-entropy, in nats, of a bucket under its account's frequencies in other chains.

    The frequency of bucket k at account i is (n_ik + 0.1) / (n_i + 0.1 K), n being the fitted counts.

    Args:
        fitted: int64 [A, K], counts that give the frequencies.
        scored: int64 [A, K], counts of the observations to predict.

    >>> round(account_cross_entropy(np.array([[5, 5]]), scored=np.array([[1, 3]])), 4)
    0.6931
    """
    smooth = fitted + SMOOTHING
    surprise = -np.log(smooth / smooth.sum(axis=1, keepdims=True))
    return float((scored * surprise).sum() / scored.sum())


class Measures:
    """Running measures of a ledger, block after block.

    Args:
        num_accounts: A.
    """

    def __init__(self, num_accounts: int) -> None:
        self.transactions = 0
        self.kinds = [0, 0, 0]
        self._rich = num_rich(num_accounts)
        self._counts = np.zeros((2, num_accounts, NUM_BUCKETS), dtype=np.int64)
        self._chains = 0
        self._changed: list[FloatArray] = []
        self._moved: list[FloatArray] = []
        self._rich_shares: list[FloatArray] = []

    def update(self, block: ChainBlock, *, changed: BoolArray) -> None:
        """Add the next chains.

        Args:
            block: The chains.
            changed: bool [M, A], the accounts whose bucket each batch changes.
        """
        self.transactions += len(block.kind)
        self.kinds = [old + int(new) for old, new in zip(self.kinds, np.bincount(block.kind, minlength=3), strict=True)]
        moved = np.abs(np.diff(block.balances, axis=1)).sum(axis=2) / block.supply_nano[:, None]
        ranked = np.sort(block.balances[:, 0], axis=1)
        self._changed.append(changed.mean(axis=1))
        self._moved.append(moved.reshape(-1))
        self._rich_shares.append(ranked[:, -self._rich :].sum(axis=1) / block.supply_nano)
        self._count_buckets(block.balances)

    def median_changed(self) -> float:
        """Return the fraction of accounts whose bucket changes, in the median batch."""
        return float(np.median(np.concatenate(self._changed)))

    def median_moved(self) -> float:
        """Return the sum of absolute changes of balance over the supply at step 0, in the median batch."""
        return float(np.median(np.concatenate(self._moved)))

    def rich_share(self) -> float:
        """Return the part of the supply at step 0 that the richest fifth hold, mean over chains."""
        return float(np.concatenate(self._rich_shares).mean())

    def unigram_ce(self) -> float:
        """Return the cross-entropy of a bucket under the frequencies of all accounts together."""
        return unigram_cross_entropy(self._counts.sum(axis=(0, 1)))

    def account_ce(self) -> float:
        """Return the cross-entropy of a bucket in odd chains under its account's frequencies in even ones.

        A file of one chain is scored on itself.
        """
        even, odd = self._counts
        return account_cross_entropy(even, scored=odd if odd.any() else even)

    def _count_buckets(self, balances: IntArray) -> None:
        num_chains, _, num_accounts = balances.shape
        odd = (self._chains + np.arange(num_chains)) % 2
        place = (odd[:, None, None] * num_accounts + np.arange(num_accounts)) * NUM_BUCKETS + bucket(balances)
        counts = np.bincount(place.reshape(-1), minlength=self._counts.size)
        self._counts += counts.reshape(self._counts.shape)
        self._chains += num_chains
