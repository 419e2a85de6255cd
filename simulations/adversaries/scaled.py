"""The honest update, made longer, to weigh more than its share.

Source: Bagdasaryan et al., "How to backdoor federated learning", 2020, equation 3 (scaling).
"""

from typing import Final

from torch import Tensor

from simulations.adversaries.attack_context import Attempt

SCALE: Final = 4.0
"""Below the length at which admission refuses an update outright."""


def scaled(attempt: Attempt) -> Tensor:
    """Return the honest update times SCALE."""
    return SCALE * attempt.train()
