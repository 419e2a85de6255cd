"""A cohort's vectors, read one at a time: N of them need not stand in memory together.

A thousand updates of 75 million parameters are 300 GB. Whatever takes `Rows` makes passes over them and keeps sums,
sketches or products; only the rules that sort coordinates (`median`, `trimmed_mean`) ask for all at once.

Shapes: N rows, P parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from nerv_fl.parallel import map_ahead
from nerv_fl.types import Vector

BLOCK: Final = 16
"""Rows that are multiplied together. Bits of products depend on it, so it depends on nothing."""

TASK_BYTES: Final = 2**20
"""Rows that a thread makes in one go, 1 MiB of them: handing over a single small one costs as much as making it."""


def rows_in_a_task(num_parameters: int) -> int:
    """Return how many rows a thread makes in one go: `TASK_BYTES`, or a single row.

    >>> rows_in_a_task(49_376)
    5
    """
    return max(1, TASK_BYTES // (4 * max(1, num_parameters)))


class Rows:
    """N vectors of P numbers, each made when it is asked for.

    Args:
        read: Returns row i, float32 [P], every time the same.
        num_rows: N.
        num_parameters: P.
        workers: Threads that make rows ahead of a pass over all of them; no bit depends on it.
    """

    def __init__(self, read: Callable[[int], Vector], *, num_rows: int, num_parameters: int, workers: int = 1) -> None:
        self._read = read
        self._num_rows = num_rows
        self._workers = workers
        self.num_parameters = num_parameters

    @classmethod
    def of(cls, matrix_NP: Vector) -> "Rows":
        """Return the rows of a matrix."""
        return cls(matrix_NP.__getitem__, num_rows=matrix_NP.shape[0], num_parameters=matrix_NP.shape[1])

    def __len__(self) -> int:
        """Return N."""
        return self._num_rows

    def __getitem__(self, index: int) -> Vector:
        """Return row `index`.

        Raises:
            IndexError: If there is none.
        """
        if not 0 <= index < self._num_rows:
            raise IndexError(f"row {index} is none of {self._num_rows}")
        return self._read(index)

    def __iter__(self) -> Iterator[Vector]:
        """Read every row, in order."""
        size = rows_in_a_task(self.num_parameters)
        if self._workers == 1 or self._num_rows <= size:
            yield from (self._read(index) for index in range(self._num_rows))
            return
        tasks = [range(start, min(start + size, self._num_rows)) for start in range(0, self._num_rows, size)]
        for rows in map_ahead(lambda task: [self._read(index) for index in task], tasks, workers=self._workers):
            yield from rows

    def blocks(self) -> Iterator[Vector]:
        """Read the rows in order, `BLOCK` at a time, float32 [n, P]."""
        for start in range(0, self._num_rows, BLOCK):
            yield np.stack([self._read(index) for index in range(start, min(start + BLOCK, self._num_rows))])

    def select(self, indices: Sequence[int]) -> "Rows":
        """Return some of the rows, in the order given."""
        chosen = tuple(indices)
        return self._like(lambda index: self._read(chosen[index]), num_rows=len(chosen))

    def map(self, function: Callable[[int, Vector], Vector]) -> "Rows":
        """Return what a function makes of (index, row), made anew each time it is read."""
        return self._like(lambda index: function(index, self._read(index)), num_rows=self._num_rows)

    def stacked(self) -> Vector:
        """Return all rows at once, float32 [N, P]."""
        return np.stack(list(self)) if self._num_rows else np.zeros((0, self.num_parameters), np.float32)

    def _like(self, read: Callable[[int], Vector], *, num_rows: int) -> "Rows":
        return Rows(read, num_rows=num_rows, num_parameters=self.num_parameters, workers=self._workers)
