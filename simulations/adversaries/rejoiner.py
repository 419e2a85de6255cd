"""A bad name left behind: reverses its updates under the first identity, and from half of the run on under the second.

The identity that is not in use stays away.
"""

from torch import Tensor

from nerv_fl.errors import PrivacyError
from simulations.adversaries.attack_context import Attempt


def rejoiner(attempt: Attempt) -> Tensor:
    """Return minus the honest update, under the identity of the day.

    Raises:
        PrivacyError: If it is the other identity.
    """
    first, second = attempt.role.members
    active = second if attempt.work.round_number > attempt.config.federation.num_rounds // 2 else first
    if attempt.work.number != active:
        raise PrivacyError(f"node {attempt.work.number} stays away in round {attempt.work.round_number}")
    return -attempt.train()
