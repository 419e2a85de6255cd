"""The schema of the ledger file, and the checks that a file must pass before it is read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nerv_fl.errors import DataError
from nerv_fl.types import IntArray

SCHEMA_VERSION: Final = 2
DTYPES: Final = {
    "balances": "int64",
    "tx/kind": "uint8",
    "tx/sender": "uint16",
    "tx/receiver": "uint16",
    "tx/amount_nano": "int64",
    "batch/offset": "int64",
    "chain/supply_nano": "int64",
    "chain/shard_kind": "uint8",
    "chain/sha256": "uint8",
}
JOINED_BY: Final = ("steps", "accounts", "seed", "profile", "generator")
"""What ledgers must have in common to stand in one data set."""

# A chunk is what one sample costs to read.
CHUNK_BYTES: Final = 2**14
MAX_CHUNK_BYTES: Final = 9 * 2**13
DIGEST_BYTES: Final = 32


@dataclass(frozen=True, kw_only=True)
class LedgerInfo:
    """What a ledger file holds.

    Attributes:
        chains: Number of chains.
        steps: Batches of each chain.
        accounts: Accounts of a state.
        seed: Seed it was drawn from.
        profile: `live` or `genesis`.
        generator: Name and version of the program that drew it.
        content_sha256: Hash of the chains' hashes, which cover every value, whatever the compression.
    """

    chains: int
    steps: int
    accounts: int
    seed: int
    profile: str
    generator: str
    content_sha256: str

    @property
    def num_samples(self) -> int:
        """Number of (state, batch, state) samples."""
        return self.chains * self.steps


def fixed_shapes(*, chains: int, steps: int, accounts: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each dataset but the columns of transactions, whose length is drawn.

    >>> fixed_shapes(chains=2, steps=3, accounts=8)["balances"]
    (2, 4, 8)
    """
    return {
        "balances": (chains, steps + 1, accounts),
        "batch/offset": (chains * steps + 1,),
        "chain/supply_nano": (chains,),
        "chain/shard_kind": (chains,),
        "chain/sha256": (chains, DIGEST_BYTES),
    }


def chunk_shape(shape: tuple[int, ...], *, itemsize: int) -> tuple[int, ...]:
    """Return the chunk of a dataset: 16 KiB of chains or rows, or one chain, or an even part of a long one.

    Args:
        shape: Of the dataset; an empty one may grow.
        itemsize: Bytes of a value.

    >>> chunk_shape((1000, 9, 64), itemsize=8)
    (3, 9, 64)
    """
    row = itemsize * math.prod(shape[1:])
    first = max(1, min(CHUNK_BYTES // row, shape[0] or CHUNK_BYTES))
    if len(shape) == 1 or row <= MAX_CHUNK_BYTES:
        return (first, *shape[1:])
    most = max(1, MAX_CHUNK_BYTES // (itemsize * shape[-1]))
    return (1, math.ceil(shape[1] / math.ceil(shape[1] / most)), shape[-1])


def check_schema(
    path: Path, *, attributes: Mapping[str, object], datasets: Mapping[str, tuple[str, tuple[int, ...]]]
) -> LedgerInfo:
    """Check what a file says of itself.

    Args:
        path: The file, for messages.
        attributes: Its attributes, texts as bytes.
        datasets: Type and shape of each of its datasets.

    Returns:
        What the file holds.

    Raises:
        DataError: If it is foreign, of another version, incomplete, or a dataset is missing or of another type.
    """
    version = attributes.get("schema_version")
    if version is None:
        raise DataError(f"{path} has no schema_version, expected a ledger file of schema {SCHEMA_VERSION}")
    if version != SCHEMA_VERSION:
        raise DataError(f"{path}: schema_version is {version}, expected {SCHEMA_VERSION}")
    if not attributes.get("complete", False):
        raise DataError(f"{path} is incomplete: its writer was stopped, expected a whole ledger file")
    for name, dtype in DTYPES.items():
        if name not in datasets:
            raise DataError(f"{path} has no dataset {name}, expected a ledger file")
        if datasets[name][0] != dtype:
            raise DataError(f"{path}: {name} is {datasets[name][0]}, expected {dtype}")
    info = LedgerInfo(
        chains=(datasets["balances"][1] or (0,))[0],
        steps=_integer(path, attributes=attributes, name="steps"),
        accounts=_integer(path, attributes=attributes, name="accounts"),
        seed=_integer(path, attributes=attributes, name="seed"),
        profile=_text(path, attributes=attributes, name="profile"),
        generator=_text(path, attributes=attributes, name="generator"),
        content_sha256=_text(path, attributes=attributes, name="content_sha256"),
    )
    shapes = fixed_shapes(chains=info.chains, steps=info.steps, accounts=info.accounts)
    for name in DTYPES:
        shape, expected = datasets[name][1], shapes.get(name, datasets["tx/kind"][1])
        if shape != expected or (name.startswith("tx/") and len(shape) != 1):
            raise DataError(f"{path}: {name} has shape {shape}, expected {expected}")
    return info


def check_offsets(path: Path, offset: IntArray, *, first: int, steps: int, total: int) -> None:
    """Check that batches hold at least one transaction each, and none outside the file.

    Args:
        path: The file, for messages.
        offset: int64 [M + 1]; batch k is transactions offset[k] to offset[k + 1].
        first: Sample that batch 0 belongs to.
        steps: Batches of each chain.
        total: Transactions of the file.

    Raises:
        DataError: If a batch is empty or leaves the file, naming its chain and step.
    """
    begin, end = offset[:-1], offset[1:]
    for batch in np.flatnonzero((begin < 0) | (end <= begin) | (end > total))[:1]:
        chain, step = divmod(first + int(batch), steps)
        raise DataError(
            f"{path}: chain {chain}, step {step}: its batch begins at transaction {begin[batch]} and ends before "
            f"{end[batch]}, expected at least one transaction of the file's {total}"
        )


def _integer(path: Path, *, attributes: Mapping[str, object], name: str) -> int:
    value = attributes.get(name)
    if not isinstance(value, (int, np.integer)):
        raise DataError(f"{path}: attribute {name} is {value!r}, expected an integer")
    return int(value)


def _text(path: Path, *, attributes: Mapping[str, object], name: str) -> str:
    value = attributes.get(name)
    if not isinstance(value, bytes):
        raise DataError(f"{path}: attribute {name} is {value!r}, expected a text of fixed length")
    return value.decode()
