import numpy as np
import pytest

from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.shapley import CountedGame, FloatArray, MaskArray
from nerv_fl.shapley.exact import all_coalitions


def size(masks_MN: MaskArray) -> FloatArray:
    return np.asarray(masks_MN.sum(axis=1), dtype=np.float64)


def test_each_coalition_is_asked_about_once() -> None:
    asked: list[MaskArray] = []

    def game(masks_MN: MaskArray) -> FloatArray:
        asked.append(masks_MN)
        return size(masks_MN)

    counted = CountedGame(game, 9, budget=512)
    masks_MN = all_coalitions(9)
    twice = np.concatenate([masks_MN[::-1], masks_MN])
    np.testing.assert_array_equal(counted(twice), size(twice))
    np.testing.assert_array_equal(counted(masks_MN[5:7]), size(masks_MN[5:7]))
    assert counted.num_evaluations == 512
    assert [len(masks) for masks in asked] == [512]


def test_per_example_values_keep_their_rows() -> None:
    counted = CountedGame(lambda masks: np.stack([size(masks), -size(masks)], axis=1), 2, budget=4, num_examples=2)
    masks_MN = np.array([[True, True], [False, True], [True, True]])
    assert counted(masks_MN).tolist() == [[2, -2], [1, -1], [2, -2]]
    assert counted(masks_MN[:0]).shape == (0, 2)


def test_the_budget_is_refused_before_the_game_is_asked() -> None:
    asked: list[int] = []

    def game(masks_MN: MaskArray) -> FloatArray:
        asked.append(len(masks_MN))
        return size(masks_MN)

    counted = CountedGame(game, 3, budget=5)
    counted(all_coalitions(3)[:4])
    counted(all_coalitions(3)[:4])
    with pytest.raises(ConfigError, match=r"^budget is 5 evaluations, expected at least 6$"):
        counted(all_coalitions(3)[4:6])
    assert asked == [4]
    assert counted.num_evaluations == 4


def test_a_nan_names_its_coalition() -> None:
    counted = CountedGame(lambda masks: np.where(masks[:, 0] & masks[:, 2], np.nan, 1.0), 3, budget=8)
    with pytest.raises(AggregationError, match=r"^value of coalition \[0, 2\] is nan, expected a finite number$"):
        counted(all_coalitions(3))
    assert counted.num_evaluations == 0


def test_a_large_coalition_is_abbreviated() -> None:
    counted = CountedGame(lambda masks: np.full((len(masks), 2), [1.0, -np.inf]), 20, budget=8, num_examples=2)
    expected = (
        r"^value of coalition \[0, 1, 2, 3, 4, 5, 6, 7, \.\.\.\] of 20 players is -inf, expected a finite number$"
    )
    with pytest.raises(AggregationError, match=expected):
        counted(np.ones((1, 20), dtype=np.bool_))


@pytest.mark.parametrize(
    ("num_examples", "returned", "message"),
    [
        (None, (4, 1), r"^the game returned shape \(4, 1\), expected \(4,\)$"),
        (None, (3,), r"^the game returned shape \(3,\), expected \(4,\)$"),
        (7, (4, 6), r"^the game returned shape \(4, 6\), expected \(4, 7\)$"),
    ],
)
def test_the_wrong_shape_is_refused(num_examples: int | None, returned: tuple[int, ...], message: str) -> None:
    counted = CountedGame(lambda masks: np.zeros(returned), 2, budget=4, num_examples=num_examples)
    with pytest.raises(ConfigError, match=message):
        counted(all_coalitions(2))


def test_bad_masks_and_no_players_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^num_players is 0, expected at least 1$"):
        CountedGame(size, 0, budget=4)
    counted = CountedGame(size, 2, budget=4)
    with pytest.raises(ConfigError, match=r"^masks are bool of shape \(1, 3\), expected bool of shape \(M, 2\)$"):
        counted(np.ones((1, 3), dtype=np.bool_))
    with pytest.raises(ConfigError, match=r"^masks are float64 of shape \(1, 2\), expected bool of shape \(M, 2\)$"):
        counted(np.ones((1, 2)))  # type: ignore[arg-type]
