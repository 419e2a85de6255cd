"""The shard-load file: what monitoring sees of shards, minute by minute, in HDF5; windows are cut when they are read.

    features      float32 [shards, steps, 11]   see FEATURES
    overload      uint8   [shards, steps]       1 while the shard is overloaded
    action        uint8   [shards, steps]       0 none, 1 split, 2 merge
    shard/split   uint8   [shards]              0 train, 1 validation, 2 test
    shard/sums    float64 [shards, 2, 11]       sum and sum of squares of the features
    shard/sha256  uint8   [shards, 32]          hash of the shard's values
    mean, std     float64 [11]                  of the train shards

Attributes have a fixed length: HDF5 keeps others in a heap without a checksum, and loops for ever when it is damaged.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import h5py
import numpy as np
import numpy.typing as npt

from nerv_fl.data.hdf5 import Handle
from nerv_fl.data.load_schema import (
    DTYPES,
    FEATURES,
    KIND,
    SCHEMA_VERSION,
    SPLITS,
    Labels,
    LoadBlock,
    LoadInfo,
    labels,
    shapes,
)
from nerv_fl.data.read_errors import naming_damage
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.types import FloatArray, IntArray
from nerv_fl.validation import in_range, one_of

DENSE: Final = 16
"""Times the steps of its windows that a shard's span may have for it to be read whole."""


class LoadFile:
    """A load file, open for reading; it may be pickled or forked, and then opens the file anew.

    Args:
        path: The file.

    Raises:
        DataError: If the file is missing, truncated, incomplete, or not a load file of this schema.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle = Handle(self.path, what="load")
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

    def shard(self, number: int) -> LoadBlock:
        """Read all of a shard."""
        self._require(np.array([number]), low=0, high=self.info.shards - 1, what="shard")
        read = {name: self.array(name, number) for name in ("features", "overload", "action")}
        return LoadBlock(**read)

    def shards_of(self, split: str) -> IntArray:
        """Return the numbers of the shards of a split: train, validation or test."""
        one_of("split", split, choices=SPLITS)
        return np.flatnonzero(self.array("shard/split") == SPLITS.index(split))

    @cached_property
    def normalisation(self) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of each feature over the train shards, float64 [11] each."""
        return self.array("mean"), self.array("std")

    def windows(
        self, shard_ids: IntArray | Sequence[int], end_steps: IntArray | Sequence[int], *, length: int = 60
    ) -> npt.NDArray[np.float32]:
        """Read the features of the last ``length`` steps up to and including each end.

        Args:
            shard_ids: int [B].
            end_steps: int [B], each in [length - 1, steps).
            length: Steps of a window.

        Returns:
            float32 [B, length, 11].

        Raises:
            ConfigError: If a window leaves the file.
            DataError: If the file is damaged.
        """
        shards, ends = np.asarray(shard_ids, dtype=np.int64), np.asarray(end_steps, dtype=np.int64)
        in_range("length", length, low=1, high=self.info.steps)
        self._require(shards, low=0, high=self.info.shards - 1, what="shard")
        self._require(ends, low=length - 1, high=self.info.steps - 1, what="end step")
        found = np.empty((len(shards), length, len(FEATURES)), dtype=np.float32)
        for number in np.unique(shards):
            rows = np.flatnonzero(shards == number)
            first = int(ends[rows].min()) + 1 - length
            if ends[rows].max() + 1 - first > DENSE * length * len(rows):
                for row in rows:
                    found[row] = self.array("features", number, slice(ends[row] + 1 - length, ends[row] + 1))
                continue
            span = self.array("features", number, slice(first, ends[rows].max() + 1))
            found[rows] = span[(ends[rows] - first)[:, None] + np.arange(1 - length, 1)]
        return found

    def window_labels(self, shard_ids: IntArray | Sequence[int], end_steps: IntArray | Sequence[int]) -> Labels:
        """Return the labels at the end of each window, bool [B] each."""
        shards, ends = np.asarray(shard_ids, dtype=np.int64), np.asarray(end_steps, dtype=np.int64)
        ahead, clean = np.empty(len(shards), dtype=bool), np.empty(len(shards), dtype=bool)
        for number in np.unique(shards):
            rows = shards == number
            found = labels(self.array("overload", int(number)))
            ahead[rows], clean[rows] = found.ahead[ends[rows]], found.clean[ends[rows]]
        return Labels(ahead=ahead, clean=clean)

    def array(self, name: str, *selection: int | np.int64 | slice) -> npt.NDArray[Any]:
        """Read a dataset, or a part of it."""
        return self._handle.array(name, selection or slice(None))

    def _require(self, values: IntArray, *, low: int, high: int, what: str) -> None:
        for wrong in values[(values < low) | (values > high)][:1]:
            raise ConfigError(f"{what} is {wrong}, expected {low} to {high} (of {self.path})")


def _describe(handle: Handle) -> LoadInfo:
    found = handle.require_kind(KIND, schema_version=SCHEMA_VERSION)
    info = LoadInfo(
        shards=int(found["shards"]),
        steps=int(found["steps"]),
        seed=int(found["seed"]),
        splits=bool(found["splits"]),
        generator=str(found["generator"]),
        content_sha256=str(found["content_sha256"]),
    )
    file = handle.file()
    for name, shape in shapes(info.shards, info.steps).items():
        handle.require(name, found=(str(file[name].dtype), file[name].shape), expected=(DTYPES[name], shape))
    return info
