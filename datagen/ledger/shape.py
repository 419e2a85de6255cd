"""What a ledger is drawn from, and how it is cut into blocks and parts."""

import math
from dataclasses import dataclass
from typing import Final

from datagen.ledger.roles import PROFILES
from nerv_fl.data.schema import chunk_shape, fixed_shapes
from nerv_fl.tokens import MAX_BATCH, MAX_SUPPLY_NANO, NO_ACCOUNT
from nerv_fl.validation import in_range, one_of

GENERATOR: Final = "datagen.ledger/2"
MIN_ACCOUNTS: Final = 8
MAX_CHAINS_PER_BLOCK: Final = 1024
MAX_BLOCK_VALUES: Final = 2**22
MAX_PART_VALUES: Final = 2**23


@dataclass(frozen=True, kw_only=True)
class LedgerShape:
    """What the content of a ledger follows from.

    Attributes:
        chains: Number of chains, at least 1; a chain is the history of one shard.
        steps: Batches of each chain, at least 1.
        accounts: Accounts of a shard, 8 to 65,534.
        max_transactions: Largest batch, 1 to 256; sizes are uniform from 1.
        profile: `live` (roles in registry order) or `genesis` (roles shuffled).
        seed: Seed of every stream.
        heterogeneity: How much the kinds of shard differ, 0 to 1 (see `datagen.ledger.kinds`).
        supply_nano: Supply of every chain at step 0, at least one NANO an account; 0 draws it log-uniform in
            10^15..10^16 NANO.

    Raises:
        ConfigError: If one is out of range.
    """

    chains: int
    steps: int = 8
    accounts: int = 64
    max_transactions: int = 16
    profile: str = "live"
    seed: int = 7
    heterogeneity: float = 0.0
    supply_nano: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        in_range("chains", self.chains, low=1, high=2**31)
        in_range("steps", self.steps, low=1, high=2**20)
        in_range("accounts", self.accounts, low=MIN_ACCOUNTS, high=NO_ACCOUNT - 1)
        in_range("max_transactions", self.max_transactions, low=1, high=MAX_BATCH)
        one_of("profile", self.profile, choices=PROFILES)
        in_range("seed", self.seed, low=0, high=2**63 - 1)
        in_range("heterogeneity", self.heterogeneity, low=0, high=1)
        if self.supply_nano:
            in_range("supply_nano", self.supply_nano, low=self.accounts, high=MAX_SUPPLY_NANO)

    @property
    def chains_per_block(self) -> int:
        """How many chains share a random stream: as many as memory allows, at most 1,024."""
        values = (self.steps + 1) * self.accounts + 4 * self.steps * self.max_transactions
        return max(1, min(MAX_CHAINS_PER_BLOCK, MAX_BLOCK_VALUES // values))

    @property
    def chains_per_part(self) -> int:
        """How many chains a part holds: whole blocks and whole chunks of the file, about 64 MiB of balances."""
        shapes = fixed_shapes(chains=self.chains, steps=self.steps, accounts=self.accounts)
        unit = math.lcm(self.chains_per_block, chunk_shape(shapes["balances"], itemsize=8)[0])
        return unit * max(1, MAX_PART_VALUES // (unit * (self.steps + 1) * self.accounts))
