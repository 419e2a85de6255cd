"""The text form of an epsilon: an upper bound, and so rounded up."""

import math
from decimal import ROUND_CEILING, Decimal
from typing import Final

INFINITE: Final = "infinite"
"""Text of an epsilon that does not exist: nothing bounds what was learned of a record."""


def format_epsilon(epsilon: float | None, *, digits: int = 2) -> str:
    """Return an epsilon with a fixed number of decimals, rounded up.

    Args:
        epsilon: Epsilon, at least 0; None or infinity where there is no privacy mechanism.
        digits: Decimals.

    Raises:
        ValueError: If it is NaN or below 0.

    Guarantees:
        The text, read as a float, is never below the epsilon. Rounding acts on the shortest decimal text of the float,
        so that 5.57, which is stored as slightly more, stays 5.57.

    >>> [format_epsilon(item) for item in (5.561, 5.57, 0.0, 1e-9, None)]
    ['5.57', '5.57', '0.00', '0.01', 'infinite']
    """
    if epsilon is None or epsilon == math.inf:
        return INFINITE
    if not epsilon >= 0:
        raise ValueError(f"epsilon is {epsilon}, expected a number of at least 0")
    exact, step = Decimal(repr(float(epsilon))), Decimal(1).scaleb(-digits)
    return f"{exact.quantize(step, rounding=ROUND_CEILING):f}"
