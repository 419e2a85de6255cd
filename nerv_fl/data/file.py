"""The ledger file: chains of states and the batches between them, in HDF5. `writer` makes it.

    balances          int64  [chains, steps + 1, accounts]   NANO
    tx/kind           uint8  [transactions]                  0 transfer, 1 mint, 2 burn
    tx/sender         uint16 [transactions]                  65535 where there is none: a mint
    tx/receiver       uint16 [transactions]                  65535 where there is none: a burn
    tx/amount_nano    int64  [transactions]
    batch/offset      int64  [chains * steps + 1]            where each batch begins in tx, chain-major
    chain/supply_nano int64  [chains]                        supply at step 0
    chain/shard_kind  uint8  [chains]                        0 mixed, 1 exchange, 2 payroll, 3 retail, 4 dormant
    chain/sha256      uint8  [chains, 32]                    hash of the chain's values

Sample k is step k % steps of chain k // steps: the state before, the batch, the state after.

Attributes have a fixed length: HDF5 keeps others in a heap without a checksum, and loops for ever when it is damaged.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import h5py
import numpy as np
import numpy.typing as npt

from nerv_fl.data.chunks import gather, is_plain
from nerv_fl.data.hdf5 import Handle, is_fixed
from nerv_fl.data.read_errors import naming_damage
from nerv_fl.data.samples import COLUMNS, Batches, ChainBlock, Columns, Samples, join_batches, runs, span_of
from nerv_fl.data.schema import DTYPES, JOINED_BY, LedgerInfo, check_offsets, check_schema
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.types import IntArray

MAX_RUN_BYTES: Final = 2**26


class LedgerFile:
    """A ledger file, open for reading; it may be pickled or forked, and then opens the file anew.

    Args:
        path: The file.

    Raises:
        DataError: If the file is missing, truncated, incomplete, or not a ledger of this schema.

    Guarantees:
        `read` decompresses only the chunks that hold the samples asked for.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle = Handle(self.path, what="ledger")
        try:
            self.info = self._describe()
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

    @property
    def num_transactions(self) -> int:
        """Number of transactions of all batches."""
        return len(self._handle.dataset("tx/kind"))

    def require_accounts(self, num_accounts: int) -> None:
        """Raise unless the ledger has as many accounts as the model.

        Raises:
            DataError: If the numbers differ.
        """
        if self.info.accounts != num_accounts:
            raise DataError(f"{self.path} has {self.info.accounts} accounts, expected {num_accounts} (the model's)")

    def require_like(self, other: "LedgerFile") -> None:
        """Raise unless the ledger was drawn like another, so that their chains can stand in one data set.

        Raises:
            DataError: If they differ in steps, accounts, seed, profile or generator.
        """
        for name in JOINED_BY:
            found, expected = getattr(self.info, name), getattr(other.info, name)
            if found != expected:
                raise DataError(f"{self.path}: {name} is {found!r}, expected {expected!r} as in {other.path}")

    def read(self, sample_ids: IntArray | Sequence[int], *, with_batches: bool = False) -> Samples:
        """Read samples.

        Args:
            sample_ids: int [B], each in [0, chains * steps), in any order, repeated or not.
            with_batches: Whether to read the transactions too.

        Returns:
            The samples, in the order given.

        Raises:
            ConfigError: If a sample does not exist.
            DataError: If the file is damaged.
        """
        ids = np.asarray(sample_ids, dtype=np.int64)
        for wrong in ids[(ids < 0) | (ids >= self.info.num_samples)][:1]:
            raise ConfigError(f"sample is {wrong}, expected 0 to {self.info.num_samples - 1} (of {self.path})")
        chain, step = np.divmod(ids, self.info.steps)
        states = self._states(np.concatenate([chain, chain]), step=np.concatenate([step, step + 1]))
        return Samples(
            before=states[: len(ids)],
            after=states[len(ids) :],
            supply_nano=self._supply_nano[chain],
            chain=chain,
            step=step,
            batches=self._read_batches(ids) if with_batches else None,
        )

    def read_chains(self, start: int, stop: int) -> ChainBlock:
        """Read the chains from ``start`` up to, not including, ``stop``, whole.

        Raises:
            ConfigError: If the range is empty or leaves the file.
            DataError: If the file is damaged.
        """
        if not 0 <= start < stop <= self.info.chains:
            raise ConfigError(f"chains are {start} to {stop}, expected a range within 0 to {self.info.chains}")
        span = slice(start * self.info.steps, stop * self.info.steps + 1)
        offset, (kind, sender, receiver, amount_nano) = self._read_transactions(span)
        return ChainBlock(
            balances=self._handle.array("balances", slice(start, stop)),
            supply_nano=self._handle.array("chain/supply_nano", slice(start, stop)),
            shard_kind=self._handle.array("chain/shard_kind", slice(start, stop)),
            kind=kind,
            sender=sender,
            receiver=receiver,
            amount_nano=amount_nano,
            counts=np.diff(offset).reshape(stop - start, self.info.steps),
        )

    def shard_kinds(self) -> npt.NDArray[np.uint8]:
        """Return the kind of each chain's shard, uint8 [chains]: indices into `nerv_fl.tokens.SHARD_KINDS`.

        Raises:
            DataError: If the file is damaged.
        """
        return self._handle.array("chain/shard_kind", slice(None))

    def chain_digests(self) -> npt.NDArray[np.uint8]:
        """Return the hash of each chain as the writer recorded it, uint8 [chains, 32].

        Raises:
            DataError: If the file is damaged.
        """
        return self._handle.array("chain/sha256", slice(None))

    def _states(self, chain: IntArray, *, step: IntArray) -> IntArray:
        """Return the state of each chain before a step, int64 [B, A]."""
        dataset = self._handle.dataset("balances")
        with naming_damage(self.path, what="balances"):
            if is_plain(dataset):
                return gather(dataset, chain, columns=step)
            rows = [dataset[row, column] for row, column in zip(chain, step, strict=True)]
            return np.array(rows, dtype=np.int64).reshape(len(chain), self.info.accounts)

    def _read_batches(self, ids: IntArray) -> Batches:
        groups, parts = self._runs(ids // self.info.steps), []
        for group in groups:
            span = span_of(ids[group], more=2)
            parts.append((ids[group] - span.start, *self._read_transactions(span)))
        return join_batches(groups, parts=parts)

    def _read_transactions(self, span: slice) -> tuple[IntArray, Columns]:
        """Read the transactions between some offsets, and those offsets from the first on."""
        offset: IntArray = self._handle.array("batch/offset", span)
        check_offsets(self.path, offset, first=span.start, steps=self.info.steps, total=self.num_transactions)
        rows = slice(int(offset[0]), int(offset[-1]))
        kind, sender, receiver, amount_nano = (self._handle.array(f"tx/{name}", rows) for name in COLUMNS)
        return offset - offset[0], (kind, sender, receiver, amount_nano)

    def _runs(self, chain: IntArray) -> list[IntArray]:
        return runs(chain, limit=max(1, MAX_RUN_BYTES // (8 * self.info.accounts * (self.info.steps + 1))))

    def _describe(self) -> LedgerInfo:
        with naming_damage(self.path, what="its description"):
            file = self._handle.file()
            found = {name: file[name] for name in DTYPES if isinstance(file.get(name), h5py.Dataset)}
            datasets = {name: (str(item.dtype), item.shape) for name, item in found.items()}
            attributes = {name: file.attrs[name] for name in file.attrs if is_fixed(file, name)}
            return check_schema(self.path, attributes=attributes, datasets=datasets)

    @cached_property
    def _supply_nano(self) -> IntArray:
        return self._handle.array("chain/supply_nano", slice(None))

    def handle(self) -> h5py.File:
        """Return the open HDF5 file of this process, for copying chunks as they are."""
        return self._handle.file()
