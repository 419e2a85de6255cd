"""No work at all."""

from torch import Tensor

from simulations.adversaries.attack_context import Attempt


def free_rider(attempt: Attempt) -> Tensor:
    """Return zeros."""
    return attempt.work.theta_P.new_zeros(attempt.work.theta_P.shape)
