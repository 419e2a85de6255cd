"""How shards differ: kinds of shard, and one knob that says how far apart they are.

A kind multiplies the activity of each role, shifts its level, and scales the size of batches and of amounts. With
heterogeneity h every multiplier m becomes m^h and every shift d becomes h d: at 0 all shards are drawn from the same
distribution, at 1 a payroll shard hardly resembles an exchange's.

Shapes: C chains, R roles.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nerv_fl import rng
from nerv_fl.tokens import SHARD_KINDS
from nerv_fl.types import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class ShardKind:
    """What the shards of one kind have in common; roles in the order exchange, treasury, merchant, retail, dormant.

    Attributes:
        levels: Added to the mean log balance of each role, nats.
        sends: Factor of each role's weight as a sender.
        receives: Factor of each role's weight as a receiver.
        volume: Factor of the largest batch.
        fraction: Factor of the part of its balance that a sender moves.
    """

    levels: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    sends: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    receives: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    volume: float = 1.0
    fraction: float = 1.0


KINDS: Final = {
    "mixed": ShardKind(),
    "exchange": ShardKind(
        levels=(0.8, 0.0, -0.3, 0.0, 0.0),
        sends=(6.0, 1.0, 0.5, 0.8, 1.0),
        receives=(6.0, 1.0, 0.5, 0.8, 1.0),
    ),
    "payroll": ShardKind(
        levels=(-0.5, 0.8, 0.0, 0.2, 0.0),
        sends=(0.3, 25.0, 0.5, 0.2, 0.5),
        receives=(0.3, 0.5, 0.7, 2.0, 0.5),
        fraction=0.3,
    ),
    "retail": ShardKind(
        levels=(-0.8, -0.5, 0.5, 0.3, 0.0),
        sends=(0.2, 0.3, 0.6, 1.6, 0.5),
        receives=(0.2, 0.3, 3.0, 0.8, 0.5),
    ),
    "dormant": ShardKind(
        levels=(0.0, 0.5, -0.3, -0.3, 0.8),
        sends=(0.5, 1.0, 0.5, 0.6, 6.0),
        receives=(0.5, 1.0, 0.5, 0.6, 6.0),
        volume=0.25,
        fraction=0.6,
    ),
}
assert tuple(KINDS) == SHARD_KINDS


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the kinds of a block's chains come to.

    Attributes:
        kind: uint8-valued int64 [C], index into `SHARD_KINDS`.
        levels: float64 [C, R], nats.
        sends: float64 [C, R], factors.
        receives: float64 [C, R], factors.
        volume: float64 [C], factor in (0, 1].
        fraction: float64 [C], factor in (0, 1].
    """

    kind: IntArray
    levels: FloatArray
    sends: FloatArray
    receives: FloatArray
    volume: FloatArray
    fraction: FloatArray


def draw_kinds(seed: int, *, profile: str, block: int, num_chains: int, heterogeneity: float) -> IntArray:
    """Draw the kind of each chain of a block, uniform over all but `mixed`; all are `mixed` without heterogeneity."""
    if heterogeneity == 0:
        return np.zeros(num_chains, dtype=np.int64)
    return rng.stream(seed, "shard-kinds", profile, block).integers(1, len(SHARD_KINDS), num_chains)


def traits_of(kind: IntArray, *, heterogeneity: float) -> Traits:
    """Return the traits of chains of some kinds.

    Args:
        kind: int64 [C], index into `SHARD_KINDS`.
        heterogeneity: h in [0, 1].

    >>> traits = traits_of(np.array([0, 4]), heterogeneity=0.5)
    >>> traits.volume.tolist(), traits.levels[1].tolist()
    ([1.0, 0.5], [0.0, 0.25, -0.15, -0.15, 0.4])
    """
    kinds = list(KINDS.values())

    def factors(name: str) -> FloatArray:
        return np.asarray(np.array([getattr(kind, name) for kind in kinds]) ** heterogeneity)[kind]

    return Traits(
        kind=kind,
        levels=(heterogeneity * np.array([kind.levels for kind in kinds]))[kind],
        sends=factors("sends"),
        receives=factors("receives"),
        volume=factors("volume"),
        fraction=factors("fraction"),
    )
