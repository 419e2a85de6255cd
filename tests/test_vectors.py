"""Rows are read when they are asked for, and made of others without anything being held."""

from collections.abc import Callable

import numpy as np
import pytest

from nerv_fl.types import Vector
from nerv_fl.vectors import BLOCK, Rows


def counted(num_rows: int) -> tuple[Rows, list[int]]:
    """Return rows (i, 10 i), and which of them were read."""
    read: list[int] = []

    def row(index: int) -> Vector:
        read.append(index)
        return np.array([index, 10 * index], dtype=np.float32)

    return Rows(row, num_rows=num_rows, num_parameters=2), read


def test_nothing_is_read_before_it_is_asked_for() -> None:
    rows, read = counted(4)
    doubled = rows.select([3, 1]).map(lambda place, row_P: row_P + np.float32(place))
    assert (len(doubled), doubled.num_parameters, read) == (2, 2, [])
    assert doubled[1].tolist() == [2.0, 11.0]
    assert doubled.stacked().tolist() == [[3.0, 30.0], [2.0, 11.0]]
    assert read == [1, 3, 1]


def test_blocks_hold_every_row_once_in_order() -> None:
    rows, _ = counted(2 * BLOCK + 3)
    blocks = list(rows.blocks())
    assert [len(block_nP) for block_nP in blocks] == [BLOCK, BLOCK, 3]
    assert np.concatenate(blocks)[:, 0].tolist() == list(range(2 * BLOCK + 3))


def test_no_row_at_all() -> None:
    rows, _ = counted(0)
    assert (list(rows), list(rows.blocks()), rows.stacked().shape) == ([], [], (0, 2))


@pytest.mark.parametrize("index", [-1, 4])
@pytest.mark.parametrize("made", [lambda rows: rows, lambda rows: rows.select([0, 1, 2, 3]).map(lambda _, row: row)])
def test_a_row_that_is_none(made: Callable[[Rows], Rows], index: int) -> None:
    with pytest.raises(IndexError, match=f"^row {index} is none of 4$"):
        made(counted(4)[0])[index]


@pytest.mark.parametrize("num_rows", [1, 3, 50])
def test_threads_change_no_row_and_not_their_order(num_rows: int) -> None:
    def row(index: int) -> Vector:
        return np.full(100_000, index, dtype=np.float32)

    alone = Rows(row, num_rows=num_rows, num_parameters=100_000)
    helped = Rows(row, num_rows=num_rows, num_parameters=100_000, workers=3).map(lambda place, row_P: row_P + place)
    assert [row_P[0] for row_P in helped] == [2 * row_P[0] for row_P in alone]
