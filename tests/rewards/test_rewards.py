from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.config import RewardsConfig
from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.rewards import (
    TOTAL_SUPPLY_NANO,
    lower_bounds,
    pay,
    penalise,
    round_pool_nano,
    settle,
    update_reputation,
)
from nerv_fl.types import FloatArray

POOLS = st.integers(0, 10**17)
SCORES = st.one_of(st.just(0.0), st.floats(0, 1e300), st.floats(1e-300, 1e-200), st.floats(0, 1))
REPUTATIONS = st.floats(0, 1)
EVENTS = st.lists(st.sampled_from([-1, 0, 1, 2]), max_size=40)
NODES = st.lists(st.tuples(SCORES, REPUTATIONS), min_size=1, max_size=30)


def columns(nodes: list[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    scores_N, reputations_N = np.array(nodes, dtype=np.float64).reshape(-1, 2).T
    return scores_N, reputations_N


def exact_shares(pool_nano: int, nodes: list[tuple[float, float]]) -> list[Fraction]:
    products = [Fraction(score) * Fraction(reputation) for score, reputation in nodes]
    return [pool_nano * product / sum(products) for product in products]


def test_the_pool_of_the_first_round_and_of_each_period() -> None:
    """1.9 * 10^9 NERV a year are 156.06 M in 30 days, of which gradients get 93.63 M."""
    assert round_pool_nano(1) == 93_634_496_919_917_864
    yearly = {1: Fraction(1_900_000_000), 24: Fraction(1_900_000_000), 26: Fraction(3_400_000_000, 3)}
    yearly |= {60: Fraction(3_400_000_000, 3), 62: Fraction(560_000_000), 123: Fraction(50_000_000)}
    for number, nerv in yearly.items():
        exact = nerv * 10**9 * Fraction(60, 100) * 30 / Fraction(36525, 100)
        assert round_pool_nano(number) == int(exact)


def test_a_round_across_two_periods_gets_of_each_by_its_days() -> None:
    """Two years are 730.5 days: round 25 has 10.5 days of the first period and 19.5 of the second."""
    daily = [Fraction(rate) * 10**9 / Fraction(36525, 100) for rate in (1_900_000_000, Fraction(3_400_000_000, 3))]
    exact = Fraction(60, 100) * (daily[0] * Fraction(21, 2) + daily[1] * Fraction(39, 2))
    assert round_pool_nano(25) == int(exact)


def test_ten_years_emit_the_supply() -> None:
    """3,652.5 days are 121.75 rounds; rounding down loses less than 1 NANO a round."""
    tail = TOTAL_SUPPLY_NANO * Fraction(5, 1000) * Fraction(75, 10) / Fraction(36525, 100)
    exact = Fraction(60, 100) * (TOTAL_SUPPLY_NANO + tail)
    assert 0 <= exact - sum(round_pool_nano(number) for number in range(1, 123)) < 122


@pytest.mark.parametrize("number", [0, -1])
def test_there_is_no_round_zero(number: int) -> None:
    with pytest.raises(ConfigError, match=rf"^round is {number}, expected at least 1$"):
        round_pool_nano(number)


def test_lower_bounds() -> None:
    bounds_N = lower_bounds(np.array([1.0, 0.1, 0.0]), np.array([0.5, 0.5, 0.0]), confidence=0.9)
    np.testing.assert_allclose(bounds_N, [1 - 0.6407757827723003, 0.1 - 0.6407757827723003, 0.0], rtol=1e-14)
    with pytest.raises(ConfigError, match=r"^confidence is 0\.4, expected a number in \[0\.5, 0\.999999999999\]$"):
        lower_bounds(np.ones(1), np.ones(1), confidence=0.4)


def test_payouts_by_hand() -> None:
    """Weights 3, 2, 2, 1 of a pool of 11: 4.125, 2.75, 2.75, 1.375; the two NANO left go to the two of 2.75."""
    scores_N, reputations_N = np.array([6.0, 2.0, 4.0, 1.0]), np.array([0.5, 1.0, 0.5, 1.0])
    assert pay(11, scores_N, reputations_N=reputations_N) == [4, 3, 3, 1]
    assert pay(10, np.ones(4), reputations_N=np.ones(4)) == [3, 3, 2, 2]
    assert pay(0, scores_N, reputations_N=reputations_N) == [0, 0, 0, 0]


@pytest.mark.parametrize("factors", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_nothing_earned_is_nothing_paid(factors: tuple[float, float]) -> None:
    assert pay(10**17, np.full(3, factors[0]), reputations_N=np.full(3, factors[1])) == [0, 0, 0]


@given(POOLS, NODES)
def test_payouts_are_exact_shares_and_sum_to_the_pool(pool_nano: int, nodes: list[tuple[float, float]]) -> None:
    scores_N, reputations_N = columns(nodes)
    payouts = pay(pool_nano, scores_N, reputations_N=reputations_N)
    assert all(type(payout) is int and payout >= 0 for payout in payouts)
    assert all(
        payout == 0 for payout, (score, reputation) in zip(payouts, nodes, strict=True) if 0 in (score, reputation)
    )
    if any(score > 0 and reputation > 0 for score, reputation in nodes):
        assert sum(payouts) == pool_nano
        shares = exact_shares(pool_nano, nodes)
        assert all(abs(payout - share) < 1 for payout, share in zip(payouts, shares, strict=True))


@given(POOLS, NODES, st.data())
def test_a_higher_score_never_earns_less(pool_nano: int, nodes: list[tuple[float, float]], data: st.DataObject) -> None:
    node = data.draw(st.integers(0, len(nodes) - 1))
    higher = data.draw(st.floats(nodes[node][0], 1e300))
    before = pay(pool_nano, columns(nodes)[0], reputations_N=columns(nodes)[1])
    nodes[node] = (higher, nodes[node][1])
    after = pay(pool_nano, columns(nodes)[0], reputations_N=columns(nodes)[1])
    assert after[node] >= before[node]


@given(POOLS, NODES, st.data())
def test_the_order_of_nodes_moves_ties_only(
    pool_nano: int, nodes: list[tuple[float, float]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(nodes))))
    scores_N, reputations_N = columns(nodes)
    payouts = pay(pool_nano, scores_N, reputations_N=reputations_N)
    shuffled = pay(pool_nano, scores_N[order], reputations_N=reputations_N[order])
    assert sorted(payouts) == sorted(shuffled)
    for position, node in enumerate(order):
        assert abs(shuffled[position] - payouts[node]) <= 1


def test_extreme_ratios_and_pools() -> None:
    scores_N = np.array([1e-300, 1e300, 5e-324, 1e300])
    assert pay(10**17, scores_N, reputations_N=np.ones(4)) == [0, 5 * 10**16, 0, 5 * 10**16]
    tiny_N = np.array([1e-300, 3e-300])
    assert sum(pay(10**17, tiny_N, reputations_N=np.array([0.3, 1e-300]))) == 10**17
    assert sum(pay(10**30 + 1, np.full(1000, 0.1), reputations_N=np.full(1000, 0.3))) == 10**30 + 1


@pytest.mark.parametrize(
    ("pool_nano", "scores", "reputations", "error", "message"),
    [
        (-1, [1.0], [1.0], ConfigError, r"^pool_nano is -1, expected at least 0$"),
        (1, [1.0, -0.5], [1.0, 1.0], AggregationError, r"^score of node 1 is -0\.5, expected a finite number of at"),
        (
            1,
            [float("nan")],
            [1.0],
            AggregationError,
            r"^score of node 0 is nan, expected a finite number of at least 0$",
        ),
        (
            1,
            [float("inf")],
            [1.0],
            AggregationError,
            r"^score of node 0 is inf, expected a finite number of at least 0$",
        ),
        (1, [1.0], [1.5], ConfigError, r"^reputation of node 0 is 1\.5, expected a number in \[0, 1\]$"),
        (1, [1.0], [1.0, 1.0], ConfigError, r"^scores and reputations have shapes \(1,\) and \(2,\), expected \(N,\)$"),
    ],
)
def test_bad_payments_are_refused(
    *, pool_nano: int, scores: list[float], reputations: list[float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pay(pool_nano, np.array(scores), reputations_N=np.array(reputations))


@given(pool_nano=POOLS, carried_nano=POOLS, nodes=NODES, accepted=st.booleans(), negative=st.booleans())
def test_settlement_conserves_every_nano(
    *, pool_nano: int, carried_nano: int, nodes: list[tuple[float, float]], accepted: bool, negative: bool
) -> None:
    scores_N, reputations_N = columns(nodes)
    bounds_N = -scores_N if negative else scores_N
    settled = settle(pool_nano, carried_nano, accepted=accepted, bounds_N=bounds_N, reputations_N=reputations_N)
    assert sum(settled.payouts_nano) + settled.carried_nano == pool_nano + carried_nano
    assert len(settled.payouts_nano) == len(nodes)
    earned = accepted and not negative and bool(np.any((scores_N > 0) & (reputations_N > 0)))
    assert settled.carried_nano == (0 if earned else pool_nano + carried_nano)


def test_a_rejected_round_carries_over_and_the_next_pays_both() -> None:
    rejected = settle(10, 5, accepted=False, bounds_N=np.full(2, np.nan), reputations_N=np.ones(2))
    assert (rejected.payouts_nano, rejected.carried_nano) == ((0, 0), 15)
    paid = settle(
        10, rejected.carried_nano, accepted=True, bounds_N=np.array([-9.0, 2.0]), reputations_N=np.array([1.0, 0.3])
    )
    assert (paid.payouts_nano, paid.carried_nano) == ((0, 25), 0)
    nobody = settle(7, 0, accepted=True, bounds_N=np.zeros(0), reputations_N=np.zeros(0))
    assert (nobody.payouts_nano, nobody.carried_nano) == ((), 7)


@pytest.mark.parametrize(("pool", "carried", "name"), [(-2, 5, "pool_nano"), (5, -2, "carried_nano")])
def test_negative_amounts_cannot_be_settled(pool: int, carried: int, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is -2, expected at least 0$"):
        settle(pool, carried, accepted=False, bounds_N=np.ones(1), reputations_N=np.ones(1))


def test_reputation_follows_what_was_shown() -> None:
    config = RewardsConfig(reputation_rate=0.1, fault_penalty=0.25)
    assert update_reputation(0.3, ci_low=1e-9, ci_high=1.0, config=config) == pytest.approx(0.37)
    assert update_reputation(0.3, ci_low=-1.0, ci_high=-1e-9, config=config) == pytest.approx(0.27)
    for low, high in ((-1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (-1.0, 0.0)):
        assert update_reputation(0.3, ci_low=low, ci_high=high, config=config) == 0.3
    assert penalise(0.4, config) == pytest.approx(0.3)


@given(REPUTATIONS, st.builds(RewardsConfig, reputation_rate=REPUTATIONS, fault_penalty=REPUTATIONS), EVENTS)
def test_reputation_stays_between_zero_and_one(start: float, config: RewardsConfig, events: list[int]) -> None:
    reputation = start
    for event in events:
        if event == 2:
            after = penalise(reputation, config)
        else:
            after = update_reputation(reputation, ci_low=float(event), ci_high=float(event), config=config)
        assert 0 <= after <= 1
        assert after >= reputation if event in (0, 1) else after <= reputation
        reputation = after


@pytest.mark.parametrize(("reputation", "shown"), [(1.2, r"1\.2"), (float("nan"), "nan")])
def test_bad_reputations_are_refused(reputation: float, shown: str) -> None:
    config = RewardsConfig()
    message = rf"^reputation is {shown}, expected a number in \[0, 1\]$"
    with pytest.raises(ConfigError, match=message):
        update_reputation(reputation, ci_low=0, ci_high=1, config=config)
    with pytest.raises(ConfigError, match=message):
        penalise(reputation, config)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (float("nan"), 1.0)])
def test_an_empty_interval_is_refused(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match=rf"^interval is \[{low}, {high}\], expected its lower end first$"):
        update_reputation(0.3, ci_low=low, ci_high=high, config=RewardsConfig())
