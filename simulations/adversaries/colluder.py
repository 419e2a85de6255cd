"""A little is enough: a group sends its mean, moved against its spread by less than honest updates differ.

    u = mean_k(u_k) - Z std_k(u_k) + noise       over the group's honest updates u_k, coordinate by coordinate

Each adds noise of its own, so that no two are alike.

Source: Baruch, Baruch and Goldberg, "A little is enough: circumventing defenses for distributed learning", 2019,
algorithm 3.
"""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from simulations.adversaries.attempt import Attempt

Z: Final = 0.3
"""Standard deviations that the mean is moved by; larger ones make the updates conspicuously long."""


def colluder(attempt: Attempt) -> Tensor:
    """Return the group's common vector, with noise of its own."""
    honest_KP = torch.stack([_as(attempt, number).train() for number in attempt.role.members])
    common_P = honest_KP.mean(dim=0) - Z * honest_KP.std(dim=0)
    return common_P + attempt.own_noise()


def _as(attempt: Attempt, number: int) -> Attempt:
    return replace(attempt, work=replace(attempt.work, number=number))
