"""How reads are grouped: every sample once, no chain that nobody asked for, no run too long for memory."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.data.samples import runs
from nerv_fl.data.schema import MAX_CHUNK_BYTES, chunk_shape


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 8))
def test_runs_hold_every_sample_and_no_gap(chains: list[int], limit: int) -> None:
    groups = runs(np.array(chains, dtype=np.int64), limit=limit)
    assert sorted(place for group in groups for place in group.tolist()) == list(range(len(chains)))
    for group in groups:
        found = sorted({chains[place] for place in group.tolist()})
        assert found == list(range(found[0], found[-1] + 1))
        assert len(found) <= limit


def test_runs_are_as_long_as_they_may_be() -> None:
    assert len(runs(np.array([5, 3, 4, 4]), limit=100)) == 1


def test_chunks_hold_a_few_chains_or_a_part_of_a_long_one() -> None:
    assert chunk_shape((1000, 9, 64), itemsize=8) == (3, 9, 64)
    assert chunk_shape((2, 9, 64), itemsize=8) == (2, 9, 64)
    assert chunk_shape((1000, 9, 1024), itemsize=8) == (1, 9, 1024)
    long = chunk_shape((3, 10_001, 1024), itemsize=8)
    assert long == (1, 9, 1024)
    assert 8 * np.prod(long) == MAX_CHUNK_BYTES
