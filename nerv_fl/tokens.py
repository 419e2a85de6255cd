"""Balances, transactions and tokens of one shard: the facts every other part agrees on.

Balances are int64 NANO. A shard holds at most 10^7 NERV = 10^16 NANO, so no sum of balances, and no amount, overflows.

Shapes: A accounts, B samples, T = 1 + 2A tokens.
"""

from typing import Final

import numpy as np

from nerv_fl.errors import DataError
from nerv_fl.types import BoolArray, IntArray

NANO_PER_NERV: Final = 10**9
MAX_SUPPLY_NANO: Final = 10**16
NUM_BUCKETS: Final = 256
MAX_BATCH: Final = 256
NO_ACCOUNT: Final = 65_535
TRANSFER: Final = 0
MINT: Final = 1
BURN: Final = 2
CLS_TOKEN: Final = 0
SHARD_KINDS: Final = ("mixed", "exchange", "payroll", "retail", "dormant")
"""What a shard is used for; the index is what ledger files hold."""


def _bucket_edges() -> IntArray:
    """Return the smallest integer whose bucket is at least k, for k = 1..252: ceil(2^((k - 1) / 4)), exactly."""
    edges = []
    for quarter in range(4 * 63):
        edge = round(2 ** (quarter / 4))
        while edge**4 < 2**quarter:
            edge += 1
        while edge > 1 and (edge - 1) ** 4 >= 2**quarter:
            edge -= 1
        edges.append(edge)
    return np.array(edges, dtype=np.int64)


BUCKET_EDGES: Final = _bucket_edges()


def vocabulary_size(num_accounts: int) -> int:
    """Return the number of tokens: CLS, one for each account, one for each bucket."""
    return 1 + num_accounts + NUM_BUCKETS


def sequence_length(num_accounts: int) -> int:
    """Return the number of tokens of one state: CLS, then (account, bucket) for each account."""
    return 1 + 2 * num_accounts


def bucket(balances: IntArray) -> IntArray:
    """Return the balance bucket of each balance.

    Bucket 0 is a zero balance, else 1 + floor(4 log2 b): quarter octaves, computed on integers, so exact at every edge.

    Args:
        balances: int64, any shape, NANO, in [0, 2^63).

    Returns:
        int64 buckets in [0, 252], same shape.

    Raises:
        DataError: If a balance is negative.

    >>> bucket(np.array([0, 1, 2, 3, 4, 10**16])).tolist()
    [0, 1, 5, 7, 9, 213]
    """
    if balances.size and int(balances.min()) < 0:
        raise DataError(f"balance is {int(balances.min())} NANO, expected at least 0")
    return np.searchsorted(BUCKET_EDGES, balances, side="right").astype(np.int64)


def tokens(balances: IntArray, *, masked: BoolArray | None = None) -> IntArray:
    """Return the token sequence of each state.

    Token 0 is CLS; then, for each account i, the token 1 + i and the token 1 + A + bucket(b_i). A masked balance is the
    CLS token in its balance's place.

    Args:
        balances: int64 [..., A], NANO.
        masked: bool [..., A], or None for no mask.

    Returns:
        int64 [..., 1 + 2A].

    >>> tokens(np.array([0, 2]), masked=np.array([False, True])).tolist()
    [0, 1, 3, 2, 0]
    """
    num_accounts = balances.shape[-1]
    sequence = np.empty((*balances.shape[:-1], sequence_length(num_accounts)), dtype=np.int64)
    sequence[..., 0] = CLS_TOKEN
    sequence[..., 1::2] = 1 + np.arange(num_accounts)
    balance_tokens = 1 + num_accounts + bucket(balances)
    if masked is not None:
        balance_tokens = np.where(masked, CLS_TOKEN, balance_tokens)
    sequence[..., 2::2] = balance_tokens
    return sequence
