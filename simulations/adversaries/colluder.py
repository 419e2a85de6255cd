"""A little is enough: a group moves its updates the same way, by less than honest ones differ.

    u = u_i - Z std_k(u_k)       u_k the group's honest updates, coordinate by coordinate

The paper's colluders all send the mean of theirs so moved, which clones and missing noise would give away here; these
keep their own update, noise and all.

Source: Baruch, Baruch and Goldberg, "A little is enough: circumventing defenses for distributed learning", 2019,
algorithm 3.
"""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from simulations.adversaries.attack_context import Attempt

Z: Final = 0.15
"""Standard deviations to move by; from 0.25 on the updates are conspicuously long."""


def colluder(attempt: Attempt) -> Tensor:
    """Return the honest update, moved along the group's common vector."""
    honest_KP = torch.stack([_as(attempt, number).train() for number in attempt.role.members])
    return honest_KP[attempt.role.members.index(attempt.work.number)] - Z * honest_KP.std(dim=0)


def _as(attempt: Attempt, number: int) -> Attempt:
    return replace(attempt, work=replace(attempt.work, number=number))
