"""The honest update, reversed: it climbs the loss.

Source: Li et al., "RSA: Byzantine-robust stochastic aggregation methods", 2019, section 5.
"""

from torch import Tensor

from simulations.adversaries.attack_context import Attempt


def sign_flip(attempt: Attempt) -> Tensor:
    """Return minus the honest update."""
    return -attempt.train()
