"""What the ledger file gives and takes: samples, and whole chains.

Shapes: B samples, A accounts, C chains, S steps, N transactions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nerv_fl.types import IntArray

Columns = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], npt.NDArray[np.uint16], IntArray]

COLUMNS: Final = ("kind", "sender", "receiver", "amount_nano")


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The transactions of B samples: those of sample i are offset[i] to offset[i + 1].

    Attributes:
        kind: uint8 [N], transfer, mint or burn.
        sender: uint16 [N], 65535 for a mint.
        receiver: uint16 [N], 65535 for a burn.
        amount_nano: int64 [N].
        offset: int64 [B + 1].
    """

    kind: npt.NDArray[np.uint8]
    sender: npt.NDArray[np.uint16]
    receiver: npt.NDArray[np.uint16]
    amount_nano: IntArray
    offset: IntArray


@dataclass(frozen=True, kw_only=True)
class Samples:
    """B samples, in the order they were asked for.

    Attributes:
        before: int64 [B, A], NANO.
        after: int64 [B, A], NANO.
        supply_nano: int64 [B], the supply of the sample's chain at step 0.
        chain: int64 [B].
        step: int64 [B].
        batches: Their transactions, if asked for.
    """

    before: IntArray
    after: IntArray
    supply_nano: IntArray
    chain: IntArray
    step: IntArray
    batches: Batches | None = None


@dataclass(frozen=True, kw_only=True)
class ChainBlock:
    """Some whole chains, in order; transactions are chain-major.

    Attributes:
        balances: int64 [C, S + 1, A], NANO.
        supply_nano: int64 [C], the supply at step 0.
        shard_kind: uint8 [C], index into `nerv_fl.tokens.SHARD_KINDS`.
        kind: uint8 [N].
        sender: uint16 [N].
        receiver: uint16 [N].
        amount_nano: int64 [N].
        counts: int64 [C, S], the number of transactions of each batch; they sum to N.
    """

    balances: IntArray
    supply_nano: IntArray
    shard_kind: npt.NDArray[np.uint8]
    kind: npt.NDArray[np.uint8]
    sender: npt.NDArray[np.uint16]
    receiver: npt.NDArray[np.uint16]
    amount_nano: IntArray
    counts: IntArray

    def columns(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return the transactions' columns in the order of `COLUMNS`."""
        return self.kind, self.sender, self.receiver, self.amount_nano


def chain_digests(block: ChainBlock) -> npt.NDArray[np.uint8]:
    """Return the SHA-256 of every value of each chain, uint8 [C, 32]: it does not depend on the chain's block."""
    ends = np.cumsum(block.counts.sum(axis=1))
    begins = ends - block.counts.sum(axis=1)
    per_chain = (block.balances, block.supply_nano, block.shard_kind, block.counts)
    whole = [np.ascontiguousarray(values) for values in per_chain]
    digests = np.empty((len(ends), hashlib.sha256().digest_size), dtype=np.uint8)
    for chain, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
        digest = hashlib.sha256()
        for values in (*(values[chain : chain + 1] for values in whole), *(c[begin:end] for c in block.columns())):
            digest.update(np.ascontiguousarray(values).data)
        digests[chain] = np.frombuffer(digest.digest(), dtype=np.uint8)
    return digests


class ContentDigest:
    """Hash of a ledger's values that does not depend on how its chains are cut into blocks, parts or files.

    It is the SHA-256 of the chains' own hashes, one after another.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, digests: npt.NDArray[np.uint8]) -> None:
        """Add the hashes of the next chains, uint8 [C, 32] (see `chain_digests`)."""
        self._hash.update(np.ascontiguousarray(digests).data)

    def hexdigest(self) -> str:
        """Return the hash of everything added so far."""
        return self._hash.hexdigest()


def span_of(indices: IntArray, *, more: int) -> slice:
    """Return the slice from the smallest index to ``more`` places after the largest.

    >>> span_of(np.array([5, 3]), more=1)
    slice(3, 6, None)
    """
    return slice(int(indices.min()), int(indices.max()) + more)


def runs(chain: IntArray, *, limit: int) -> list[IntArray]:
    """Group samples that one read can serve: their chains follow each other without a gap.

    Args:
        chain: int64 [B], the chain of each sample.
        limit: Most chains in a run.

    Returns:
        The positions, in 0..B-1, of each run's samples; every position is in one run.

    >>> [run.tolist() for run in runs(np.array([4, 9, 3, 4]), limit=100)]
    [[2, 0, 3], [1]]
    """
    order = np.argsort(chain, kind="stable")
    ranked = chain[order]
    ends = (np.diff(ranked) > 1) | (np.diff(ranked // limit) > 0)
    return [group for group in np.split(order, np.flatnonzero(ends) + 1) if len(group)]


def join_batches(groups: Sequence[IntArray], *, parts: Sequence[tuple[IntArray, IntArray, Columns]]) -> Batches:
    """Put the transactions of samples that were read in runs into the order of the samples.

    Args:
        groups: Positions of each run's samples (see `runs`).
        parts: For each run, the batch of each of its samples, counted from the run's first; the offsets of the run's
            batches, from 0; the run's transactions.

    Returns:
        The batches, in order of position.
    """
    num_samples = sum(len(group) for group in groups)
    counts, starts = np.zeros((2, num_samples), dtype=np.int64)
    read = 0
    for group, (batch, offset, _) in zip(groups, parts, strict=True):
        counts[group], starts[group] = np.diff(offset)[batch], read + offset[batch]
        read += int(offset[-1])
    ends = np.cumsum(counts)
    place = np.repeat(starts - (ends - counts), counts) + np.arange(counts.sum())
    nothing: Columns = (np.empty(0, np.uint8), np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.int64))
    kind, sender, receiver, amount_nano = zip(nothing, *(columns for *_, columns in parts), strict=True)
    return Batches(
        kind=np.concatenate(kind)[place],
        sender=np.concatenate(sender)[place],
        receiver=np.concatenate(receiver)[place],
        amount_nano=np.concatenate(amount_nano)[place],
        offset=np.concatenate([[0], ends]),
    )
