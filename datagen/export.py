"""Exports of data sets to the layouts of other tools: one HDF5 group per sample, and Parquet tables.

All read block after block, so that memory holds one block whatever the data set's size.

Shapes: A accounts.
"""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from nerv_fl.data import ChainBlock, open_ledger
from nerv_fl.data.atomic_hdf5 import new_file
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import FEATURES, SPLITS
from nerv_fl.data.multi_file import chain_blocks
from nerv_fl.errors import ConfigError
from nerv_fl.io.checksums import staged_folder
from nerv_fl.tokens import NO_ACCOUNT, tokens, vocabulary_size
from nerv_fl.types import IntArray

BLOCK_VALUES: Final = 2**20
NOBODY: Final = -1
MAX_TOKENS: Final = 2**16
KINDS: Final = "0 transfer, 1 mint, 2 burn"


def export_seed_layout(source: Path, out: Path) -> Path:
    """Write each sample of a ledger to an HDF5 group of its own.

        sample_{i}  attribute num_txs
            tokens_pre   uint16 [1 + 2A]     tokens of the state before the batch
            tokens_post  uint16 [1 + 2A]     tokens of the state after it
            tx_batch     int64  [num_txs, 3] sender, receiver, amount in NANO; -1 where a mint or a burn has nobody

    Args:
        source: The ledger: a file, or a folder of parts.
        out: File to write or replace.

    Returns:
        The file.

    Raises:
        ConfigError: If the file would replace the ledger, or its tokens do not fit 16 bits.
        DataError: If the ledger is damaged.
        OSError: If the file cannot be written.

    Guarantees:
        Whatever stops the writer, the path holds the old file or the whole new one. Equal ledgers give equal bytes.
    """
    with open_ledger(source) as ledger:
        if out.resolve().is_relative_to(ledger.path.resolve()):
            raise ConfigError(f"out is {out}, expected a file outside the ledger {source}")
        size = vocabulary_size(ledger.info.accounts)
        if size > MAX_TOKENS:
            raise ConfigError(f"{source} has {size} tokens, expected at most {MAX_TOKENS}: tokens are uint16")
        with new_file(out) as file:
            for first, block in chain_blocks(ledger, max_values=BLOCK_VALUES):
                _write_samples(file, block, first=first * ledger.info.steps)
    return out


def export_parquet(source: Path, out: Path) -> Path:
    """Write a ledger to a folder of two Parquet tables, one group of rows for each block of chains.

        transactions.parquet  chain int64, step int32, kind uint8, sender int32, receiver int32, amount_nano int64
        states.parquet        chain int64, step int32, balances list<int64>

    A mint has no sender and a burn no receiver: null. State s of a chain is the one before step s; the last follows the
    last step. Transactions keep the order of their batch.

    Args:
        source: The ledger: a file, or a folder of parts.
        out: Folder to make; it must be new or empty.

    Returns:
        The folder.

    Raises:
        ConfigError: If pyarrow is not installed, or the folder is not empty.
        DataError: If the ledger is damaged.
        OSError: If a table cannot be written.

    Guarantees:
        The folder appears under its name only when it is whole.
    """
    arrow, parquet = _pyarrow()
    with open_ledger(source) as ledger, staged_folder(out) as folder:
        tables = (
            {"transactions": _transactions(arrow, block, first=first), "states": _states(arrow, block, first=first)}
            for first, block in chain_blocks(ledger, max_values=BLOCK_VALUES)
        )
        _write_tables(folder, tables, parquet=parquet)
    return out


def export_load_parquet(source: Path, out: Path) -> Path:
    """Write a load file to a folder of one Parquet table, one group of rows for each block of shards.

        load.parquet  shard int64, step int32, split string, the features float32, overload uint8, action uint8

    Args:
        source: The load file.
        out: Folder to make; it must be new or empty.

    Returns:
        The folder.

    Raises:
        ConfigError: If pyarrow is not installed, or the folder is not empty.
        DataError: If the load file is damaged.
        OSError: If the table cannot be written.

    Guarantees:
        The folder appears under its name only when it is whole.
    """
    arrow, parquet = _pyarrow()
    with LoadFile(source) as load, staged_folder(out) as folder:
        size = max(1, BLOCK_VALUES // (len(FEATURES) * load.info.steps))
        ranges = (range(first, min(first + size, load.info.shards)) for first in range(0, load.info.shards, size))
        tables = ({"load": arrow.concat_tables([_shard(arrow, load, n) for n in shards])} for shards in ranges)
        _write_tables(folder, tables, parquet=parquet)
    return out


def _write_samples(file: h5py.File, block: ChainBlock, *, first: int) -> None:
    """Write the samples of some chains, the first of which has a number."""
    sequences = tokens(block.balances).astype(np.uint16)
    length = sequences.shape[2]
    before, after = sequences[:, :-1].reshape(-1, length), sequences[:, 1:].reshape(-1, length)
    batches = np.stack([_accounts(block.sender), _accounts(block.receiver), block.amount_nano], axis=1)
    ends = np.cumsum(block.counts)
    for row, (end, count) in enumerate(zip(ends.tolist(), block.counts.reshape(-1).tolist(), strict=True)):
        group = file.create_group(f"sample_{first + row}")
        group.attrs["num_txs"] = count
        group.create_dataset("tokens_pre", data=before[row])
        group.create_dataset("tokens_post", data=after[row])
        group.create_dataset("tx_batch", data=batches[end - count : end])


def _accounts(column: Any) -> IntArray:
    return np.where(column == NO_ACCOUNT, NOBODY, column.astype(np.int64))


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(f"pyarrow cannot be imported ({error}), expected the extra nerv-fl[parquet]") from error


def _write_tables(folder: Path, blocks: Iterator[dict[str, Any]], *, parquet: Any) -> None:
    """Write blocks of tables, by name, each block to one group of rows of its table's file."""
    with ExitStack() as stack:
        writers: dict[str, Any] = {}
        for tables in blocks:
            for name, table in tables.items():
                if name not in writers:
                    writer = parquet.ParquetWriter(folder / f"{name}.parquet", table.schema, compression="zstd")
                    writers[name] = stack.enter_context(writer)
                writers[name].write_table(table, row_group_size=max(1, table.num_rows))


def _transactions(arrow: Any, block: ChainBlock, *, first: int) -> Any:
    """Return the transactions of some chains, the first of which has a number."""
    chains, steps = np.indices(block.counts.shape).reshape(2, -1).repeat(block.counts.reshape(-1), axis=1)
    fields = [
        *_keys(arrow, "chain"),
        arrow.field("kind", arrow.uint8(), nullable=False, metadata={"values": KINDS}),
        arrow.field("sender", arrow.int32()),
        arrow.field("receiver", arrow.int32()),
        arrow.field("amount_nano", arrow.int64(), nullable=False),
    ]
    accounts = [
        arrow.array(column.astype(np.int32), mask=column == NO_ACCOUNT) for column in (block.sender, block.receiver)
    ]
    columns = [first + chains, steps.astype(np.int32), block.kind, *accounts, block.amount_nano]
    return arrow.table([arrow.array(column) for column in columns], schema=arrow.schema(fields))


def _states(arrow: Any, block: ChainBlock, *, first: int) -> Any:
    """Return the states of some chains, the first of which has a number."""
    num_chains, num_states, num_accounts = block.balances.shape
    chains, steps = np.indices((num_chains, num_states)).reshape(2, -1)
    offsets = np.arange(len(chains) + 1, dtype=np.int32) * num_accounts
    kind = arrow.list_(arrow.field("element", arrow.int64(), nullable=False))
    balances = arrow.ListArray.from_arrays(offsets, arrow.array(block.balances.reshape(-1)), type=kind)
    schema = arrow.schema([*_keys(arrow, "chain"), arrow.field("balances", kind, nullable=False)])
    return arrow.table([arrow.array(first + chains), arrow.array(steps.astype(np.int32)), balances], schema=schema)


def _shard(arrow: Any, load: LoadFile, number: int) -> Any:
    """Return every step of one shard."""
    block, steps = load.shard(number), load.info.steps
    split = SPLITS[int(load.array("shard/split", number))]
    fields = [
        *_keys(arrow, "shard"),
        arrow.field("split", arrow.string(), nullable=False),
        *(arrow.field(name, arrow.float32(), nullable=False) for name in FEATURES),
        *(arrow.field(name, arrow.uint8(), nullable=False) for name in ("overload", "action")),
    ]
    keys = [np.full(steps, number), np.arange(steps, dtype=np.int32), [split] * steps]
    columns = [*keys, *np.ascontiguousarray(block.features.T), block.overload, block.action]
    return arrow.table([arrow.array(column) for column in columns], schema=arrow.schema(fields))


def _keys(arrow: Any, group: str) -> list[Any]:
    return [arrow.field(group, arrow.int64(), nullable=False), arrow.field("step", arrow.int32(), nullable=False)]
