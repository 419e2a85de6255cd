import numpy as np
import pytest

from nerv_fl.errors import ConfigError
from nerv_fl.rng import stream
from nerv_fl.shapley import Control, LinearControl, MeanControl, QuadraticControl
from nerv_fl.shapley.control_variates import inverse_size_values
from nerv_fl.shapley.permutation_sampling import mean_over_orders
from nerv_fl.types import FloatArray
from tests.shapley.known_games import exact_values


def gains_and_curvature(num_players: int) -> tuple[FloatArray, FloatArray]:
    draw = stream(1, "control", num_players)
    root_NN = draw.normal(size=(num_players, num_players))
    return draw.normal(size=num_players), root_NN + root_NN.T


def controls(num_players: int) -> list[Control]:
    gains_N, curvature_NN = gains_and_curvature(num_players)
    return [
        LinearControl(gains_N),
        QuadraticControl(gains_N, curvature_NN),
        MeanControl(gains_N, np.full(num_players, 2.0)),
        MeanControl(gains_N, np.full(num_players, 2.0), curvature_NN),
    ]


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("num_players", [1, 2, 3, 7])
def test_closed_forms_are_the_enumeration(kind: int, num_players: int) -> None:
    control = controls(num_players)[kind]
    np.testing.assert_allclose(control.shapley(), exact_values(control, num_players), atol=1e-13)


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_inverse_sizes(power: int) -> None:
    gains_N, _ = gains_and_curvature(6)

    def game(masks_MN: np.ndarray) -> FloatArray:
        sizes_M = np.maximum(masks_MN.sum(axis=1), 1).astype(np.float64)
        return np.asarray(masks_MN @ gains_N / sizes_M**power)

    np.testing.assert_allclose(inverse_size_values(gains_N, power=power), exact_values(game, 6), atol=1e-13)


def test_a_coalitions_mean_by_hand() -> None:
    control = MeanControl(np.array([1.0, 4.0]), np.array([1.0, 2.0]), np.array([[2.0, 0.0], [0.0, 2.0]]))
    masks_MN = np.array([[False, False], [True, False], [True, True]])
    np.testing.assert_allclose(control(masks_MN), [0.0, 1 + 1, (1 + 8) / 3 + (1 + 4) / 9])


def test_unequal_weights_are_valued_by_orders() -> None:
    gains_N, curvature_NN = gains_and_curvature(6)
    weights_N = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])
    control = MeanControl(gains_N, weights_N, curvature_NN)
    values_N, exact_N = control.shapley(), exact_values(control, 6)
    assert values_N.sum() == pytest.approx(exact_N.sum(), abs=1e-12)
    np.testing.assert_allclose(values_N, exact_N, atol=0.03 * np.abs(exact_N).max())
    np.testing.assert_array_equal(values_N, MeanControl(gains_N, weights_N, curvature_NN).shapley())
    few_N = MeanControl(gains_N, weights_N, curvature_NN, permutations=2).shapley()
    assert np.abs(few_N - exact_N).max() > np.abs(values_N - exact_N).max()


def test_orders_without_curvature() -> None:
    gains_N, weights_N = np.array([1.0, 2.0, 6.0]), np.ones(3)
    values_N = mean_over_orders(gains_N, np.zeros((0, 0)), weights_N, permutations=20_000, seed=3)
    np.testing.assert_allclose(values_N, inverse_size_values(gains_N, power=1), atol=0.05)


def test_bad_controls_are_refused() -> None:
    ones_2, eye_22 = np.ones(2), np.eye(2)
    with pytest.raises(
        ConfigError, match=r"^gains are float64 of shape \(0,\), expected finite float64 of shape \(N,\)$"
    ):
        LinearControl(np.ones(0))
    with pytest.raises(ConfigError, match=r"^gains are float64 of shape \(2,\), expected finite float64"):
        LinearControl(np.array([1.0, np.nan]))
    with pytest.raises(
        ConfigError, match=r"^curvature is float64 of shape \(2, 2\), expected finite float64 of \(3, 3\)$"
    ):
        QuadraticControl(np.ones(3), eye_22)
    with pytest.raises(ConfigError, match=r"^curvature is not symmetric, expected Q_ij = Q_ji$"):
        QuadraticControl(ones_2, np.array([[0.0, 1.0], [0.0, 0.0]]))
    with pytest.raises(ConfigError, match=r"^weights are 2 numbers from 0, expected 2 positive ones$"):
        MeanControl(ones_2, np.array([0.0, 1.0]))
    with pytest.raises(ConfigError, match=r"^weights are 3 numbers from 1, expected 2 positive ones$"):
        MeanControl(ones_2, np.ones(3))
