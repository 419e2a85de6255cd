"""The honest noise, but a longer gradient: what a node gains by clipping its records less than it says."""

from typing import Final

from torch import Tensor

from simulations.adversaries.attack_context import Attempt, Silence

GAIN: Final = 2.0
"""How much longer than the honest gradient; the update as a whole is hardly longer, since noise makes most of it."""


def amplifier(attempt: Attempt) -> Tensor:
    """Return the honest update with its gradient GAIN times as long."""
    return attempt.train() + (GAIN - 1) * attempt.train(noise=Silence())
