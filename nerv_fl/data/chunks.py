"""Compressed chunks of HDF5 datasets, read and written whole: the format is HDF5's gzip filter, the codec libdeflate.

Any HDF5 reader can read such a file. libdeflate is faster than zlib both ways, and equal values give equal bytes; ISA-L
is faster still, but now and then gives other bytes for the same chunk. A chunk that was compressed once can be copied
from file to file as it is.
"""

import math
from typing import Any, Final

import deflate
import h5py
import numpy as np
import numpy.typing as npt

from nerv_fl.errors import DataError
from nerv_fl.types import IntArray

LEVEL: Final = 1
MANY_CHUNKS: Final = 64
"""Chunks that are copied by one read where they are not compressed."""

FILTER: Final = {"compression": "gzip", "compression_opts": LEVEL}
"""Without shuffling, gzip sees that most balances repeat from step to step."""


def is_plain(dataset: h5py.Dataset) -> bool:
    """Return whether a dataset's chunks hold nothing but gzip, so that this file can read them."""
    return bool(
        dataset.chunks
        and dataset.compression == "gzip"
        and not (dataset.shuffle or dataset.fletcher32)
        and dataset.scaleoffset is None
    )


def read_chunk(dataset: h5py.Dataset, offset: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the chunk that begins at an offset, whole: beyond the dataset's end it holds zeros.

    Raises:
        DataError: If it does not decompress to its size.
        OSError: If it cannot be read.
    """
    mask, packed = dataset.id.read_direct_chunk(offset)
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    raw = deflate.zlib_decompress(packed, size) if mask == 0 else packed
    if len(raw) != size:
        raise DataError(f"a chunk of {dataset.name} holds {len(raw)} bytes, expected {size}")
    return np.frombuffer(raw, dtype=dataset.dtype).reshape(dataset.chunks)


def pack(values: npt.NDArray[Any], shape: tuple[int, ...], *, level: int = LEVEL) -> bytes:
    """Return a chunk of a shape, compressed unless the level is 0; what is missing of it is filled with zeros."""
    if values.shape != shape:
        padded = np.zeros(shape, dtype=values.dtype)
        padded[tuple(slice(length) for length in values.shape)] = values
        values = padded
    raw = np.ascontiguousarray(values)
    return bytes(deflate.zlib_compress(raw.data, level)) if level else raw.tobytes()


class Appender:
    """Rows appended to a dataset, compressed once a chunk is full; `finish` writes the rest.

    Args:
        dataset: Chunked along its first axis, and along its second if it has one; grows as needed if it may.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._dtype = dataset.dtype
        self._chunks: tuple[int, ...] = dataset.chunks
        self._rows = self._chunks[0]
        self._is_packed = dataset.compression is not None
        self._columns = _corners(dataset.shape[1:], self._chunks[1:])
        self._grows = dataset.maxshape[0] is None
        self._waiting: list[npt.NDArray[Any]] = []
        self._num_waiting = 0
        self.num_written = 0

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add rows."""
        self._waiting.append(values)
        self._num_waiting += len(values)
        if self._num_waiting >= self._rows:
            self._write(self._num_waiting - self._num_waiting % self._rows)

    def copy_from(self, source: h5py.Dataset) -> None:
        """Add all rows of a dataset with the same chunks; they are copied as they are where chunk falls on chunk."""
        whole = len(source) - len(source) % self._rows
        if self._num_waiting or source.chunks != self._chunks or not is_plain(source):
            whole = 0
        self._grow(self.num_written + whole)
        for row in range(0, whole, self._rows):
            for rest in self._columns:
                mask, packed = source.id.read_direct_chunk((row, *rest))
                self._dataset.id.write_direct_chunk((self.num_written + row, *rest), packed, mask)
        self.num_written += whole
        plain = source.chunks[1:] == source.shape[1:] and is_plain(source)
        at_once = source.chunks[0] * (1 if plain else MANY_CHUNKS)
        for row in range(whole, len(source), at_once):
            part = slice(row, min(row + at_once, len(source)))
            values = read_chunk(source, (row, *(0 for _ in source.shape[1:]))) if plain else source[part]
            self.append(values[: part.stop - row])

    def finish(self) -> None:
        """Write the rows that do not fill a chunk."""
        self._write(self._num_waiting)

    def _write(self, num_rows: int) -> None:
        if not num_rows:
            return
        values = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        values = values.astype(self._dtype, copy=False)
        self._waiting, self._num_waiting = [values[num_rows:]], self._num_waiting - num_rows
        self._grow(self.num_written + num_rows)
        for row in range(0, num_rows, self._rows):
            for rest in self._columns:
                ends = zip(rest, self._chunks[1:], strict=True)
                part = (slice(row, min(row + self._rows, num_rows)), *(slice(at, at + size) for at, size in ends))
                packed = pack(values[part], self._chunks, level=LEVEL if self._is_packed else 0)
                self._dataset.id.write_direct_chunk((self.num_written + row, *rest), packed)
        self.num_written += num_rows

    def _grow(self, num_rows: int) -> None:
        if self._grows:
            self._dataset.resize(num_rows, axis=0)


def _corners(shape: tuple[int, ...], chunks: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return where chunks begin along some axes."""
    counts = [math.ceil(length / size) for length, size in zip(shape, chunks, strict=True)]
    return [tuple(at * size for at, size in zip(place, chunks, strict=True)) for place in np.ndindex(*counts)]


def gather(dataset: h5py.Dataset, rows: IntArray, *, columns: IntArray) -> npt.NDArray[Any]:
    """Return entries of a three-dimensional dataset, reading each chunk that holds one of them once.

    Args:
        dataset: [R, C, D], chunked along the first two axes.
        rows: int64 [B].
        columns: int64 [B].

    Returns:
        [B, D], entry b being dataset[rows[b], columns[b]].

    Raises:
        DataError: If a chunk is damaged.
    """
    height, width, _ = dataset.chunks
    entries = np.empty((len(rows), dataset.shape[2]), dtype=dataset.dtype)
    key = rows // height * (dataset.shape[1] // width + 1) + columns // width
    order = np.argsort(key, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        if len(group):
            row, column = rows[group[0]] // height * height, columns[group[0]] // width * width
            entries[group] = read_chunk(dataset, (int(row), int(column), 0))[rows[group] - row, columns[group] - column]
    return entries
