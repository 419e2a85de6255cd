"""Who is lost in a simulated round: drawn from the seed, as often as the settings say, each setting for itself."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from nerv_fl.config import Flat, RunConfig, build
from nerv_fl.faults import FAILED, FATES, LATE, OFFLINE, fate_of, nodes_by_fate
from nerv_fl.rng import stream
from simulations.prepare import load_recipe

ALL: Flat = {
    "faults.offline": 0.2,
    "faults.failure": 0.1,
    "faults.deadline_s": 90.0,
    "faults.median_s": 60.0,
    "faults.spread": 0.5,
}


def settings(**faults: float) -> RunConfig:
    return build({f"faults.{name}": value for name, value in faults.items()})


def test_without_faults_nobody_is_lost_and_nothing_is_drawn() -> None:
    assert nodes_by_fate(RunConfig(), 1, range(1000)) == dict.fromkeys(FATES, frozenset())


def test_fates_are_a_function_of_seed_round_and_node_alone() -> None:
    config = build(ALL)
    whole = nodes_by_fate(config, 3, range(300))

    assert whole == nodes_by_fate(config, 3, reversed(range(300)))
    for fate, nodes in whole.items():
        assert nodes == {node for node in range(300) if fate_of(config, 3, node) == fate}
    assert whole != nodes_by_fate(config, 4, range(300))
    assert whole != nodes_by_fate(build(ALL | {"seed": 8}), 3, range(300))


def test_each_fate_is_as_frequent_as_its_setting_says() -> None:
    num_nodes, config = 20_000, build(ALL)
    counts = {fate: len(nodes) for fate, nodes in nodes_by_fate(config, 1, range(num_nodes)).items()}

    past_deadline = 1 - NormalDist().cdf(math.log(90 / 60) / 0.5)
    expected = {OFFLINE: 0.2, FAILED: 0.8 * 0.1, LATE: 0.8 * 0.9 * past_deadline}
    for fate, chance in expected.items():
        assert counts[fate] / num_nodes == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / num_nodes))


def test_one_setting_does_not_change_whom_another_picks() -> None:
    alone = nodes_by_fate(settings(offline=0.2), 1, range(500))[OFFLINE]
    late = nodes_by_fate(settings(deadline_s=90), 1, range(500))[LATE]
    together = nodes_by_fate(build(ALL), 1, range(500))

    assert together[OFFLINE] == alone
    assert together[LATE] == late - together[OFFLINE] - together[FAILED]


def test_certain_fates() -> None:
    everybody = frozenset(range(50))

    assert nodes_by_fate(settings(offline=1.0, failure=1.0), 1, everybody)[OFFLINE] == everybody
    assert nodes_by_fate(settings(failure=1.0), 1, everybody)[FAILED] == everybody
    assert nodes_by_fate(settings(deadline_s=59, spread=0), 1, everybody)[LATE] == everybody
    assert not nodes_by_fate(settings(deadline_s=61, spread=0), 1, everybody)[LATE]


def test_slow_nodes_are_late_again_and_again() -> None:
    """With a spread between nodes only, a node is late in all rounds or in none: when its own factor is too long."""
    config = settings(deadline_s=60, spread=0, node_spread=1.0)
    rounds = [nodes_by_fate(config, number, range(100))[LATE] for number in (1, 2, 3)]

    assert rounds[0] == rounds[1] == rounds[2]
    slowness = np.array([stream(config.seed, "slowness", node).standard_normal() for node in range(100)])
    assert rounds[0] == frozenset(np.flatnonzero(slowness > 0).tolist())


def test_the_recipe_loses_a_quarter() -> None:
    config = load_recipe("dropouts")
    lost = nodes_by_fate(config, 1, range(10_000))

    assert sum(len(nodes) for nodes in lost.values()) / 10_000 == pytest.approx(0.24, abs=0.02)
    assert all(lost.values())
