"""Carrying out orders, one transaction after another, by a compiled kernel.

Shapes: C chains of a block, S steps, J transaction slots of a batch, A accounts, N transactions.
"""

import numba
import numpy as np
import numpy.typing as npt

from datagen.ledger.intents import Orders
from datagen.ledger.roles import Cast
from nerv_fl.data import ChainBlock
from nerv_fl.tokens import BURN, MAX_SUPPLY_NANO, MINT, NO_ACCOUNT, TRANSFER
from nerv_fl.types import IntArray

_NOBODY = np.uint16(NO_ACCOUNT)


def settle(cast: Cast, *, orders: Orders) -> ChainBlock:
    """Carry out the orders of every chain, slot after slot.

    An actor without a balance is replaced by the richest account, and a mint that would lift the supply above 10^16
    NANO becomes a burn, so every order can be carried out.

    Args:
        cast: Accounts and balances at step 0.
        orders: What they want to do.

    Returns:
        The chains: every state, and every transaction as it happened.
    """
    num_steps, _, num_chains = orders.kind.shape
    counts = np.ascontiguousarray(orders.counts.T)
    ends = np.cumsum(counts.reshape(-1))
    begins = (ends - counts.reshape(-1)).reshape(counts.shape)
    states = np.empty((num_chains, num_steps + 1, cast.opening.shape[1]), dtype=np.int64)
    states[:, 0] = cast.opening
    kind = np.empty(ends[-1], dtype=np.uint8)
    sender, receiver = np.empty((2, ends[-1]), dtype=np.uint16)
    amount = np.empty(ends[-1], dtype=np.int64)
    supply = cast.supply_nano.copy()
    fields = (orders.kind, orders.actor, orders.receiver, orders.fraction)
    _carry_out(states, supply, counts, begins, *fields, kind, sender, receiver, amount)
    return ChainBlock(
        balances=states,
        supply_nano=cast.supply_nano,
        shard_kind=cast.traits.kind.astype(np.uint8),
        kind=kind,
        sender=sender,
        receiver=receiver,
        amount_nano=amount,
        counts=counts,
    )


@numba.njit(cache=True)
def _carry_out(
    states: IntArray,
    supply: IntArray,
    counts: IntArray,
    begins: IntArray,
    order_kind: npt.NDArray[np.uint8],
    order_actor: IntArray,
    order_receiver: IntArray,
    order_fraction: npt.NDArray[np.float32],
    kind: npt.NDArray[np.uint8],
    sender: npt.NDArray[np.uint16],
    receiver: npt.NDArray[np.uint16],
    amount: IntArray,
) -> None:
    """Fill the states after step 0 and the transactions' columns; loops over chains inside slots, as draws lie."""
    num_chains, num_states, num_accounts = states.shape
    for step in range(num_states - 1):
        states[:, step + 1] = states[:, step]
        for slot in range(order_kind.shape[1]):
            for chain in range(num_chains):
                if slot >= counts[chain, step]:
                    continue
                held = states[chain, step + 1]
                actor, target = order_actor[step, slot, chain], order_receiver[step, slot, chain]
                if held[actor] == 0:
                    actor = held.argmax()
                if target == actor:
                    target = (target + 1) % num_accounts
                moved = max(np.int64(np.float64(order_fraction[step, slot, chain]) * held[actor]), np.int64(1))
                what = order_kind[step, slot, chain]
                if what == MINT and supply[chain] + moved > MAX_SUPPLY_NANO:
                    what = np.uint8(BURN)
                at = begins[chain, step] + slot
                kind[at], amount[at] = what, moved
                sender[at] = _NOBODY if what == MINT else np.uint16(actor)
                receiver[at] = np.uint16(target) if what == TRANSFER else _NOBODY
                if what == MINT:
                    receiver[at] = np.uint16(actor)
                    held[actor] += moved
                    supply[chain] += moved
                elif what == BURN:
                    held[actor] -= moved
                    supply[chain] -= moved
                else:
                    held[actor] -= moved
                    held[target] += moved
