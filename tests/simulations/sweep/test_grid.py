"""The points of a sweep: every combination, none spending more than the recipe."""

import pytest

from nerv_fl.config import build
from nerv_fl.errors import ConfigError
from nerv_fl.privacy.accounting import Mechanism, epsilon_of
from nerv_fl.strategy.client_sampling import draw_cohort, most_rounds
from simulations.sweep.grid import SLACK, epsilon_at_end, limit_of, parse_axes, plan

BASE = build({"federation.num_nodes": 10, "federation.cohort_size": 4, "federation.num_rounds": 6})


def test_axes_are_values_between_commas() -> None:
    axes = parse_axes(["training.trainable=*,positions.*", "server.beta1=0.5", "gate.enforce=true,false"])
    assert axes == {
        "training.trainable": ["*", "positions.*"],
        "server.beta1": [0.5],
        "gate.enforce": [True, False],
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["seed"], "--over is 'seed', expected key=value,value, such as training.local_steps=1,2"),
        (["seed=1", "seed=2"], "--over names 'seed' twice, expected all of its values in one"),
    ],
)
def test_bad_axes_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_axes(texts)


def test_every_combination_at_every_seed() -> None:
    axes = parse_axes(["server.optimizer=adam,momentum", "server.beta1=0.5,0.9"])
    points = plan(BASE, axes, seeds=[7, 8], epsilon=100.0)
    found = [(point.config.server.optimizer, point.config.server.beta1, point.config.seed) for point in points]
    assert found == [(name, beta, seed) for name in ("adam", "momentum") for beta in (0.5, 0.9) for seed in (7, 8)]
    assert len({point.folder_name for point in points}) == 8
    assert points[0].label == points[1].label == "server.optimizer=adam, server.beta1=0.5"


def test_without_axes_the_recipe_itself_is_the_point() -> None:
    (point,) = plan(BASE, {}, seeds=[7], epsilon=100.0)
    assert (point.config, point.label, point.folder_name) == (BASE, "as the recipe says", "base_seed=7")


def test_the_busiest_node_is_counted() -> None:
    drawn = [draw_cohort(BASE, number) for number in range(1, 7)]
    assert all(len(set(cohort)) == 4 and list(cohort) == sorted(cohort) for cohort in drawn)
    assert most_rounds(BASE) == max(sum(node in cohort for cohort in drawn) for node in range(10))
    mechanism = Mechanism(sigma=0.5, sampling_rate=64 / 4096)
    assert epsilon_at_end(BASE) == epsilon_of(mechanism, most_rounds(BASE), delta=1e-5)


def test_more_local_steps_get_more_data_and_spend_no_more() -> None:
    limit = limit_of(BASE, ["training.local_steps"], seeds=[7])
    assert limit is not None
    one, four = plan(BASE, {"training.local_steps": [1, 4]}, seeds=[7], epsilon=limit)
    assert (one.config.data.samples_per_node, one.grown) == (4096, False)
    assert four.config.data.samples_per_node > 4096
    assert four.grown
    assert four.epsilon is not None
    assert limit - 0.15 < four.epsilon <= limit + SLACK
    assert four.config.data.samples_per_node % four.config.data.steps == 0


def test_data_that_is_swept_over_is_left_alone() -> None:
    points = plan(BASE, {"data.samples_per_node": [1024, 4096]}, seeds=[7], epsilon=1.0)
    assert [point.config.data.samples_per_node for point in points] == [1024, 4096]
    assert all((point.epsilon or 0.0) > 1.0 and not point.grown for point in points)


def test_an_epsilon_out_of_reach_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.sweep.grid.MAX_CHAINS", 600)
    with pytest.raises(
        ConfigError, match=r"epsilon of 4 local steps is above 1\.00 with 600 chains a node, expected fewer"
    ):
        plan(BASE, {"training.local_steps": [4]}, seeds=[7], epsilon=1.0)


FREE = build({"federation.num_nodes": 10, "federation.cohort_size": 4, "privacy.protocol": False})


def test_points_that_differ_in_epsilon_keep_their_data() -> None:
    axes = parse_axes(["privacy.sigma=0.4,0.5,1.0"])
    limit = limit_of(FREE, axes, seeds=[7])
    points = plan(FREE, axes, seeds=[7], epsilon=limit, also=[{"privacy.mechanism": "none"}])

    assert limit is None
    assert [point.label for point in points] == [
        *(f"privacy.sigma={s}" for s in (0.4, 0.5, 1.0)),
        "privacy.mechanism=none",
    ]
    assert not any(point.grown for point in points)
    spent = [point.epsilon for point in points]
    assert spent[3] is None
    assert spent[:3] == sorted(spent[:3], key=lambda epsilon: -(epsilon or 0.0))


def test_a_limit_that_is_asked_for_is_kept_and_none_fits_without_a_mechanism() -> None:
    (point,) = plan(FREE, {"privacy.sigma": [0.4]}, seeds=[7], epsilon=5.0)
    assert point.grown
    with pytest.raises(
        ConfigError, match=r"^privacy\.mechanism is 'none', expected 'gaussian' with a limit of epsilon 5\.00"
    ):
        plan(FREE, {"privacy.mechanism": ["none"]}, seeds=[7], epsilon=5.0)
