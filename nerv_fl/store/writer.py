"""Writing a ledger file, block after block; `file` describes what is in it."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from nerv_fl.errors import DataError
from nerv_fl.store.file import LedgerFile
from nerv_fl.store.samples import COLUMNS, ChainBlock, ContentDigest
from nerv_fl.store.schema import DTYPES, SCHEMA_VERSION, LedgerInfo, chunk_shape, fixed_shapes

# Without shuffling, gzip sees that most balances repeat from step to step.
COMPRESSION: Final = {"compression": "gzip", "compression_opts": 1}


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

    Returns:
        What the file holds.

    Raises:
        DataError: If the blocks do not have the shape announced.

    Guarantees:
        Whatever stops the writer, the path holds the old file or the whole new one. Equal blocks give equal bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(descriptor, 0o644)
        texts = {"profile": np.bytes_(profile.encode()), "generator": np.bytes_(generator.encode())}
        attributes = {"accounts": accounts, "steps": steps, "seed": seed, **texts}
        with h5py.File(name, "w", libver=("v110", "v110")) as file:
            file.attrs.update({"schema_version": SCHEMA_VERSION, **attributes})
            _create(file, chains=chains, steps=steps, accounts=accounts)
            file.attrs["content_sha256"] = np.bytes_(_fill(file, blocks, path=path).encode())
            file.flush()
            file.attrs["complete"] = True
        os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    with LedgerFile(path) as ledger:
        return ledger.info


def _create(file: h5py.File, *, chains: int, steps: int, accounts: int) -> None:
    shapes = fixed_shapes(chains=chains, steps=steps, accounts=accounts)
    for name, dtype in DTYPES.items():
        shape = shapes.get(name, (0,))
        chunks = chunk_shape(shape, itemsize=np.dtype(dtype).itemsize)
        growing = None if name in shapes else (None,)
        file.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks, maxshape=growing, **COMPRESSION)


def _fill(file: h5py.File, blocks: Iterable[ChainBlock], *, path: Path) -> str:
    """Write every block; return the digest of the content."""
    digest, done, total = ContentDigest(), 0, 0
    chains, states, accounts = file["balances"].shape
    for block in blocks:
        size = len(block.balances)
        shape = (done + size, *block.balances.shape[1:])
        if shape[1:] != (states, accounts) or done + size > chains:
            raise DataError(f"{path}: the balances to write are {shape}, expected {(chains, states, accounts)}")
        file["balances"][done : done + size] = block.balances
        file["chain/supply_nano"][done : done + size] = block.supply_nano
        first, last = done * (states - 1) + 1, (done + size) * (states - 1) + 1
        file["batch/offset"][first:last] = total + np.cumsum(block.counts)
        for name, values in zip(COLUMNS, block.columns(), strict=True):
            file[f"tx/{name}"].resize((total + len(values),))
            file[f"tx/{name}"][total:] = values
        digest.update(block)
        done, total = done + size, total + len(block.kind)
    if done != chains:
        raise DataError(f"{path}: the blocks hold {done} chains, expected {chains}")
    return digest.hexdigest()
