"""Synthetic ledgers: shards whose balances evolve, batch after batch, by transfers, mints and burns.

Chains are drawn in blocks of a size that the shape alone decides, each block from its own random stream, so the same
arguments give the same file, byte for byte, whoever writes it.

Shapes: C chains of a block, S steps, J transaction slots of a batch, A accounts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from datagen.roles import PROFILES, Cast, draw_cast, role_starts
from nerv_fl import rng
from nerv_fl.arrays import FloatArray, IntArray
from nerv_fl.checks import in_range, one_of
from nerv_fl.ledger import BURN, MAX_BATCH, MAX_SUPPLY_NANO, MINT, NO_ACCOUNT, TRANSFER
from nerv_fl.store import ChainBlock, LedgerInfo, write_ledger

GENERATOR: Final = "datagen.ledger/1"
MIN_ACCOUNTS: Final = 8
MAX_CHAINS_PER_BLOCK: Final = 1024
MAX_BLOCK_VALUES: Final = 2**25
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


def generate_ledger(
    path: str | Path,
    *,
    chains: int,
    steps: int,
    accounts: int,
    max_transactions: int,
    profile: str,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> LedgerInfo:
    """Write a file of synthetic chains.

    Args:
        path: File to write; replaced once the new one is whole.
        chains: Number of chains, at least 1.
        steps: Batches of each chain, at least 1.
        accounts: Accounts of a shard, 8 to 65,534.
        max_transactions: Largest batch, 1 to 256; sizes are uniform from 1.
        profile: `live` (roles in registry order) or `genesis` (roles shuffled).
        seed: Seed of every stream.
        progress: Called after each block with the number of chains in it.

    Returns:
        What the file holds.

    Raises:
        ConfigError: If an argument is out of range.

    Guarantees:
        The same arguments give the same bytes (same versions of NumPy and HDF5, same type of CPU).
    """
    in_range("chains", chains, low=1, high=2**31)
    in_range("steps", steps, low=1, high=2**20)
    in_range("accounts", accounts, low=MIN_ACCOUNTS, high=NO_ACCOUNT - 1)
    in_range("max_transactions", max_transactions, low=1, high=MAX_BATCH)
    one_of("profile", profile, choices=PROFILES)

    def blocks() -> Iterator[ChainBlock]:
        size = chains_per_block(steps=steps, accounts=accounts, max_transactions=max_transactions)
        for number, first in enumerate(range(0, chains, size)):
            stream = rng.stream(seed, "ledger", profile, number)
            num_chains = min(size, chains - first)
            cast = draw_cast(stream, num_chains=num_chains, num_accounts=accounts, profile=profile)
            yield settle(cast, orders=draw_orders(stream, cast=cast, steps=steps, max_transactions=max_transactions))
            if progress is not None:
                progress(num_chains)

    return write_ledger(
        path, blocks(), chains=chains, steps=steps, accounts=accounts, seed=seed, profile=profile, generator=GENERATOR
    )


def chains_per_block(*, steps: int, accounts: int, max_transactions: int) -> int:
    """Return how many chains are drawn together: as many as memory allows, at most 1,024."""
    values = (steps + 1) * accounts + 4 * steps * max_transactions
    return max(1, min(MAX_CHAINS_PER_BLOCK, MAX_BLOCK_VALUES // values))


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
    fraction = stream.standard_normal(shape, dtype=np.float32)
    fraction = np.minimum(MEDIAN_FRACTION * np.exp(FRACTION_SD * fraction), MAX_FRACTION).astype(np.float32)
    counts = stream.integers(1, max_transactions + 1, (steps, shape[2]))
    return Orders(kind=kind, actor=actor, receiver=receiver, fraction=fraction, counts=counts)


def settle(cast: Cast, *, orders: Orders) -> ChainBlock:
    """Carry out the orders one slot after another, in every chain at once.

    An actor without a balance is replaced by the richest account, and a mint that would lift the supply above 10^16
    NANO becomes a burn, so every order can be carried out.

    Args:
        cast: Accounts and balances at step 0.
        orders: What they want to do.

    Returns:
        The chains: every state, and every transaction as it happened.
    """
    shards = _Shards(cast.opening, supply_nano=cast.supply_nano)
    num_steps, num_slots, num_chains = orders.kind.shape
    states = np.empty((num_chains, num_steps + 1, cast.opening.shape[1]), dtype=np.int64)
    states[:, 0] = shards.balances
    kind = np.zeros(orders.kind.shape, dtype=np.uint8)
    sender = np.zeros(kind.shape, dtype=np.uint16)
    receiver = np.zeros(kind.shape, dtype=np.uint16)
    amount = np.zeros(kind.shape, dtype=np.int64)
    for step, slot in np.ndindex(num_steps, num_slots):
        rows = np.flatnonzero(orders.counts[step] > slot)
        at = (step, slot, rows)
        kind[at], sender[at], receiver[at], amount[at] = shards.carry_out(orders, step=step, slot=slot, rows=rows)
        if slot == num_slots - 1:
            states[:, step + 1] = shards.balances
    used = (np.arange(num_slots)[:, None] < orders.counts[:, None]).transpose(2, 0, 1)
    return ChainBlock(
        balances=states,
        supply_nano=cast.supply_nano,
        kind=kind.transpose(2, 0, 1)[used],
        sender=sender.transpose(2, 0, 1)[used],
        receiver=receiver.transpose(2, 0, 1)[used],
        amount_nano=amount.transpose(2, 0, 1)[used],
        counts=np.ascontiguousarray(orders.counts.T),
    )


class _Shards:
    """The current balances and supplies of a block of chains."""

    def __init__(self, balances: IntArray, *, supply_nano: IntArray) -> None:
        self.balances = balances.copy()
        self._flat = self.balances.reshape(-1)
        self._supply_nano = supply_nano.copy()

    def carry_out(
        self, orders: Orders, *, step: int, slot: int, rows: IntArray
    ) -> tuple[npt.NDArray[np.uint8], IntArray, IntArray, IntArray]:
        """Carry out one order in each of some chains; return the kinds, senders, receivers and amounts."""
        num_accounts = self.balances.shape[1]
        kind, receiver = orders.kind[step, slot, rows], orders.receiver[step, slot, rows]
        actor = self._solvent(rows, orders.actor[step, slot, rows])
        receiver = np.where(receiver == actor, (receiver + 1) % num_accounts, receiver)
        balance = self._flat[rows * num_accounts + actor]
        amount = np.maximum((orders.fraction[step, slot, rows] * balance).astype(np.int64), 1)
        too_much = (kind == MINT) & (self._supply_nano[rows] + amount > MAX_SUPPLY_NANO)
        kind = np.where(too_much, np.uint8(BURN), kind)
        self._flat[rows * num_accounts + actor] += np.where(kind == MINT, amount, -amount)
        self._flat[rows * num_accounts + receiver] += np.where(kind == TRANSFER, amount, 0)
        self._supply_nano[rows] += np.where(kind == MINT, amount, np.where(kind == BURN, -amount, 0))
        sender = np.where(kind == MINT, NO_ACCOUNT, actor)
        return kind, sender, np.where(kind == TRANSFER, receiver, np.where(kind == MINT, actor, NO_ACCOUNT)), amount

    def _solvent(self, rows: IntArray, actor: IntArray) -> IntArray:
        """Put the richest account in the place of an actor that holds nothing."""
        empty = self.balances[rows, actor] == 0
        if not empty.any():
            return actor
        solvent = actor.copy()
        solvent[empty] = self.balances[rows[empty]].argmax(axis=1)
        return solvent


def _draw_accounts(
    stream: np.random.Generator, *, cast: Cast, cumulative: FloatArray, shape: tuple[int, int, int]
) -> IntArray:
    """Draw accounts, first the role, then its member, the earlier in the registry the likelier: [S, J, C]."""
    num_accounts = cast.position.shape[1]
    starts = role_starts(num_accounts)
    lot = stream.random(shape, dtype=np.float32)
    role = np.zeros(shape, dtype=np.int64)
    for number in range(cumulative.shape[1] - 1):
        role += lot >= cumulative[:, number].astype(np.float32)
    skewed = stream.random(shape, dtype=np.float32) ** np.float32(ACTIVITY_SKEW)
    size = np.diff(starts)
    entry = starts[role] + np.minimum((skewed * size[role]).astype(np.int64), size[role] - 1)
    return np.asarray(np.take(cast.position, np.arange(shape[2]) * num_accounts + entry))
