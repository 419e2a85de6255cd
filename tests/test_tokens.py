"""Buckets and tokens against an exact reference in Python integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.errors import DataError
from nerv_fl.tokens import (
    BUCKET_EDGES,
    MAX_SUPPLY_NANO,
    NUM_BUCKETS,
    bucket,
    sequence_length,
    tokens,
    vocabulary_size,
)

LARGEST = 2**63 - 1
balances = st.one_of(
    st.integers(0, LARGEST),
    st.integers(0, 2000),
    st.integers(0, 62).flatmap(lambda power: st.integers(-2, 2).map(lambda shift: max(0, 2**power + shift))),
)


def exact_bucket(balance: int) -> int:
    """Return 1 + floor(4 log2 b) as the number of bits of b^4, which is exact."""
    return (balance**4).bit_length()


def exact_tokens(state: list[int], masked: list[bool]) -> list[int]:
    """Return the sequence account by account, from the definition."""
    sequence = [0]
    for account, (balance, hidden) in enumerate(zip(state, masked, strict=True)):
        sequence += [1 + account, 0 if hidden else 1 + len(state) + exact_bucket(balance)]
    return sequence


def test_buckets_by_hand() -> None:
    # 4 log2 of 5, 6, 7 is 9.29, 10.34, 11.23; 2^(1/4) = 1.19 and 2^(3/4) = 1.68 hold no integer above 1.
    assert bucket(np.array([0, 1, 2, 3, 4, 5, 6, 7, 8])).tolist() == [0, 1, 5, 7, 9, 10, 11, 12, 13]


def test_largest_balance_has_a_bucket_of_the_vocabulary() -> None:
    assert bucket(np.array([MAX_SUPPLY_NANO, LARGEST])).tolist() == [213, 252]
    assert len(BUCKET_EDGES) == 252 < NUM_BUCKETS


@given(balances)
def test_bucket_equals_the_exact_reference(balance: int) -> None:
    assert bucket(np.array([balance])).item() == exact_bucket(balance)


def test_bucket_is_exact_on_both_sides_of_every_edge() -> None:
    around = np.concatenate([BUCKET_EDGES - 1, BUCKET_EDGES, BUCKET_EDGES + 1])
    assert bucket(around).tolist() == [exact_bucket(int(balance)) for balance in around]


@given(st.lists(balances, min_size=2, max_size=20))
def test_bucket_keeps_order(state: list[int]) -> None:
    assert (np.diff(bucket(np.array(sorted(state)))) >= 0).all()


def test_negative_balance_is_refused() -> None:
    with pytest.raises(DataError, match=r"^balance is -3 NANO, expected at least 0$"):
        bucket(np.array([1, -3]))


def test_bucket_of_nothing() -> None:
    assert bucket(np.empty((0, 4), dtype=np.int64)).shape == (0, 4)


@given(st.lists(st.tuples(balances, st.booleans()), min_size=1, max_size=12))
def test_tokens_equal_the_exact_reference(accounts: list[tuple[int, bool]]) -> None:
    state, masked = [balance for balance, _ in accounts], [hidden for _, hidden in accounts]
    sequence = tokens(np.array(state), masked=np.array(masked))
    assert sequence.tolist() == exact_tokens(state, masked)
    assert len(sequence) == sequence_length(len(state))
    assert sequence.max() < vocabulary_size(len(state))


def test_tokens_keep_leading_axes() -> None:
    states = np.arange(24).reshape(2, 3, 4)
    assert tokens(states).shape == (2, 3, 9)
    assert tokens(states)[1, 2].tolist() == tokens(states[1, 2]).tolist()


def test_sizes_at_full_scale() -> None:
    assert (sequence_length(1024), vocabulary_size(1024)) == (2049, 1281)
