"""Writing a load file, shard after shard or from finished parts; `nerv_fl.data.load` describes what is in it.

A chunk is gzip over HDF5's shuffle, which any HDF5 reader understands, made by libdeflate: several times faster than
zlib, and its bytes do not depend on the type of processor. A chunk never crosses shards, so parts join as they are.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import deflate
import h5py
import numpy as np
import numpy.typing as npt

from nerv_fl.data.atomic_hdf5 import new_file
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import DTYPES, FEATURES, KIND, SCHEMA_VERSION, SPLITS, LoadBlock, LoadInfo, shapes
from nerv_fl.data.read_errors import naming_damage
from nerv_fl.errors import DataError
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray

LEVEL: Final = 1
CHUNK_STEPS: Final = {"features": 720, "overload": 43_200, "action": 43_200}
SHARES: Final = (0.70, 0.85)
"""Where the train shards end, and the validation shards."""


def write_load(path: Path, blocks: Iterable[LoadBlock], *, split: npt.NDArray[np.uint8], about: LoadInfo) -> LoadInfo:
    """Write shards to a file that appears under its name only when it is whole.

    Args:
        path: File to write or replace; its folder is made if need be.
        blocks: The shards in order.
        split: uint8 [shards], the split of each.
        about: What the file holds; its hash is not looked at.

    Returns:
        What the file holds, with its hash.

    Raises:
        DataError: If there are fewer or more shards than announced.
        OSError: If the file cannot be written.

    Guarantees:
        Whatever stops the writer, the path holds the old file or the whole new one. Equal shards give equal bytes.
    """

    def fill(file: h5py.File) -> None:
        done = 0
        for done, block in enumerate(blocks, start=1):
            if done > about.shards or len(block.overload) != about.steps:
                break
            for name in CHUNK_STEPS:
                _write_rows(file[name], getattr(block, name), shard=done - 1)
            file["shard/sums"][done - 1] = block.sums()
            file["shard/sha256"][done - 1] = np.frombuffer(block.digest(), dtype=np.uint8)
        if done != about.shards:
            raise DataError(f"{path}: {done} shards were written, expected {about.shards} of {about.steps} steps")
        file["shard/split"][:] = split

    return _write(path, fill, about=about)


def join_loads(path: Path, parts: Sequence[Path], *, about: LoadInfo) -> LoadInfo:
    """Write one load file of the shards of several, in order; compressed chunks are copied as they are.

    Args:
        path: File to write or replace.
        parts: Load files with the steps, seed, splits and generator announced.
        about: What the file shall hold; its hash is not looked at.

    Returns:
        What the file holds, with its hash.

    Raises:
        DataError: If a part is damaged or not as announced, naming it.
    """

    def fill(file: h5py.File) -> None:
        first = 0
        for part in parts:
            with LoadFile(part) as load:
                _require_like(load, about)
                with naming_damage(part, what="its shards"):
                    _copy(load.handle(), file, first=first)
                first += load.info.shards
        if first != about.shards:
            raise DataError(f"{path}: its parts hold {first} shards, expected {about.shards}")

    return _write(path, fill, about=about)


def draw_split(seed: int, shards: int, *, of: str = "sharding") -> npt.NDArray[np.uint8]:
    """Return the split of each shard, uint8 [shards]: 70 % train, 15 % validation, 15 % test, drawn from the seed.

    Args:
        seed: Seed of the data set.
        shards: Number of shards.
        of: What kind of data it is, which names the stream.

    >>> np.bincount(draw_split(7, 100)).tolist()
    [70, 15, 15]
    """
    ends = [round(share * shards) for share in SHARES]
    split = np.searchsorted(ends, np.arange(shards), side="right").astype(np.uint8)
    return stream(seed, of, "split").permutation(split)


def normalise(sums: FloatArray, *, split: npt.NDArray[np.uint8], steps: int) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of the features of the train shards; without any, 0 and 1.

    Args:
        sums: float64 [shards, 2, 11], sum and sum of squares.
        split: uint8 [shards].
        steps: Steps of a shard.

    Returns:
        float64 [11] each; the deviation of a constant feature is 1.
    """
    train = sums[split == SPLITS.index("train")]
    if not len(train):
        return np.zeros(len(FEATURES)), np.ones(len(FEATURES))
    mean, square = train.sum(axis=0) / (len(train) * steps)
    std = np.sqrt(np.maximum(square - np.square(mean), 0.0))
    return mean, np.where(std > 0.0, std, 1.0)


def content_digest(digests: npt.NDArray[np.uint8]) -> str:
    """Return the hash of the shards' hashes, uint8 [shards, 32]."""
    return hashlib.sha256(digests.tobytes()).hexdigest()


def _write(path: Path, fill: Callable[[h5py.File], None], *, about: LoadInfo) -> LoadInfo:
    """Write a file that `fill` fills."""
    with new_file(path) as file:
        _create(file, about)
        fill(file)
        _conclude(file, steps=about.steps)
    with LoadFile(path) as load:
        return load.info


def _create(file: h5py.File, about: LoadInfo) -> None:
    file.attrs["schema_version"] = SCHEMA_VERSION
    for name, text in (("kind", KIND), ("generator", about.generator)):
        file.attrs[name] = np.bytes_(text.encode())
    for name in ("shards", "steps", "seed", "splits"):
        file.attrs[name] = int(getattr(about, name))
    for name, shape in shapes(about.shards, about.steps).items():
        options: dict[str, Any] = {}
        if name in CHUNK_STEPS:
            options = {"compression": "gzip", "compression_opts": LEVEL, "shuffle": True}
            options["chunks"] = (1, min(about.steps, CHUNK_STEPS[name]), *shape[2:])
        file.create_dataset(name, shape=shape, dtype=DTYPES[name], **options)


def _conclude(file: h5py.File, *, steps: int) -> None:
    """Write what follows from all shards, and at last that the file is complete."""
    mean, std = normalise(file["shard/sums"][:], split=file["shard/split"][:], steps=steps)
    file["mean"][:], file["std"][:] = mean, std
    file.attrs["content_sha256"] = np.bytes_(content_digest(file["shard/sha256"][:]).encode())
    file.flush()
    file.attrs["complete"] = True


def _write_rows(dataset: h5py.Dataset, values: npt.NDArray[Any], *, shard: int) -> None:
    size, rest = dataset.chunks[1], (0,) * (values.ndim - 1)
    for begin in range(0, len(values), size):
        chunk = np.zeros(dataset.chunks[1:], dtype=dataset.dtype)
        chunk[: len(values) - begin] = values[begin : begin + size]
        shuffled = np.ascontiguousarray(chunk.view(np.uint8).reshape(-1, chunk.itemsize).T)
        packed = deflate.zlib_compress(shuffled.data, LEVEL)
        dataset.id.write_direct_chunk((shard, begin, *rest), bytes(packed))


def _copy(source: h5py.File, file: h5py.File, *, first: int) -> None:
    shards = len(source["overload"])
    for name in DTYPES.keys() - CHUNK_STEPS.keys() - {"mean", "std"}:
        file[name][first : first + shards] = source[name][:]
    for name in CHUNK_STEPS:
        old, new = source[name], file[name]
        rest = (0,) * (old.ndim - 2)
        for shard in range(shards):
            for begin in range(0, old.shape[1], old.chunks[1]):
                mask, packed = old.id.read_direct_chunk((shard, begin, *rest))
                new.id.write_direct_chunk((first + shard, begin, *rest), packed, mask)


def _require_like(load: LoadFile, about: LoadInfo) -> None:
    for name in ("steps", "seed", "splits", "generator"):
        found, expected = getattr(load.info, name), getattr(about, name)
        if found != expected:
            raise DataError(f"{load.path}: {name} is {found!r}, expected {expected!r}")
