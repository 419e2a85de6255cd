"""A cooperative game as a function of coalitions, and the wrapper that counts what asking it costs.

A game v maps boolean masks [M, N], one coalition a row, to float64 values [M]; a game that keeps its validation
examples apart maps them to [M, K]. v(empty) need not be 0: values are those of v(C) - v(empty).

Shapes: M coalitions, N players, K validation examples.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from nerv_fl.arrays import BoolArray, FloatArray
from nerv_fl.errors import AggregationError, ConfigError

MaskArray = BoolArray
Game = Callable[[MaskArray], FloatArray]

_MEMBERS_SHOWN: Final = 8


class CountedGame:
    """A game whose evaluations are counted, cached by coalition, bounded and checked.

    Args:
        game: The game.
        num_players: N, at least 1.
        budget: Largest number of coalitions to evaluate.
        num_examples: K for a game with values [M, K]; None for a game with values [M].

    Raises:
        ConfigError: If there is no player.

    Guarantees:
        The game is asked about a coalition at most once, and never about more than `budget` coalitions; every value
        it returns is finite. A game that would answer differently the second time is therefore never found out.
    """

    def __init__(self, game: Game, num_players: int, *, budget: int, num_examples: int | None = None) -> None:
        if num_players < 1:
            raise ConfigError(f"num_players is {num_players}, expected at least 1")
        self._game = game
        self._num_players = num_players
        self._budget = budget
        self._example_shape = () if num_examples is None else (num_examples,)
        self._cache: dict[bytes, FloatArray] = {}

    @property
    def num_evaluations(self) -> int:
        """Number of distinct coalitions evaluated so far."""
        return len(self._cache)

    def __call__(self, masks_MN: MaskArray) -> FloatArray:
        """Return the value of each coalition, evaluating in one call those that are new.

        Args:
            masks_MN: Boolean [M, N].

        Returns:
            float64 [M], or [M, K] with `num_examples`.

        Raises:
            ConfigError: If the masks or the game's answer have the wrong shape, or the budget does not suffice.
            AggregationError: If a value is not finite.
        """
        if masks_MN.dtype != np.bool_ or masks_MN.shape[1:] != (self._num_players,):
            raise ConfigError(
                f"masks are {masks_MN.dtype} of shape {masks_MN.shape}, expected bool of shape (M, {self._num_players})"
            )
        keys = [row.tobytes() for row in np.packbits(masks_MN, axis=1)]
        fresh = {key: row for row, key in enumerate(keys) if key not in self._cache}
        self._check_budget(len(self._cache) + len(fresh))
        if fresh:
            self._cache.update(zip(fresh, self._evaluate(masks_MN[list(fresh.values())]), strict=True))
        return np.array([self._cache[key] for key in keys], dtype=np.float64).reshape(len(keys), *self._example_shape)

    def _check_budget(self, needed: int) -> None:
        if needed > self._budget:
            raise ConfigError(f"budget is {self._budget} evaluations, expected at least {needed}")

    def _evaluate(self, masks_MN: MaskArray) -> FloatArray:
        values = np.asarray(self._game(masks_MN), dtype=np.float64)
        expected = (len(masks_MN), *self._example_shape)
        if values.shape != expected:
            raise ConfigError(f"the game returned shape {values.shape}, expected {expected}")
        bad_M = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad_M.any():
            row = int(np.argmax(bad_M))
            found = values[row][~np.isfinite(values[row])].ravel()[0]
            raise AggregationError(f"value of coalition {_named(masks_MN[row])} is {found}, expected a finite number")
        return values


def _named(mask_N: MaskArray) -> str:
    members = np.flatnonzero(mask_N).tolist()
    if len(members) <= _MEMBERS_SHOWN:
        return str(members)
    return f"{str(members[:_MEMBERS_SHOWN])[:-1]}, ...] of {len(members)} players"
