"""What a simulated node does with its work: an adversary attacks, everyone else trains."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from nerv_fl.client.local_training import Assignment, train_honestly
from nerv_fl.config import RunConfig
from simulations.adversaries.amplifier import amplifier
from simulations.adversaries.attack_context import Attempt
from simulations.adversaries.colluder import colluder
from simulations.adversaries.fabricated import fabricated
from simulations.adversaries.free_rider import free_rider
from simulations.adversaries.noise_skipper import noise_skipper
from simulations.adversaries.noisy_copy import noisy_copy
from simulations.adversaries.rejoiner import rejoiner
from simulations.adversaries.replayer import replayer
from simulations.adversaries.roles import assign_roles
from simulations.adversaries.scaled import scaled
from simulations.adversaries.sign_flip import sign_flip
from simulations.adversaries.splitter import splitter
from simulations.adversaries.sybil import sybil

ATTACKS: Final[dict[str, Callable[[Attempt], Tensor]]] = {
    "sybil": sybil,
    "splitter": splitter,
    "free_rider": free_rider,
    "sign_flip": sign_flip,
    "scaled": scaled,
    "fabricated": fabricated,
    "colluder": colluder,
    "replayer": replayer,
    "noisy_copy": noisy_copy,
    "noise_skipper": noise_skipper,
    "amplifier": amplifier,
    "rejoiner": rejoiner,
}


@dataclass(frozen=True)
class AdversarialTraining:
    """Local training of a federation with adversaries in it."""

    config: RunConfig

    def __call__(self, work: Assignment) -> Tensor:
        """Return the node's update: an attack's, or an honest one.

        Raises:
            PrivacyError: If the adversary stays away.
        """
        role = assign_roles(self.config).get(work.number)
        if role is None:
            return train_honestly(work)
        return ATTACKS[role.kind](Attempt(work=work, role=role, config=self.config))
