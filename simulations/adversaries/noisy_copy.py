"""One batch's gradient under many names, each with the full noise of its own: to anyone else they are strangers."""

from torch import Tensor

from simulations.adversaries.attack_context import Attempt


def noisy_copy(attempt: Attempt) -> Tensor:
    """Return the operator's gradient with this identity's noise."""
    operator = attempt.role.operator
    return attempt.train(shard_of=operator, batch_of=operator)
