"""The consensus file: races of candidate blocks, shard after shard, in HDF5. `race_writer` makes it.

    race/outcome, num_validators, num_events, num_votes, num_candidates     [shards * races]
    race/weight                             uint16 [shards * races, 64]     reputation of each validator
    candidate/valid, tamper, careful, proposer, priority, num_transactions  [candidates]
    candidate/announced_transactions, _energy, _minted                      [candidates]    what its header says
    tx/kind, sender, receiver, amount_nano                                  [transactions]  as in a ledger file
    event/token                             uint16 [events]                 see `nerv_fl.quorum`
    shard/supply_nano, split, sha256                                        [shards]

Races, candidates, transactions and events stand in one order, so counts say which belong to which. Deltas are not
stored: they follow from the transactions and whichever encoder there is.

Attributes have a fixed length: HDF5 keeps others in a heap without a checksum, and loops for ever when it is damaged.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from nerv_fl.data.consensus_checks import check_block
from nerv_fl.data.consensus_schema import (
    CANDIDATE_COLUMNS,
    DTYPES,
    KIND,
    RACE_COLUMNS,
    SCHEMA_VERSION,
    TX_COLUMNS,
    RaceBlock,
    RaceInfo,
    shapes,
)
from nerv_fl.data.hdf5 import Handle
from nerv_fl.data.load_schema import SPLITS
from nerv_fl.data.read_errors import naming_damage
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.types import IntArray
from nerv_fl.validation import one_of


class RaceFile:
    """A consensus file, open for reading; it may be pickled or forked, and then opens the file anew.

    Args:
        path: The file.

    Raises:
        DataError: If the file is missing, truncated, incomplete, or not a consensus file of this schema.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle = Handle(self.path, what=KIND)
        try:
            with naming_damage(self.path, what="its description"):
                self.info = _describe(self._handle)
        except DataError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file, if this process has it open; the next read opens it again."""
        self._handle.close()

    def handle(self) -> h5py.File:
        """Return the open HDF5 file of this process."""
        return self._handle.file()

    @property
    def num_races(self) -> int:
        """Races of all shards."""
        return self.info.shards * self.info.races

    def shards_of(self, split: str) -> IntArray:
        """Return the numbers of the shards of a split: train, validation or test."""
        one_of("split", split, choices=SPLITS)
        return np.flatnonzero(self.array("shard/split") == SPLITS.index(split))

    def shard(self, number: int) -> RaceBlock:
        """Read all races of a shard.

        Raises:
            ConfigError: If there is no such shard.
            DataError: If the file is damaged.
        """
        if not 0 <= number < self.info.shards:
            raise ConfigError(f"shard is {number}, expected 0 to {self.info.shards - 1} (of {self.path})")
        events, candidates, transactions = self._spans(number)
        races = slice(number * self.info.races, (number + 1) * self.info.races)
        block = RaceBlock(
            supply_nano=int(self.array("shard/supply_nano", number)),
            token=self.array("event/token", events),
            **{name: self.array(f"race/{name}", races) for name in RACE_COLUMNS},
            **{name: self.array(f"candidate/{name}", candidates) for name in CANDIDATE_COLUMNS},
            **{name: self.array(f"tx/{name}", transactions) for name in TX_COLUMNS},
        )
        check_block(block, where=f"{self.path}: shard {number}", accounts=self.info.accounts)
        return block

    def array(self, name: str, *selection: int | slice) -> npt.NDArray[Any]:
        """Read a dataset, or a part of it."""
        return self._handle.array(name, selection or slice(None))

    def _spans(self, number: int) -> tuple[slice, slice, slice]:
        events, candidates, transactions = self._ends
        return tuple(slice(int(ends[number]), int(ends[number + 1])) for ends in (events, candidates, transactions))  # type: ignore[return-value]

    @cached_property
    def _ends(self) -> tuple[IntArray, IntArray, IntArray]:
        """Where the events, candidates and transactions of each shard begin, int64 [shards + 1] each."""
        of_race = [_ends(self.array(f"race/{name}"), self.info.races) for name in ("num_events", "num_candidates")]
        before = np.concatenate([[0], np.cumsum(self.array("candidate/num_transactions"), dtype=np.int64)])
        ends = (of_race[0], of_race[1], before[np.minimum(of_race[1], len(before) - 1)])
        for name, found in zip(("event/token", "candidate/valid", "tx/kind"), ends, strict=True):
            length = len(self._handle.dataset(name))
            if found[-1] != length:
                raise DataError(f"{self.path}: {name} has {length} entries, expected {found[-1]} by the races' counts")
        return ends


def _ends(counts: npt.NDArray[Any], races: int) -> IntArray:
    of_shard = counts.reshape(-1, races).sum(axis=1, dtype=np.int64)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(of_shard)])


def _describe(handle: Handle) -> RaceInfo:
    found = handle.require_kind(KIND, schema_version=SCHEMA_VERSION)
    numbers = {name: int(found[name]) for name in ("shards", "races", "accounts", "max_transactions", "seed")}
    info = RaceInfo(**numbers, generator=str(found["generator"]), content_sha256=str(found["content_sha256"]))
    file, fixed_shapes = handle.file(), shapes(info.shards, info.races)
    for name, dtype in DTYPES.items():
        lead = {"candidate": "candidate/valid", "tx": "tx/kind"}.get(name.partition("/")[0], name)
        shape = fixed_shapes.get(name, file[lead].shape)
        handle.require(name, found=(str(file[name].dtype), file[name].shape), expected=(dtype, shape))
    return info
