"""What the races of a shard must be to be read at all: counts, kinds and accounts within their ranges.

Whether they follow the rule, and are what their seed gives, is for `datagen.consensus.verify` to prove.
"""

import numpy as np
import numpy.typing as npt

from nerv_fl.data.consensus_schema import RaceBlock
from nerv_fl.errors import DataError
from nerv_fl.quorum import MAX_CANDIDATES, MAX_EVENTS, NO_OUTCOME, TIMEOUT
from nerv_fl.tokens import BURN, MAX_BATCH, MAX_SUPPLY_NANO, MINT, NO_ACCOUNT
from nerv_fl.types import BoolArray


def check_block(block: RaceBlock, *, where: str, accounts: int) -> None:
    """Raise unless a shard's values are within their ranges.

    Args:
        block: The shard.
        where: File and shard, for messages.
        accounts: Accounts of the shard.

    Raises:
        DataError: If a value is not, naming the race, candidate, event or transaction.
    """
    for name, low, high in (("num_candidates", 1, MAX_CANDIDATES), ("num_events", 1, MAX_EVENTS)):
        _within(getattr(block, name), low=low, high=high, what=f"{where}, race {{row}}: {name}")
    _within(block.num_transactions, low=1, high=MAX_BATCH, what=f"{where}, candidate {{row}}: num_transactions")
    _within(block.token >> 12, low=0, high=TIMEOUT, what=f"{where}, event {{row}}: kind")
    for race in np.flatnonzero((block.outcome != NO_OUTCOME) & (block.outcome >= block.num_candidates))[:1]:
        raise DataError(
            f"{where}, race {race}: outcome is {block.outcome[race]}, "
            f"expected {NO_OUTCOME} or below {block.num_candidates[race]}"
        )
    for row in np.flatnonzero(~_sound(block, accounts=accounts))[:1]:
        raise DataError(
            f"{where}, transaction {row}: kind {block.kind[row]}, {block.sender[row]} to {block.receiver[row]}, "
            f"{block.amount_nano[row]} NANO, expected accounts below {accounts} and at most {MAX_SUPPLY_NANO} NANO"
        )


def _within(values: npt.NDArray[np.integer], *, low: int, high: int, what: str) -> None:
    for row in np.flatnonzero((values < low) | (values > high))[:1]:
        raise DataError(f"{what.format(row=row)} is {values[row]}, expected {low} to {high}")


def _sound(block: RaceBlock, *, accounts: int) -> BoolArray:
    nobody = (block.sender == NO_ACCOUNT, block.receiver == NO_ACCOUNT)
    sound = (nobody[0] == (block.kind == MINT)) & (nobody[1] == (block.kind == BURN)) & (block.kind <= BURN)
    sound &= (nobody[0] | (block.sender < accounts)) & (nobody[1] | (block.receiver < accounts))
    return np.asarray(sound & (block.amount_nano >= 0) & (block.amount_nano <= MAX_SUPPLY_NANO))
