"""Which coalitions to evaluate: complement pairs, the outer sizes whole while the budget allows.

A Shapley value depends only on a game's odd part [v(C) - v(N - C)] / 2, so coalitions come with their complements. A
size c is drawn in proportion to sum_{|C| = c} w(C) with the kernel weight w(C) of kernel SHAP, (N - 1) / (binom(N, c) c
(N - c)), that is to 1 / (c (N - c)); a size whose every coalition fits in its share is taken whole, and no pair twice.

Sources: I. Covert and S.-I. Lee, "Improving KernelSHAP", AISTATS 2021, section 3 (pairs); S. Lundberg and S.-I. Lee,
"A unified approach to interpreting model predictions", NeurIPS 2017, theorem 2 (weights); C. Musco and R. T. Witter,
"Provably accurate Shapley value estimation via leverage score sampling", ICLR 2025, algorithm 1 (without replacement).

Shapes: P pairs, N players.
"""

from itertools import combinations
from math import comb

import numpy as np

from nerv_fl.rng import stream
from nerv_fl.types import BoolArray


def draw_pairs(num_players: int, num_pairs: int, *, seed: int, path: tuple[int | str, ...] = ()) -> BoolArray:
    """Return one coalition of each pair, the pairs in an order of which any beginning is a fair sample.

    Args:
        num_players: N.
        num_pairs: P; all 2^(N-1) - 1 pairs but the grand one, if that is fewer.
        seed: Seed.
        path: What distinguishes this draw from others of the seed.

    Returns:
        Boolean [P, N]: no empty or grand coalition, no pair twice.
    """
    draw = stream(seed, "shapley", "pairs", *path)
    counts = {size: _pairs_of_size(num_players, size) for size in range(1, num_players // 2 + 1)}
    quotas = _quotas(num_players, counts, num_pairs=min(num_pairs, sum(counts.values())))
    rows: list[BoolArray] = []
    for size, quota in quotas.items():
        whole = quota == counts[size]
        rows += _all_of(num_players, size) if whole else _some_of(num_players, size, quota=quota, draw=draw)
    if not rows:
        return np.zeros((0, num_players), dtype=np.bool_)
    return np.stack(rows)[draw.permutation(len(rows))]


def _pairs_of_size(num_players: int, size: int) -> int:
    both = comb(num_players, size)
    return both // 2 if 2 * size == num_players else both


def _quotas(num_players: int, counts: dict[int, int], *, num_pairs: int) -> dict[int, int]:
    """Return how many pairs of each size are taken; their sum is `num_pairs`."""
    quotas: dict[int, int] = {}
    open_sizes = sorted(counts)
    left = num_pairs
    while open_sizes:
        weights = np.array([1 / (size * (num_players - size)) for size in open_sizes])
        shares = left * weights / weights.sum()
        full = [size for size, share in zip(open_sizes, shares, strict=True) if counts[size] <= share]
        if not full:
            return quotas | _rounded(dict(zip(open_sizes, shares.tolist(), strict=True)), total=left, most=counts)
        for size in full:
            quotas[size] = counts[size]
            open_sizes.remove(size)
            left -= counts[size]
    return quotas


def _rounded(shares: dict[int, float], *, total: int, most: dict[int, int]) -> dict[int, int]:
    """Return integers near the shares with the given sum, by largest remainder."""
    quotas = {size: int(share) for size, share in shares.items()}
    order = sorted(shares, key=lambda size: (quotas[size] - shares[size], size))
    while sum(quotas.values()) < total:
        for size in order:
            if sum(quotas.values()) < total and quotas[size] < most[size]:
                quotas[size] += 1
    return quotas


def _all_of(num_players: int, size: int) -> list[BoolArray]:
    rows = []
    for members in combinations(range(num_players), size):
        if 2 * size == num_players and members[0] != 0:
            break
        rows.append(_mask(num_players, members))
    return rows


def _some_of(num_players: int, size: int, *, quota: int, draw: np.random.Generator) -> list[BoolArray]:
    taken: dict[bytes, BoolArray] = {}
    while len(taken) < quota:
        row = _mask(num_players, tuple(draw.permutation(num_players)[:size].tolist()))
        if 2 * size == num_players and not row[0]:
            row = ~row
        taken.setdefault(row.tobytes(), row)
    return list(taken.values())


def _mask(num_players: int, members: tuple[int, ...]) -> BoolArray:
    row = np.zeros(num_players, dtype=np.bool_)
    row[list(members)] = True
    return row
