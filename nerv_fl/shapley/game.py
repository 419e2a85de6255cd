"""A cooperative game as a function of coalitions, and the wrapper that counts what asking it costs.

A game v maps boolean masks [M, N], one coalition a row, to float64 values [M]; a game that keeps its validation
examples apart maps them to [M, K]. v(empty) need not be 0: values are those of v(C) - v(empty).

Shapes: M coalitions, N players, K validation examples.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from nerv_fl.errors import AggregationError, ConfigError
from nerv_fl.types import BoolArray, FloatArray

MaskArray = BoolArray
Game = Callable[[MaskArray], FloatArray]

_MEMBERS_SHOWN: Final = 8

_ROUNDING: Final = 1e-3
"""How much a coalition's value may change with the batch it is evaluated in, relative to the largest value: losses in
float32 lose digits where they are subtracted."""


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
        it returns is finite. Whether it would answer the same a second time, only `ask_again` finds out.
    """

    def __init__(self, game: Game, num_players: int, *, budget: int, num_examples: int | None = None) -> None:
        if num_players < 1:
            raise ConfigError(f"num_players is {num_players}, expected at least 1")
        self._game = game
        self._num_players = num_players
        self._budget = budget
        self._example_shape = () if num_examples is None else (num_examples,)
        self._cache: dict[bytes, FloatArray] = {}
        self._num_repeated = 0

    @property
    def num_evaluations(self) -> int:
        """Number of evaluations so far: distinct coalitions, and those asked again on purpose."""
        return len(self._cache) + self._num_repeated

    def can_afford(self, masks_MN: MaskArray) -> bool:
        """Return whether the budget suffices for these coalitions."""
        return self.num_evaluations + len(self._fresh(masks_MN)) <= self._budget

    def ask_again(self, mask_N: MaskArray) -> None:
        """Evaluate a coalition a second time.

        Raises:
            ConfigError: If the budget does not suffice.
            AggregationError: If the game gives it another value than before, beyond rounding.
        """
        self._check_budget(self.num_evaluations + 1)
        before, after = self(mask_N[None])[0], self._evaluate(mask_N[None])[0]
        self._num_repeated += 1
        largest = max(float(np.abs(value).max()) for value in self._cache.values())
        if not np.allclose(before, after, rtol=0, atol=_ROUNDING * largest):
            raise AggregationError(
                f"value of coalition {_named(mask_N)} is {np.mean(before)} and then {np.mean(after)}, "
                "expected the same value each time"
            )

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
        fresh = self._fresh(masks_MN)
        self._check_budget(self.num_evaluations + len(fresh))
        if fresh:
            self._cache.update(zip(fresh, self._evaluate(masks_MN[list(fresh.values())]), strict=True))
        values = np.array([self._cache[key] for key in _keys(masks_MN)], dtype=np.float64)
        return values.reshape(len(masks_MN), *self._example_shape)

    def _fresh(self, masks_MN: MaskArray) -> dict[bytes, int]:
        """Return a row of each coalition that was not evaluated yet."""
        return {key: row for row, key in enumerate(_keys(masks_MN)) if key not in self._cache}

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


def _keys(masks_MN: MaskArray) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(masks_MN, axis=1)]


def _named(mask_N: MaskArray) -> str:
    members = np.flatnonzero(mask_N).tolist()
    if len(members) <= _MEMBERS_SHOWN:
        return str(members)
    return f"{str(members[:_MEMBERS_SHOWN])[:-1]}, ...] of {len(members)} players"
