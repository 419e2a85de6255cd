"""The candidates of a race, compiled: batches taken from one mempool, and what Byzantine proposers do to theirs.

amount   a transfer's amount is multiplied by 2 to 50
replay   transactions of a block that was finalised up to four blocks ago come again
mint     a mint that nobody authorised
sign     sender and receiver are exchanged
"""

import math
from typing import Any, Final

import numpy as np

from datagen.consensus.validators import below, compiled
from nerv_fl.tokens import MAX_BATCH, MAX_SUPPLY_NANO, MINT, NO_ACCOUNT, TRANSFER

AMOUNT, REPLAY, MINTED, SIGN = 1, 2, 3, 4
MIN_KEEP: Final = 0.85
"""A proposer's mempool holds this part of the transactions, or more."""
TRIES: Final = 4
"""A tamperer looks at so many transactions, and takes the largest transfer."""
EXCHANGED: Final = 0.5
MIN_REPLAYED: Final = 0.3
"""Part of the other transfers whose sign is exchanged, and least part of a past batch that comes again."""
MIN_FACTOR: Final = 2.0
MAX_FACTOR: Final = 50.0
MINT_FRACTION: Final = (1e-5, 1e-2)
_NOBODY = NO_ACCOUNT


@compiled
def choose(pool: Any, out: Any, first: int, rng: np.random.Generator) -> int:
    """Copy what a proposer has of the mempool to ``out`` from ``first`` on; return where it ends.

    Args:
        pool: (kind, sender, receiver, amount) of the mempool.
        out: The same columns, long enough.
        first: Where to begin.
        rng: What follows from.
    """
    keep = MIN_KEEP + (1.0 - MIN_KEEP) * rng.random()
    last = first
    for x in range(len(pool[0])):
        if rng.random() < keep:
            last = _copy(pool, x, out, last)
    return last if last > first else _copy(pool, 0, out, first)


@compiled
def _copy(source: Any, x: int, out: Any, at: int) -> int:
    out[0][at], out[1][at] = source[0][x], source[1][x]
    out[2][at], out[3][at] = source[2][x], source[3][x]
    return at + 1


@compiled
def announce(out: Any, first: int, last: int, supply: float) -> tuple[int, float, float]:
    """Return what a true header says of a batch: transactions, energy, and what it mints less what it burns."""
    squares, minted = 0.0, 0.0
    for x in range(first, last):
        a = out[3][x] / supply
        if out[0][x] == TRANSFER:
            squares += 2.0 * a * a
        else:
            squares += a * a
            minted += a if out[0][x] == MINT else -a
    return last - first, math.sqrt(squares), minted


@compiled
def _pick_transfer(out: Any, first: int, last: int, rng: np.random.Generator) -> int:
    """Return the largest transfer of a few; -1 if there is none among them."""
    best = -1
    for _ in range(TRIES):
        x = first + below(last - first, rng)
        if out[0][x] == TRANSFER and (best < 0 or out[3][x] > out[3][best]):
            best = x
    return best


@compiled
def _mint(out: Any, last: int, place: Any, rng: np.random.Generator) -> int:
    supply, accounts = place
    low, high = math.log(MINT_FRACTION[0]), math.log(MINT_FRACTION[1])
    out[0][last], out[1][last] = MINT, _NOBODY
    out[2][last] = below(accounts, rng)
    out[3][last] = np.int64(supply * math.exp(low + (high - low) * rng.random()))
    return last + 1


@compiled
def _replay(out: Any, span: Any, past: Any, rng: np.random.Generator) -> int:
    """Append a part of a past batch, or all of it."""
    first, last = int(span[0]), int(span[1])
    block = below(len(past), rng)
    part = MIN_REPLAYED + (1.0 - MIN_REPLAYED) * rng.random()
    for x in range(past[block, 0], past[block, 1]):
        if rng.random() < part and last - first < MAX_BATCH:
            last = _copy(out, x, out, last)
    return last


@compiled
def tamper(out: Any, span: Any, place: Any, past: Any, rng: np.random.Generator) -> tuple[int, int]:
    """Tamper with a batch in one of the four ways.

    Args:
        out: Columns of the transactions; the batch is ``span``, (first, last), and may grow.
        span: Where it lies.
        place: (supply in NANO, accounts).
        past: int64 [P, 2], where finalised batches lie in ``out``.
        rng: What follows from.

    Returns:
        What was done, an index into `TAMPERS`, and where the batch ends now.
    """
    first, last = span
    way = 1 + below(SIGN, rng)
    if way == REPLAY and len(past):
        longer = _replay(out, span, past, rng)
        if longer > last:
            return REPLAY, longer
    x = _pick_transfer(out, first, last, rng)
    if way == MINTED or x < 0:
        return MINTED, _mint(out, last, place, rng)
    if way == SIGN:
        for y in range(first, last):
            if y == x or (out[0][y] == TRANSFER and rng.random() < EXCHANGED):
                out[1][y], out[2][y] = out[2][y], out[1][y]
        return SIGN, last
    factor = MIN_FACTOR * math.exp(math.log(MAX_FACTOR / MIN_FACTOR) * rng.random())
    out[3][x] = min(np.int64(out[3][x] * factor) + 1, MAX_SUPPLY_NANO)
    return AMOUNT, last
