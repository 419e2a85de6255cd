"""Who holds what: the roles of accounts, and the balances and activities that follow from them.

A registry lists exchanges first, then treasuries, merchants, retail and dormant accounts. The profile `live` keeps that
order, so an account's position tells its role; `genesis` shuffles the accounts of every chain, so it tells nothing.

Shapes: C chains, A accounts, R roles.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from datagen.ledger.kinds import Traits
from nerv_fl.tokens import MAX_SUPPLY_NANO
from nerv_fl.types import FloatArray, IntArray

PROFILES: Final = ("genesis", "live")
MIN_SUPPLY_NANO: Final = 10**15
RICH_FRACTION: Final = 0.2
RICH_SHARE: Final = 0.8
SHARD_LEVEL_SD: Final = 0.4
ACCOUNT_LEVEL_SD: Final = 0.3
SHARD_ACTIVITY_SD: Final = 0.4
EMPTY_DORMANT: Final = 0.1
BISECTIONS: Final = 18
CACHED_ROWS: Final = 16


@dataclass(frozen=True, kw_only=True)
class Role:
    """What accounts of one kind have in common.

    Attributes:
        name: The field's word for it.
        share: Fraction of the accounts that have this role.
        level: Mean log balance in nats, before the scale is solved.
        spread: How far the level falls from the first to the last account of the role, in nats.
        sends: Weight as the sender of a transaction, for the role as a whole.
        receives: Weight as the receiver of a transaction, for the role as a whole.
    """

    name: str
    share: float
    level: float
    spread: float
    sends: float
    receives: float


ROLES: Final = (
    Role(name="exchange", share=0.06, level=3.0, spread=1.0, sends=0.08, receives=0.08),
    Role(name="treasury", share=0.06, level=2.6, spread=1.0, sends=0.02, receives=0.02),
    Role(name="merchant", share=0.18, level=1.0, spread=1.8, sends=0.20, receives=0.22),
    Role(name="retail", share=0.50, level=-0.7, spread=2.2, sends=0.65, receives=0.60),
    Role(name="dormant", share=0.20, level=-2.2, spread=2.0, sends=0.05, receives=0.08),
)
DORMANT: Final = len(ROLES) - 1


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The accounts of a block of chains, and how active each role is there.

    Attributes:
        position: int64 [C, A], the index of each registry entry: the identity in `live`, a permutation in `genesis`.
        opening: int64 [C, A], NANO held at step 0, by index.
        supply_nano: int64 [C], the sum of `opening`.
        sends: float64 [C, R], cumulative probability that a sender has one of the roles up to this.
        receives: float64 [C, R], the same of a receiver.
        traits: What the kinds of the chains come to.
    """

    position: IntArray
    opening: IntArray
    supply_nano: IntArray
    sends: FloatArray
    receives: FloatArray
    traits: Traits


def role_starts(num_accounts: int) -> IntArray:
    """Return where each role begins in the registry, and its end: int64 [R + 1].

    Every role has at least one account.

    >>> role_starts(64).tolist()
    [0, 4, 8, 19, 51, 64]
    >>> role_starts(8).tolist()
    [0, 1, 2, 3, 6, 8]
    """
    share = np.cumsum([role.share for role in ROLES])
    starts = np.concatenate([[0], np.floor(share * num_accounts + 0.5)]).astype(np.int64)
    first = np.arange(len(ROLES) + 1)
    return np.clip(starts, first, num_accounts - first[::-1])


def num_rich(num_accounts: int) -> int:
    """Return how many accounts are the richest fifth, rounded, at least one."""
    return max(1, round(RICH_FRACTION * num_accounts))


def draw_cast(
    rng: np.random.Generator, *, traits: Traits, num_accounts: int, profile: str, supply_nano: int = 0
) -> Cast:
    """Draw the accounts of a block of chains.

    The log balance of registry entry i with role r in chain c is s_c (level_i + u_cr + w_ci) up to the supply; s_c
    is solved so that the richest fifth hold 80 % of it.

    Args:
        rng: Stream of this block.
        traits: Of the C chains.
        num_accounts: A, at least 8.
        profile: One of `PROFILES`.
        supply_nano: Supply of every chain; 0 draws it log-uniform in 10^15..10^16.

    Returns:
        The block's accounts.
    """
    num_chains = len(traits.kind)
    log_balance = _draw_levels(rng, traits=traits, num_accounts=num_accounts)
    position = np.tile(np.arange(num_accounts), (num_chains, 1))
    if profile == "genesis":
        position = rng.permuted(position, axis=1)
    supply = np.exp(rng.uniform(np.log(MIN_SUPPLY_NANO), np.log(MAX_SUPPLY_NANO), num_chains)).astype(np.int64)
    if supply_nano:
        supply = np.full(num_chains, supply_nano)
    opening = np.empty((num_chains, num_accounts), dtype=np.int64)
    np.put_along_axis(opening, position, _share_out(supply, weights=_tilt(log_balance)), axis=1)
    return Cast(
        position=position,
        opening=opening,
        supply_nano=supply,
        sends=_draw_activity(rng, weights=[role.sends for role in ROLES], factors=traits.sends),
        receives=_draw_activity(rng, weights=[role.receives for role in ROLES], factors=traits.receives),
        traits=traits,
    )


def solve_scale(log_balance: FloatArray) -> FloatArray:
    """Return the scale s of each chain at which the richest fifth of exp(s x) hold 80 %.

    The share grows with s, from the fifth's part of the non-empty accounts to 1, so bisection on log s finds it.

    Args:
        log_balance: float64 [C, A]; minus infinity is an empty account.

    Returns:
        float64 [C], in [2^-6, 2^6], to a relative 3e-5.
    """
    # A few rows at a time: they stay in the processor's cache through all bisections.
    rows = range(0, len(log_balance), CACHED_ROWS)
    return np.concatenate([_solve_rows(log_balance[row : row + CACHED_ROWS]) for row in rows])


def _solve_rows(log_balance: FloatArray) -> FloatArray:
    below_top = np.sort(log_balance, axis=1)[:, ::-1]
    below_top = below_top - below_top[:, :1]
    rich = num_rich(log_balance.shape[1])
    low = np.full(len(log_balance), -6.0)
    high = np.full(len(log_balance), 6.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        weights = np.exp(np.exp2(middle)[:, None] * below_top)
        too_equal = weights[:, :rich].sum(axis=1) < RICH_SHARE * weights.sum(axis=1)
        low, high = np.where(too_equal, middle, low), np.where(too_equal, high, middle)
    return np.asarray(np.exp2((low + high) / 2))


def _draw_levels(rng: np.random.Generator, *, traits: Traits, num_accounts: int) -> FloatArray:
    """Return the unscaled log balance of each registry entry, [C, A]; some dormant accounts are empty."""
    starts, num_chains = role_starts(num_accounts), len(traits.kind)
    of_shard = rng.normal(0.0, SHARD_LEVEL_SD, (num_chains, len(ROLES))) + traits.levels
    level = rng.normal(0.0, ACCOUNT_LEVEL_SD, (num_chains, num_accounts))
    for number, role in enumerate(ROLES):
        first, last = starts[number], starts[number + 1]
        slope = np.linspace(role.spread / 2, -role.spread / 2, last - first) if last - first > 1 else 0.0
        level[:, first:last] += role.level + slope + of_shard[:, number, None]
    dormant = level[:, starts[DORMANT] :]
    dormant[rng.random(dormant.shape) < EMPTY_DORMANT] = -np.inf
    return level


def _draw_activity(rng: np.random.Generator, *, weights: list[float], factors: FloatArray) -> FloatArray:
    """Return the cumulative probability of each role, varied by shard: [C, R]."""
    varied = np.array(weights) * np.exp(rng.normal(0.0, SHARD_ACTIVITY_SD, factors.shape)) * factors
    return np.asarray(np.cumsum(varied, axis=1) / varied.sum(axis=1, keepdims=True))


def _tilt(log_balance: FloatArray) -> FloatArray:
    scaled = solve_scale(log_balance)[:, None] * (log_balance - log_balance.max(axis=1, keepdims=True))
    weights = np.exp(scaled)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _share_out(supply_nano: IntArray, *, weights: FloatArray) -> IntArray:
    """Split each supply by weight; what rounding leaves goes to the richest account."""
    balances = (supply_nano[:, None] * weights).astype(np.int64)
    rows = np.arange(len(balances))
    balances[rows, balances.argmax(axis=1)] += supply_nano - balances.sum(axis=1)
    return balances
