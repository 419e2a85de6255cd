"""What accounts want to do: who acts in each slot of a batch, on whom, and with what part of the balance.

Every draw and every float is NumPy's, in one order for a whole block, so the orders of a block do not depend on how
they are carried out.

Shapes: C chains of a block, S steps, J transaction slots of a batch, A accounts, R roles.
"""

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from datagen.ledger.roles import Cast, role_starts
from nerv_fl.tokens import BURN, MINT, TRANSFER
from nerv_fl.types import FloatArray, IntArray

MINT_SHARE: Final = 0.0075
BURN_SHARE: Final = 0.0075
MEDIAN_FRACTION: Final = 0.11
FRACTION_SD: Final = 0.8
MAX_FRACTION: Final = 0.9
ACTIVITY_SKEW: Final = 1.3


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What accounts want to do, before balances decide how much of it they can: arrays [S, J, C].

    Attributes:
        kind: uint8, transfer, mint or burn.
        actor: int64, the account that sends, is minted to, or burns.
        receiver: int64, the other account of a transfer; the next one if it is the actor.
        fraction: float32, the part of the actor's balance at stake, in (0, 0.9].
        counts: int64 [S, C], the number of slots of each batch that are used.
    """

    kind: npt.NDArray[np.uint8]
    actor: IntArray
    receiver: IntArray
    fraction: npt.NDArray[np.float32]
    counts: IntArray


def draw_orders(stream: np.random.Generator, *, cast: Cast, steps: int, max_transactions: int) -> Orders:
    """Draw who acts in each slot, on whom, and with what part of the balance.

    Args:
        stream: Random stream of the block.
        cast: Its accounts.
        steps: S.
        max_transactions: J.

    Returns:
        The orders of the block.
    """
    shape = (steps, max_transactions, len(cast.position))
    lot = stream.random(shape, dtype=np.float32)
    kind = np.full(shape, TRANSFER, dtype=np.uint8)
    kind[lot < MINT_SHARE + BURN_SHARE] = BURN
    kind[lot < MINT_SHARE] = MINT
    actor = _draw_accounts(stream, cast=cast, cumulative=cast.sends, shape=shape)
    receiver = _draw_accounts(stream, cast=cast, cumulative=cast.receives, shape=shape)
    normal = stream.standard_normal(shape, dtype=np.float32)
    median = (MEDIAN_FRACTION * cast.traits.fraction).astype(np.float32)
    fraction = np.minimum(median * np.exp(FRACTION_SD * normal), MAX_FRACTION).astype(np.float32)
    counts = stream.integers(1, max_transactions + 1, (steps, shape[2]))
    counts = np.maximum((counts * cast.traits.volume).astype(np.int64), 1)
    return Orders(kind=kind, actor=actor, receiver=receiver, fraction=fraction, counts=counts)


def _draw_accounts(
    stream: np.random.Generator, *, cast: Cast, cumulative: FloatArray, shape: tuple[int, int, int]
) -> IntArray:
    """Draw accounts, first the role, then its member, the earlier in the registry the likelier: [S, J, C]."""
    lot = stream.random(shape, dtype=np.float32)
    skewed = stream.random(shape, dtype=np.float32) ** np.float32(ACTIVITY_SKEW)
    starts = role_starts(cast.position.shape[1])
    accounts = np.empty(shape, dtype=np.int64)
    _look_up(
        lot.reshape(-1, shape[2]),
        skewed.reshape(-1, shape[2]),
        cumulative.astype(np.float32),
        starts,
        cast.position,
        accounts.reshape(-1, shape[2]),
    )
    return accounts


@numba.njit(cache=True)
def _look_up(
    lot: npt.NDArray[np.float32],
    skewed: npt.NDArray[np.float32],
    cumulative: npt.NDArray[np.float32],
    starts: IntArray,
    position: IntArray,
    accounts: IntArray,
) -> None:
    """Turn two uniform numbers into an account, for each slot [S J, C]."""
    for slot in range(lot.shape[0]):
        for chain in range(lot.shape[1]):
            role = 0
            for number in range(cumulative.shape[1] - 1):
                role += lot[slot, chain] >= cumulative[chain, number]
            size = starts[role + 1] - starts[role]
            member = min(np.int64(np.float64(skewed[slot, chain]) * size), size - 1)
            accounts[slot, chain] = position[chain, starts[role] + member]
