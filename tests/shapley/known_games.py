"""Games with structure, as test cases: their exact values come from enumeration."""

from collections.abc import Callable
from typing import Final

import numpy as np

from nerv_fl.rng import stream
from nerv_fl.shapley import Game, MaskArray
from nerv_fl.shapley.exact import all_coalitions, enumerate_values
from nerv_fl.types import FloatArray

Maker = Callable[[int, np.random.Generator], Game]


def coverage(num_players: int, draw: np.random.Generator) -> Game:
    """A submodular game: the weight of what a coalition covers."""
    covers_NU = draw.random((num_players, 60)) < 0.15
    weight_U = draw.random(60)
    return lambda masks_MN: ((masks_MN.astype(np.int64) @ covers_NU) > 0) @ weight_U


def glove(num_players: int, draw: np.random.Generator) -> Game:
    """Left and right gloves; pairs count."""
    left_N = draw.permutation(num_players) < num_players // 3
    return lambda masks_MN: np.minimum((masks_MN & left_N).sum(axis=1), (masks_MN & ~left_N).sum(axis=1)) * 1.0


def airport(num_players: int, draw: np.random.Generator) -> Game:
    """The longest runway that a member needs."""
    cost_N = draw.integers(1, 11, num_players).astype(np.float64)
    return lambda masks_MN: (masks_MN * cost_N).max(axis=1)


def voting(num_players: int, draw: np.random.Generator) -> Game:
    """1 where a coalition has more than half of the votes."""
    votes_N = draw.integers(1, 11, num_players)
    return lambda masks_MN: 1.0 * (2 * (masks_MN @ votes_N) > votes_N.sum())


GAMES: Final[dict[str, Maker]] = {"coverage": coverage, "glove": glove, "airport": airport, "voting": voting}


def make_game(name: str, num_players: int, *, seed: int = 0) -> Game:
    """Return a game of a kind."""
    return GAMES[name](num_players, stream(seed, "game", name))


def exact_values(game: Game, num_players: int) -> FloatArray:
    """Return its Shapley values, float64 [N]."""
    return enumerate_values(game(all_coalitions(num_players))[:, None], num_players)[:, 0]


def relative_error(values_N: FloatArray, exact_N: FloatArray) -> float:
    """Return |values - exact| / |exact|."""
    return float(np.linalg.norm(values_N - exact_N) / np.linalg.norm(exact_N))


def by_examples(game: Game, *, num_examples: int, seed: int) -> Game:
    """Return a game with values [M, K]: the game times a gain that is each example's own, with mean 1."""
    gain_K = stream(seed, "examples").normal(1, 0.5, num_examples)
    gain_K += 1 - gain_K.mean()

    def per_example(masks_MN: MaskArray) -> FloatArray:
        return game(masks_MN)[:, None] * gain_K

    return per_example
