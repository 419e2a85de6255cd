from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from datagen.sharding import kernel
from datagen.sharding.kernel import hidden_states, overload_probability, simulate
from datagen.sharding.shard import STATE, draw_parameters, first_state
from datagen.sharding.verify import check_queue
from nerv_fl.data.load_schema import FEATURES, overloaded
from nerv_fl.errors import DataError
from nerv_fl.rng import stream

DAYS_3 = 4320


class Silent:
    """A generator without noise, in which no rare event happens."""

    def standard_normal(self) -> float:
        return 0.0

    def random(self) -> float:
        return 0.5


def plain(name: str) -> Callable[..., None]:
    """A compiled function as it was written."""
    function: Callable[..., None] = getattr(kernel, name).py_func
    return function


def quiet_shard() -> tuple[Any, Any]:
    """A shard of 100 transactions a second, whose mix is the ordinary one."""
    state, parameters = first_state(0, 0), draw_parameters(0, 0, splits=False)
    state["share_complex"], parameters["complex"], parameters["capacity"] = 20.0, 0.20, 100.0
    return state.view(np.recarray)[0], parameters.view(np.recarray)[0]


def test_below_saturation_the_wait_is_that_of_pollaczek_and_khinchine() -> None:
    s, p = quiet_shard()
    s.organic = 0.5
    plain("_queue")(s, p, Silent())
    # A block, 1.5 s, and 0.75 x 0.4 s x 0.5 / (1 - 0.5) = 0.3 s; to the nearest eighth.
    assert (s.arrived, s.served, s.balked, s.queue, s.latency) == (3000, 3000, 0, 0, 1.75)


def test_above_saturation_the_rest_waits() -> None:
    s, p = quiet_shard()
    s.organic, s.storm = 0.7, 0.8
    plain("_queue")(s, p, Silent())
    # 1.5 s + 0.3 s x 49 + 30 s for the 3,000 that wait.
    assert (s.arrived, s.served, s.queue, s.latency) == (9000, 6000, 3000, 46.25)


def test_users_balk_at_the_wait_they_see() -> None:
    s, p = quiet_shard()
    s.organic, s.latency, s.queue = 1.0, 100.0, 9000.0
    plain("_queue")(s, p, Silent())
    # 6,000 x (1 - exp(-(100 - 10) / 90)) = 3792.7
    assert (s.balked, s.served, s.queue) == (3792, 6000, 9000 + 6000 - 3792 - 6000)


def test_the_fee_market_flattens_demand_above_its_threshold() -> None:
    s, p = quiet_shard()
    p.use, p.day_swing, p.week_swing, p.elasticity, s.drift = 0.9, 0.0, 0.0, 0.25, 0.0
    plain("_demand")(s, p, Silent())
    assert s.organic == pytest.approx(0.75)


@pytest.mark.parametrize(("spread", "joined"), [(1.2, 2.4), (3.5, 7.0)])
def test_a_storm_grows_by_its_spread(spread: float, joined: float) -> None:
    s, p = quiet_shard()
    s.infected, s.pool, s.spread, s.weight = 20.0, 2000.0, spread, 1.0
    plain("_storm")(s, p, Silent())
    assert s.pool == pytest.approx(2000 - joined)
    assert s.infected == pytest.approx(20 + joined - 2)
    assert s.storm == pytest.approx(s.infected / 2000 / 3)


def test_three_hot_minutes_begin_overload_and_three_calm_ones_end_it() -> None:
    s, p = quiet_shard()
    found = []
    for latency, cpu in [(31, 0), (0, 95), (31, 0), (20, 0), (0, 0), (0, 91), (0, 0), (0, 0), (0, 0)]:
        s.latency, s.cpu = latency, cpu
        plain("_judge")(s, p)
        found.append(int(s.overload))
    assert found == [0, 0, 1, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("splits", [False, True])
def test_lasting_overload_splits_a_shard_if_it_may(splits: bool) -> None:
    s, p = quiet_shard()
    p.splits, s.latency, s.load = float(splits), 40.0, 1.0
    actions = []
    for _ in range(72):
        plain("_judge")(s, p)
        actions.append(int(s.action))
    # Overloaded in the third minute, split in the tenth after that, again after an hour's rest.
    assert np.flatnonzero(actions).tolist() == [11, 71]
    assert s.depth == 2 * splits


def test_long_low_use_merges_a_split_shard() -> None:
    s, p = quiet_shard()
    p.splits, s.depth, s.load = 1.0, 1.0, 0.1
    actions = []
    for _ in range(400):
        plain("_judge")(s, p)
        actions.append(int(s.action))
    assert np.flatnonzero(actions).tolist() == [179]
    assert (actions[179], s.depth) == (2, 0)


@pytest.mark.parametrize("splits", [False, True])
@pytest.mark.parametrize("shard", range(5))
def test_transactions_are_conserved_and_seen_as_they_are(shard: int, splits: bool) -> None:
    block = simulate(3, shard, steps=DAYS_3, splits=splits)
    states = hidden_states(3, shard, steps=DAYS_3, splits=splits)
    check_queue(states, where="shard")
    assert (states["queue"] >= 0).all()
    for name, hidden in (("queue_size", "queue"), ("cpu_percent", "cpu"), ("latency_s", "latency")):
        np.testing.assert_array_equal(block.features[:, FEATURES.index(name)], states[hidden])
    np.testing.assert_array_equal(block.overload, overloaded(block.features))
    np.testing.assert_array_equal(block.action, states["action"])
    assert splits or not states["depth"].any()


def test_a_lost_transaction_is_found() -> None:
    states = hidden_states(3, 0, steps=50, splits=False)
    states["queue"][20] += 1
    with pytest.raises(DataError, match=r"^shard 0, step 20: queue is 1\.0, expected 0\.0$"):
        check_queue(states, where="shard 0")


def test_split_shards_meet_less_overload() -> None:
    share = [
        np.mean([simulate(11, shard, steps=20_000, splits=splits).overload.mean() for shard in range(8)])
        for splits in (False, True)
    ]
    assert 0 < share[1] < share[0]


def test_a_shorter_simulation_is_the_beginning_of_a_longer_one() -> None:
    short, long = (simulate(5, 2, steps=steps, splits=False) for steps in (100, 300))
    np.testing.assert_array_equal(short.features, long.features[:100])


def test_continuations_start_from_the_hidden_state() -> None:
    calm, hot = np.zeros(1, dtype=STATE), np.zeros(1, dtype=STATE)
    hot["queue"], hot["load"], hot["hot_run"] = 1e7, 1.0, 2.0
    states, parameters = np.concatenate([calm, hot]), draw_parameters(0, 0, splits=False)
    before = states.copy()
    chance = overload_probability(states, parameters, stream(0, "oracle"), horizon=10, repeats=64)
    assert chance.tolist() == [0.0, 1.0]
    np.testing.assert_array_equal(states, before)


def test_the_probability_of_overload_is_the_part_of_futures_that_meet_it() -> None:
    states = hidden_states(11, 1, steps=20_000, splits=False)
    ends = np.arange(60, 19_990, 7)
    parameters = draw_parameters(11, 1, splits=False)
    chance = overload_probability(states[ends], parameters, stream(1, "oracle"), horizon=10, repeats=64)
    met = np.array([states["overload"][end + 1 : end + 11].any() for end in ends])
    assert met.any()
    assert abs(chance.mean() - met.mean()) < 0.01
    assert np.mean((chance - met) ** 2) < 0.2 * met.mean()
