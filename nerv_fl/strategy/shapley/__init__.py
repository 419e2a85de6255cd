"""What each player of a cooperative game contributed: Shapley values with their errors. Knows nothing of models.

Read in this order:

    game        the game, its evaluations counted, cached and bounded
    exact       every coalition, through shap, up to 12 players
    surrogate   the gradient at the midpoint, audited by coalitions, for any number of players
    result      values, standard errors, intervals, and what they cost
"""

from nerv_fl.arrays import FloatArray
from nerv_fl.strategy.shapley.exact import MAX_PLAYERS, estimate_exact
from nerv_fl.strategy.shapley.game import CountedGame, Game, MaskArray
from nerv_fl.strategy.shapley.result import ShapleyResult
from nerv_fl.strategy.shapley.surrogate import estimate_surrogate

__all__ = [
    "MAX_PLAYERS",
    "CountedGame",
    "FloatArray",
    "Game",
    "MaskArray",
    "ShapleyResult",
    "estimate_exact",
    "estimate_surrogate",
]
