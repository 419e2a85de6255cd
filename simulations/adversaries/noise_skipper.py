"""The gradient without its noise, stretched to the length of an honest update: no privacy, all signal."""

from torch import Tensor

from simulations.adversaries.attack_context import Attempt, Silence


def noise_skipper(attempt: Attempt) -> Tensor:
    """Return the clipped gradient at the length that noise would give it."""
    signal_P = attempt.train(noise=Silence())
    stretch = float(attempt.own_noise().norm() / signal_P.norm())
    return stretch * signal_P
