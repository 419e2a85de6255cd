"""What each player of a cooperative game contributed: Shapley values with their errors. Knows nothing of models.

    from nerv_fl.shapley import estimate
    result = estimate(game, num_players, budget=32 * num_players)      # game: masks [M, N] -> values [M]

Read in this order:

    estimate     the front door: chooses the method
    game         the game, its evaluations counted, cached and bounded
    exact        every coalition, checked by shap up to 12 players, up to 16
    controls     games of known value, that explain most of another
    orders       their values by random orders, where there is no closed form
    pairs        which coalitions to evaluate
    cube         what is believed of a game before it is asked, and known after
    kernel_cv    the regression that combines these: the best values for a budget
    audit        unbiased: fit on half, measure the fit's error on the other half
    permutation  the protocol's 10,000 random orders
    surrogate    one gradient values everyone, audited by coalitions
    result       values, standard errors, intervals, and what they cost
"""

from nerv_fl.shapley.api import KERNEL_CV_FROM, METHODS, estimate
from nerv_fl.shapley.control_variates import Control, LinearControl, MeanControl, QuadraticControl
from nerv_fl.shapley.exact import MAX_PLAYERS, estimate_exact
from nerv_fl.shapley.game import CountedGame, Game, MaskArray
from nerv_fl.shapley.result import NOBODY, ShapleyResult, no_values
from nerv_fl.shapley.surrogate import estimate_surrogate
from nerv_fl.types import FloatArray

__all__ = [
    "KERNEL_CV_FROM",
    "MAX_PLAYERS",
    "METHODS",
    "NOBODY",
    "Control",
    "CountedGame",
    "FloatArray",
    "Game",
    "LinearControl",
    "MaskArray",
    "MeanControl",
    "QuadraticControl",
    "ShapleyResult",
    "estimate",
    "estimate_exact",
    "estimate_surrogate",
    "no_values",
]
