"""The affine encoder's arithmetic against Python's integers, which have no largest one.

Shapes: B samples, A accounts, D width, X transactions.
"""

import math
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.data import Samples
from nerv_fl.errors import DataError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.homomorphism import (
    batch_delta,
    batch_numerator,
    check_bound,
    clopper_pearson_low,
    encode,
    float_errors,
    integer_mismatches,
    integer_table,
    state_numerator,
)
from nerv_fl.tokens import MAX_SUPPLY_NANO
from nerv_fl.types import IntArray
from tests.models.by_hand import (
    Transaction,
    burn,
    exact_delta,
    exact_state,
    integers,
    make_batches,
    make_samples,
    mint,
    transfer,
)

BOUND = 1e-9


NUM_ACCOUNTS = 5
LARGEST_ENTRY = 2**53 // (2**18 * NUM_ACCOUNTS) - 1
entries = st.one_of(
    st.integers(-LARGEST_ENTRY, LARGEST_ENTRY),
    st.sampled_from([0, 1, -1, 65_536, -65_536, LARGEST_ENTRY, -LARGEST_ENTRY]),
)
tables = st.lists(st.tuples(entries, entries).map(list), min_size=NUM_ACCOUNTS, max_size=NUM_ACCOUNTS)
amounts = st.one_of(
    st.integers(0, MAX_SUPPLY_NANO),
    st.sampled_from([0, 1, 2**18 - 1, 2**18, 2**36 - 1, 2**36, 2**53 + 1, MAX_SUPPLY_NANO]),
)
states = st.lists(amounts, min_size=NUM_ACCOUNTS, max_size=NUM_ACCOUNTS)
accounts = st.integers(0, NUM_ACCOUNTS - 1)
transactions = st.one_of(
    st.builds(transfer, accounts, accounts, amounts),
    st.builds(mint, accounts, amounts),
    st.builds(burn, accounts, amounts),
)
batches_of_transactions = st.lists(st.lists(transactions, min_size=1, max_size=6), min_size=1, max_size=4)


@given(st.lists(states, min_size=1, max_size=4), tables)
def test_state_numerator_equals_big_integers(balances: list[list[int]], table: list[list[int]]) -> None:
    found = state_numerator(np.array(balances), np.array(table))
    assert integers(found) == [exact_state(state, table) for state in balances]


@given(batches_of_transactions, tables)
def test_batch_numerator_equals_big_integers(batches: list[list[Transaction]], table: list[list[int]]) -> None:
    found = batch_numerator(make_batches(batches), np.array(table))
    assert integers(found) == [exact_delta(batch, table) for batch in batches]


@given(st.lists(states, min_size=2, max_size=2), tables)
def test_sums_of_numerators_are_exact(balances: list[list[int]], table: list[list[int]]) -> None:
    first, second = (state_numerator(np.array([state]), np.array(table)) for state in balances)
    expected = np.add(*(np.array(exact_state(state, table), dtype=object) for state in balances))
    assert integers(first.plus(second)) == [expected.tolist()]


@given(states, st.lists(transactions, min_size=1, max_size=6), tables)
def test_numerator_moves_by_the_batch_exactly(
    balances: list[int], batch: list[Transaction], table: list[list[int]]
) -> None:
    """Also where a batch overdraws an account: the identity is one of integers, not of valid states."""
    samples = make_samples([balances], [batch])
    assert not integer_mismatches(samples, np.array(table)).any()


def test_numerator_leaves_the_range_of_int64() -> None:
    table = np.full((2, 1), 65_536)
    whole = state_numerator(np.array([[MAX_SUPPLY_NANO, 0]]), table)
    assert integers(whole) == [[MAX_SUPPLY_NANO * 65_536]]
    assert MAX_SUPPLY_NANO * 65_536 > 70 * 2**63


def test_one_nano_among_ten_million_nerv() -> None:
    """A transfer, a mint and a burn of 1 NANO, with negative entries: all exact, and none of them lost."""
    table = np.array([[0.75, -2.0], [-0.5, 1.0], [2.0**-16, -(2.0**-16)]], dtype=np.float32)
    before = [[MAX_SUPPLY_NANO - 5, 3, 2]] * 3
    batches = [[transfer(0, 2, 1)], [mint(1, 1)], [burn(0, 1)]]
    samples = make_samples(before, batches)
    exact = integer_table(table)
    moved = integers(batch_numerator(make_batches(batches), exact))
    assert moved == [[1 - 49_152, -1 + 131_072], [-32_768, 65_536], [-49_152, 131_072]]
    assert not integer_mismatches(samples, exact).any()
    assert float_errors(samples, table.astype(np.float64)).max() <= BOUND


def test_display_is_the_numerator_over_the_supply() -> None:
    table = np.array([[0.75, -2.0], [-0.5, 1.0]], dtype=np.float32)
    balances = np.array([[MAX_SUPPLY_NANO - 7, 7]])
    shown = encode(balances, np.array([MAX_SUPPLY_NANO]), table.astype(np.float64))[0]
    for column, numerator in enumerate(integers(state_numerator(balances, integer_table(table)))[0]):
        assert shown[column] == pytest.approx(float(Fraction(numerator, 65_536 * MAX_SUPPLY_NANO)), abs=1e-15)


# --- Floats -----------------------------------------------------------------------------------------------------------


def test_encode_and_delta_follow_their_equations() -> None:
    table = np.array([[1.0, -2.0], [0.5, 4.0], [-3.0, 0.25]])
    batches = [[transfer(0, 1, 10), mint(2, 5)], [burn(1, 20)]]
    encoded = encode(np.array([[50, 30, 20]]), np.array([100]), table)
    np.testing.assert_allclose(encoded, [[0.5 + 0.15 - 0.6, -1.0 + 1.2 + 0.05]])
    moved = batch_delta(make_batches(batches), np.array([100, 40]), table)
    np.testing.assert_allclose(moved, [[-0.05 - 0.15, 0.6 + 0.0125], [-0.25, -2.0]])


def test_error_is_the_largest_over_coordinates() -> None:
    samples = make_samples([[60, 40]], [[transfer(0, 1, 10)]], supply=100)
    tampered = replace(samples, after=np.array([[50, 60]]))
    table = np.array([[1.0, 0.0, 0.0], [0.0, -3.0, 2.0]])
    assert float_errors(tampered, table).tolist() == pytest.approx([0.3])


@pytest.fixture
def random_table(encoder: Encoder) -> npt.NDArray[np.float32]:
    table: npt.NDArray[np.float32] = encoder.table().detach().numpy()
    return table


def test_float64_keeps_the_bound_and_float32_does_not(samples: Samples, random_table: npt.NDArray[np.float32]) -> None:
    double = float_errors(samples, random_table.astype(np.float64))
    assert 0 < double.max() < 1e-14
    single = float_errors(samples, random_table)
    assert single.max() > BOUND
    assert single.max() < 1e-5


def test_random_weights_pass(samples: Samples, random_table: npt.NDArray[np.float32]) -> None:
    """The bound tests arithmetic, not learning; nobody should read more into it."""
    verdict = check_bound(samples, random_table, bound=BOUND)
    errors = float_errors(samples, random_table.astype(np.float64))
    assert (verdict.violations, verdict.n, verdict.bound) == (0, 12, BOUND)
    assert (verdict.max, verdict.mean) == (errors.max(), errors.mean())
    assert verdict.p999 == pytest.approx(np.quantile(errors, 0.999))


def tamper(samples: Samples, *, by_nano: int) -> Samples:
    """Change the amount of one transaction and leave the state it should have produced."""
    assert samples.batches is not None
    amount_nano: IntArray = samples.batches.amount_nano.copy()
    amount_nano[samples.batches.offset[3]] += by_nano
    return replace(samples, batches=replace(samples.batches, amount_nano=amount_nano))


def test_one_nano_too_many_is_a_violation(samples: Samples, random_table: npt.NDArray[np.float32]) -> None:
    """No float sees it, the integers do."""
    tampered = tamper(samples, by_nano=1)
    verdict = check_bound(tampered, random_table, bound=BOUND)
    assert verdict.violations == 1
    assert verdict.max < 1e-14
    assert integer_mismatches(tampered, integer_table(random_table)).tolist() == [row == 3 for row in range(12)]


def test_large_tampering_breaks_the_bound_itself(samples: Samples, random_table: npt.NDArray[np.float32]) -> None:
    verdict = check_bound(tamper(samples, by_nano=10**12), random_table, bound=BOUND)
    assert verdict.violations == 1
    assert verdict.max > BOUND


def test_errors_of_another_readout_are_judged_in_place_of_the_affine_ones(
    samples: Samples, random_table: npt.NDArray[np.float32]
) -> None:
    errors = np.zeros(12)
    errors[[2, 7]] = 0.5, BOUND
    verdict = check_bound(samples, random_table, bound=BOUND, errors=errors)
    assert (verdict.violations, verdict.max) == (1, 0.5)


def test_samples_without_transactions_are_refused(samples: Samples, random_table: npt.NDArray[np.float32]) -> None:
    message = r"^samples were read without their transactions, expected with_batches=True$"
    with pytest.raises(DataError, match=message):
        check_bound(replace(samples, batches=None), random_table, bound=BOUND)


# --- The table --------------------------------------------------------------------------------------------------------


def test_integer_table_rounds_to_the_nearest() -> None:
    table = np.array([[1.0, -0.5], [2.0**-16, 3 * 2.0**-18]], dtype=np.float32)
    assert integer_table(table).tolist() == [[65_536, -32_768], [1, 1]]


@pytest.mark.parametrize(
    ("entry", "shown"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "inf"), (262_144.0, "262144.0")]
)
def test_table_that_cannot_be_exact_is_refused(entry: float, shown: str) -> None:
    table = np.zeros((2, 3), dtype=np.float32)
    table[1, 2] = entry
    message = f"table V has an entry {shown}, expected finite numbers below 262144"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        integer_table(table)


def test_largest_admissible_table_is_exact() -> None:
    """The worst case of the range analysis: every limb full, every entry at the limit, 256 transactions."""
    largest = np.nextafter(np.float32(262_144.0), np.float32(0))
    table = np.array([[largest], [-largest]])
    exact = integer_table(table)
    full = 2**54 - 1
    assert integers(state_numerator(np.array([[full, full]]), exact)) == [[0]]
    assert integers(state_numerator(np.array([[full, 0]]), exact)) == [[full * int(exact[0, 0])]]
    batch = [transfer(1, 0, MAX_SUPPLY_NANO)] * 256
    moved = integers(batch_numerator(make_batches([batch]), exact))
    assert moved == [[256 * MAX_SUPPLY_NANO * 2 * int(exact[0, 0])]]


# --- The statement ----------------------------------------------------------------------------------------------------


def tail(successes: int, trials: int, proportion: float) -> float:
    """Return P(Bin(trials, proportion) >= successes), term by term."""
    return sum(
        math.comb(trials, count) * proportion**count * (1 - proportion) ** (trials - count)
        for count in range(successes, trials + 1)
    )


@pytest.mark.parametrize(("successes", "trials"), [(1, 1), (3, 10), (9, 10), (10, 10), (37, 40)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_lower_bound_is_where_the_binomial_tail_reaches_alpha(successes: int, trials: int, confidence: float) -> None:
    low = clopper_pearson_low(successes, trials, confidence=confidence)
    assert tail(successes, trials, low) == pytest.approx(1 - confidence, rel=1e-6)


def test_no_success_bounds_nothing() -> None:
    assert clopper_pearson_low(0, 10) == 0.0
