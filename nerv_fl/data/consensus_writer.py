"""Writer of consensus files, shard after shard or from finished parts, in the format of `nerv_fl.data.consensus`."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import numpy.typing as npt

from nerv_fl.data.atomic_hdf5 import new_file
from nerv_fl.data.chunks import FILTER, Appender
from nerv_fl.data.consensus import RaceFile
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
from nerv_fl.data.read_errors import naming_damage
from nerv_fl.data.schema import chunk_shape
from nerv_fl.errors import DataError

LIKE: Final = ("races", "accounts", "max_transactions", "seed", "generator")
"""What files must have in common to be joined."""

Columns = dict[str, Appender]


def write_races(path: Path, blocks: Iterable[RaceBlock], *, split: npt.NDArray[np.uint8], about: RaceInfo) -> RaceInfo:
    """Write shards to a file that appears under its name only when it is whole.

    Args:
        path: File to write or replace; its folder is made if need be.
        blocks: The shards in order.
        split: uint8 [shards], the split of each.
        about: What the file shall hold; its hash is not looked at.

    Returns:
        What the file holds, with its hash.

    Raises:
        DataError: If there are fewer or more shards or races than announced.
        OSError: If the file cannot be written.

    Guarantees:
        Whatever stops the writer, the path holds the old file or the whole new one. Equal shards give equal bytes.
    """

    def fill(columns: Columns) -> None:
        done = 0
        for done, block in enumerate(blocks, start=1):
            if done > about.shards or block.num_races != about.races:
                raise DataError(
                    f"{path}: shard {done - 1} has {block.num_races} races, "
                    f"expected {about.shards} shards of {about.races} races"
                )
            for name, values in _values(block):
                columns[name].append(values)
        if done != about.shards:
            raise DataError(f"{path}: {done} shards were written, expected {about.shards}")
        columns["shard/split"].append(split)

    return _write(path, fill, about=about)


def join_races(path: Path, parts: Sequence[Path], *, about: RaceInfo) -> RaceInfo:
    """Write one consensus file of the shards of several, in order.

    Args:
        path: File to write or replace.
        parts: Consensus files with the races, accounts, seed and generator announced.
        about: What the file shall hold; its hash is not looked at.

    Returns:
        What the file holds, with its hash.

    Raises:
        DataError: If a part is damaged or not as announced, naming it.
    """

    def fill(columns: Columns) -> None:
        done = 0
        for part in parts:
            with RaceFile(part) as races, naming_damage(part, what="its races"):
                for name in LIKE:
                    found, expected = getattr(races.info, name), getattr(about, name)
                    if found != expected:
                        raise DataError(f"{part}: {name} is {found!r}, expected {expected!r}")
                for name, column in columns.items():
                    column.copy_from(races.handle()[name])
                done += races.info.shards
        if done != about.shards:
            raise DataError(f"{path}: its parts hold {done} shards, expected {about.shards}")

    return _write(path, fill, about=about)


def _values(block: RaceBlock) -> Iterable[tuple[str, npt.NDArray[np.generic]]]:
    for group, names in (("race", RACE_COLUMNS), ("candidate", CANDIDATE_COLUMNS), ("tx", TX_COLUMNS)):
        for name in names:
            yield f"{group}/{name}", getattr(block, name)
    yield "event/token", block.token
    yield "shard/supply_nano", np.array([block.supply_nano], dtype=np.int64)
    yield "shard/sha256", np.frombuffer(block.digest(), dtype=np.uint8)[None]


def _write(path: Path, fill: Callable[[Columns], None], *, about: RaceInfo) -> RaceInfo:
    with new_file(path) as file:
        columns = _create(file, about)
        fill(columns)
        for column in columns.values():
            column.finish()
        digest = hashlib.sha256(file["shard/sha256"][:].tobytes()).hexdigest()
        file.attrs["content_sha256"] = np.bytes_(digest.encode())
        file.flush()
        file.attrs["complete"] = True
    with RaceFile(path) as races:
        return races.info


def _create(file: h5py.File, about: RaceInfo) -> Columns:
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["kind"] = np.bytes_(KIND.encode())
    for field in fields(about)[:-1]:
        value = getattr(about, field.name)
        file.attrs[field.name] = np.bytes_(value.encode()) if isinstance(value, str) else value
    fixed = shapes(about.shards, about.races)
    for name, dtype in DTYPES.items():
        shape = fixed.get(name, (0,))
        chunks = chunk_shape(shape, itemsize=np.dtype(dtype).itemsize)
        growing = None if name in fixed else (None,)
        file.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks, maxshape=growing, **FILTER)
    return {name: Appender(file[name]) for name in DTYPES}
