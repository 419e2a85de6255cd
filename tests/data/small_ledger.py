"""A ledger of 33 samples whose every number tells its place, and a way to damage it."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nerv_fl.data import ChainBlock, LedgerInfo, write_ledger

CHAINS, STEPS, ACCOUNTS = 11, 3, 8


def make_block(first: int, last: int) -> ChainBlock:
    """Return chains whose every number tells its place; batch (chain, step) has (chain + step) % 4 + 1 transactions."""
    chain = np.arange(first, last)
    balances = chain[:, None, None] * 1000 + np.arange(STEPS + 1)[:, None] * 100 + np.arange(ACCOUNTS)
    counts = (chain[:, None] + np.arange(STEPS)) % 4 + 1
    amount = np.concatenate([[sample * 10 + j for j in range(n)] for sample, n in enumerate(counts.reshape(-1))])
    amount = amount + first * STEPS * 10
    return ChainBlock(
        balances=balances.astype(np.int64),
        supply_nano=chain + 7,
        shard_kind=(chain % 5).astype(np.uint8),
        kind=(amount % 3).astype(np.uint8),
        sender=(amount % 5).astype(np.uint16),
        receiver=(amount % 7).astype(np.uint16),
        amount_nano=amount.astype(np.int64),
        counts=counts,
    )


def write(path: Path, *, cuts: tuple[int, ...] = (0, 4, CHAINS)) -> LedgerInfo:
    blocks = [make_block(first, last) for first, last in pairwise(cuts)]
    return write_ledger(
        path, blocks, chains=CHAINS, steps=STEPS, accounts=ACCOUNTS, seed=5, profile="live", generator="test/1"
    )


def edit(path: Path, change: Callable[[Any], object]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
