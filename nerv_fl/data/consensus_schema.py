"""What a consensus file holds; see `nerv_fl.data.consensus` for the file, and `nerv_fl.quorum` for what a race is.

Shapes: R races, C candidates of all races, E events, N transactions.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nerv_fl.quorum import MAX_VALIDATORS
from nerv_fl.types import FloatArray, IntArray

SCHEMA_VERSION: Final = 1
KIND: Final = "consensus"
TAMPERS: Final = ("none", "amount", "replay", "mint", "sign")

RACE_COLUMNS: Final[Mapping[str, str]] = {
    "outcome": "uint8",
    "num_validators": "uint8",
    "num_events": "uint16",
    "num_votes": "uint16",
    "num_candidates": "uint8",
    "weight": "uint16",
}
CANDIDATE_COLUMNS: Final[Mapping[str, str]] = {
    "valid": "uint8",
    "tamper": "uint8",
    "careful": "uint8",
    "proposer": "uint8",
    "priority": "uint8",
    "num_transactions": "uint16",
    "announced_transactions": "uint16",
    "announced_energy": "float64",
    "announced_minted": "float64",
}
TX_COLUMNS: Final[Mapping[str, str]] = {
    "kind": "uint8",
    "sender": "uint16",
    "receiver": "uint16",
    "amount_nano": "int64",
}

SHARD_COLUMNS: Final[Mapping[str, str]] = {"supply_nano": "int64", "split": "uint8", "sha256": "uint8"}
DTYPES: Final = {
    **{f"race/{name}": dtype for name, dtype in RACE_COLUMNS.items()},
    **{f"candidate/{name}": dtype for name, dtype in CANDIDATE_COLUMNS.items()},
    **{f"tx/{name}": dtype for name, dtype in TX_COLUMNS.items()},
    **{f"shard/{name}": dtype for name, dtype in SHARD_COLUMNS.items()},
    "event/token": "uint16",
}


@dataclass(frozen=True, kw_only=True)
class RaceBlock:
    """Races of one shard, in the order of their blocks.

    Attributes:
        supply_nano: Supply T of the shard that amounts are divided by.
        outcome: uint8 [R], the candidate that was finalised; `NO_OUTCOME` if none was.
        num_validators: uint8 [R], 24 to 64.
        num_events: uint16 [R].
        num_votes: uint16 [R].
        num_candidates: uint8 [R], 2 to 4.
        weight: uint16 [R, 64], reputation of each validator, 1 to 1,000; 0 beyond their number.
        token: uint16 [E].
        valid: uint8 [C].
        tamper: uint8 [C], index into `TAMPERS`.
        careful: uint8 [C], whether the header was made to match the tampered batch.
        proposer: uint8 [C].
        priority: uint8 [C], its rank in the race, 0 the best.
        num_transactions: uint16 [C].
        announced_transactions: uint16 [C].
        announced_energy: float64 [C], sqrt(2 sum a^2 of transfers + sum a^2 of mints and burns) / T of the header.
        announced_minted: float64 [C], (minted - burned) / T of the header.
        kind: uint8 [N], transfer, mint or burn.
        sender: uint16 [N], 65535 for a mint.
        receiver: uint16 [N], 65535 for a burn.
        amount_nano: int64 [N].
    """

    supply_nano: int
    outcome: npt.NDArray[np.uint8]
    num_validators: npt.NDArray[np.uint8]
    num_events: npt.NDArray[np.uint16]
    num_votes: npt.NDArray[np.uint16]
    num_candidates: npt.NDArray[np.uint8]
    weight: npt.NDArray[np.uint16]
    token: npt.NDArray[np.uint16]
    valid: npt.NDArray[np.uint8]
    tamper: npt.NDArray[np.uint8]
    careful: npt.NDArray[np.uint8]
    proposer: npt.NDArray[np.uint8]
    priority: npt.NDArray[np.uint8]
    num_transactions: npt.NDArray[np.uint16]
    announced_transactions: npt.NDArray[np.uint16]
    announced_energy: FloatArray
    announced_minted: FloatArray
    kind: npt.NDArray[np.uint8]
    sender: npt.NDArray[np.uint16]
    receiver: npt.NDArray[np.uint16]
    amount_nano: IntArray

    @property
    def num_races(self) -> int:
        """R."""
        return len(self.outcome)

    def event_offset(self) -> IntArray:
        """Return where the events of each race begin, int64 [R + 1]."""
        return _offset(self.num_events)

    def candidate_offset(self) -> IntArray:
        """Return where the candidates of each race begin, int64 [R + 1]."""
        return _offset(self.num_candidates)

    def tx_offset(self) -> IntArray:
        """Return where the transactions of each candidate begin, int64 [C + 1]."""
        return _offset(self.num_transactions)

    def digest(self) -> bytes:
        """Return the SHA-256 of all values."""
        found = hashlib.sha256(str(self.supply_nano).encode())
        for field in fields(self)[1:]:
            values: npt.NDArray[Any] = getattr(self, field.name)
            found.update(np.ascontiguousarray(values).data)
        return found.digest()


@dataclass(frozen=True, kw_only=True)
class RaceInfo:
    """What a consensus file holds.

    Attributes:
        shards: Number of shards.
        races: Races of each shard, one after another.
        accounts: Accounts of a shard.
        max_transactions: Largest mempool.
        seed: Seed of everything drawn.
        generator: Name and version of the program that drew it.
        content_sha256: Hash of the shards' hashes.
    """

    shards: int
    races: int
    accounts: int
    max_transactions: int
    seed: int
    generator: str
    content_sha256: str


def shapes(shards: int, races: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each dataset whose length is not drawn."""
    of_races = {f"race/{name}": (shards * races,) for name in RACE_COLUMNS}
    return {
        **of_races,
        "race/weight": (shards * races, MAX_VALIDATORS),
        "shard/supply_nano": (shards,),
        "shard/split": (shards,),
        "shard/sha256": (shards, hashlib.sha256().digest_size),
    }


def _offset(counts: npt.NDArray[Any]) -> IntArray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
