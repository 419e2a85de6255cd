"""Writing a ledger file, block after block or from finished parts; `file` describes what is in it."""

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

import h5py
import numpy as np

from nerv_fl.data.atomic_hdf5 import new_file
from nerv_fl.data.chunks import FILTER, Appender
from nerv_fl.data.file import LedgerFile
from nerv_fl.data.read_errors import naming_damage
from nerv_fl.data.samples import COLUMNS, ChainBlock, ContentDigest, chain_digests
from nerv_fl.data.schema import DTYPES, JOINED_BY, SCHEMA_VERSION, LedgerInfo, chunk_shape, fixed_shapes
from nerv_fl.errors import DataError
from nerv_fl.tokens import MAX_BATCH, MAX_SUPPLY_NANO


def write_ledger(
    path: str | Path,
    blocks: Iterable[ChainBlock],
    *,
    chains: int,
    steps: int,
    accounts: int,
    seed: int,
    profile: str,
    generator: str,
    staged: bool = False,
) -> LedgerInfo:
    """Write chains, block after block, to a file that appears under its name only when it is whole.

    Args:
        path: File to write or replace; its folder is made if need be.
        blocks: The chains in order; together as many as ``chains``.
        chains: Number of chains.
        steps: Batches of each chain.
        accounts: Accounts of a state.
        seed: Seed the chains were drawn from.
        profile: Profile they follow.
        generator: Name and version of the program that draws them.
        staged: Whether the file is about to be joined to others: transactions, whose chunks will be cut anew, are
            then not compressed.

    Returns:
        What the file holds.

    Raises:
        DataError: If the blocks do not have the shape announced, a balance is negative, a supply above 10^16 NANO, or a
            batch empty or larger than 256.
        OSError: If the file cannot be written, on a full disk for one.

    Guarantees:
        Whatever stops the writer, the path holds the old file or the whole new one. Equal blocks give equal bytes.
    """
    described: dict[str, int | str] = {
        "accounts": accounts,
        "steps": steps,
        "seed": seed,
        "profile": profile,
        "generator": generator,
    }

    def fill(columns: dict[str, Appender]) -> str:
        return _fill(columns, blocks, path=Path(path), shape=(chains, steps + 1, accounts))

    return _write(Path(path), fill, chains=chains, described=described, staged=staged)


def join_ledgers(path: str | Path, parts: Iterable[Path], *, chains: int) -> LedgerInfo:
    """Write one ledger file of the chains of several, in order; compressed chunks are copied as they are.

    Args:
        path: File to write or replace.
        parts: Ledger files with the same steps, accounts, seed, profile and generator; each may appear only when it
            is asked for.
        chains: Number of chains of all of them.

    Returns:
        What the file holds.

    Raises:
        DataError: If a part is damaged or differs from the first, naming it, or their chains are more or fewer.
    """
    waiting = iter(parts)
    with LedgerFile(next(waiting)) as first:
        described = {name: getattr(first.info, name) for name in JOINED_BY}

        def fill(columns: dict[str, Appender]) -> str:
            return _copy(columns, chain([first.path], waiting), like=first, chains=chains)

        return _write(Path(path), fill, chains=chains, described=described)


def _write(
    path: Path,
    fill: Callable[[dict[str, Appender]], str],
    *,
    chains: int,
    described: dict[str, int | str],
    staged: bool = False,
) -> LedgerInfo:
    """Write a file whose columns `fill` fills; it returns their hash."""
    with new_file(path) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION
        for key, value in described.items():
            file.attrs[key] = np.bytes_(value.encode()) if isinstance(value, str) else value
        shapes = fixed_shapes(chains=chains, steps=int(described["steps"]), accounts=int(described["accounts"]))
        columns = _create(file, shapes, staged=staged)
        file.attrs["content_sha256"] = np.bytes_(fill(columns).encode())
        for column in columns.values():
            column.finish()
        file.flush()
        file.attrs["complete"] = True
    with LedgerFile(path) as ledger:
        return ledger.info


def _create(file: h5py.File, shapes: dict[str, tuple[int, ...]], *, staged: bool) -> dict[str, Appender]:
    for name, dtype in DTYPES.items():
        shape = shapes.get(name, (0,))
        chunks = chunk_shape(shape, itemsize=np.dtype(dtype).itemsize)
        growing = None if name in shapes else (None,)
        packing = {} if staged and growing else FILTER
        file.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks, maxshape=growing, **packing)
    columns = {name: Appender(file[name]) for name in DTYPES}
    columns["batch/offset"].append(np.zeros(1, dtype=np.int64))
    return columns


def _fill(
    columns: dict[str, Appender], blocks: Iterable[ChainBlock], *, path: Path, shape: tuple[int, int, int]
) -> str:
    """Write every block; return the digest of the content."""
    digest, done, total = ContentDigest(), 0, 0
    for block in blocks:
        found = (done + len(block.balances), *block.balances.shape[1:])
        if found[1:] != shape[1:] or found[0] > shape[0]:
            raise DataError(f"{path}: the balances to write are {found}, expected {shape}")
        _check(block, path=path, first=done)
        digests = chain_digests(block)
        columns["balances"].append(block.balances)
        columns["chain/supply_nano"].append(block.supply_nano)
        columns["chain/shard_kind"].append(block.shard_kind)
        columns["chain/sha256"].append(digests)
        columns["batch/offset"].append(total + np.cumsum(block.counts))
        for name, values in zip(COLUMNS, block.columns(), strict=True):
            columns[f"tx/{name}"].append(values)
        digest.update(digests)
        done, total = found[0], total + len(block.kind)
    if done != shape[0]:
        raise DataError(f"{path}: the blocks hold {done} chains, expected {shape[0]}")
    return digest.hexdigest()


def _copy(columns: dict[str, Appender], parts: Iterable[Path], *, like: LedgerFile, chains: int) -> str:
    """Copy every part; return the digest of the content."""
    digest, done, total = ContentDigest(), 0, 0
    for part in parts:
        with LedgerFile(part) as ledger, naming_damage(part, what="a column"):
            ledger.require_like(like)
            done += ledger.info.chains
            if done > chains:
                raise DataError(f"{part}: it and the parts before it hold {done} chains, expected {chains}")
            file = ledger.handle()
            for name in DTYPES:
                if name != "batch/offset":
                    columns[name].copy_from(file[name])
            columns["batch/offset"].append(total + file["batch/offset"][1:])
            digest.update(ledger.chain_digests())
            total += ledger.num_transactions
    if done != chains:
        raise DataError(f"{like.path} and the parts after it hold {done} chains, expected {chains}")
    return digest.hexdigest()


def _check(block: ChainBlock, *, path: Path, first: int) -> None:
    """Refuse balances and batches that no ledger may hold."""
    lowest = block.balances.min(axis=2)
    for row, state in np.argwhere(lowest < 0)[:1]:
        raise DataError(
            f"{path}: chain {first + row}, state {state}: a balance is {lowest[row, state]} NANO, expected at least 0"
        )
    # In float64, since integers may have wrapped around.
    supply = block.balances.sum(axis=2, dtype=np.float64)
    for row, state in np.argwhere(supply > MAX_SUPPLY_NANO * (1 + 1e-12))[:1]:
        raise DataError(
            f"{path}: chain {first + row}, state {state}: balances sum to {supply[row, state]:.6e} NANO, "
            f"expected at most {MAX_SUPPLY_NANO}"
        )
    for row, step in np.argwhere((block.counts < 1) | (block.counts > MAX_BATCH))[:1]:
        raise DataError(
            f"{path}: chain {first + row}, step {step}: the batch holds {block.counts[row, step]} transactions, "
            f"expected 1 to {MAX_BATCH}"
        )
