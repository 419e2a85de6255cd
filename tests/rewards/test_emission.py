import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.errors import ConfigError
from nerv_fl.rewards import TOTAL_SUPPLY_NANO, gini, round_emission, round_pool_nano


@given(st.integers(1, 500))
def test_the_pools_are_60_30_and_10_of_the_whole(number: int) -> None:
    emission = round_emission(number)
    whole = emission.gradient_nano + emission.validation_nano + emission.public_goods_nano
    assert emission.gradient_nano == round_pool_nano(number)
    assert 0 <= 10 * emission.gradient_nano - 6 * whole + 10 <= 20
    assert 0 <= 10 * emission.validation_nano - 3 * whole + 10 <= 20
    assert abs(10 * emission.public_goods_nano - whole) <= 30


def test_ten_years_emit_the_whole_supply() -> None:
    rounds = [round_emission(number) for number in range(1, 122)]
    emitted = sum(item.gradient_nano + item.validation_nano + item.public_goods_nano for item in rounds)
    assert 0.99 * TOTAL_SUPPLY_NANO < emitted < TOTAL_SUPPLY_NANO


def test_round_zero_emits_nothing_to_ask_for() -> None:
    with pytest.raises(ConfigError, match=r"^round is 0, expected at least 1$"):
        round_emission(0)


@given(st.lists(st.integers(0, 10**18), min_size=1, max_size=20))
def test_gini_is_the_mean_difference(payouts: list[int]) -> None:
    value = gini(payouts)
    total = sum(payouts)
    if total == 0:
        assert value is None
        return
    differences = sum(abs(one - other) for one in payouts for other in payouts)
    assert value == pytest.approx(differences / (2 * len(payouts) * total), abs=1e-12)
