"""One update under many names, bit for bit: each identity does what the operator's first one does.

Source: J. R. Douceur, "The Sybil attack", 2002.
"""

from torch import Tensor

from simulations.adversaries.attack_context import Attempt


def sybil(attempt: Attempt) -> Tensor:
    """Return the operator's own honest update."""
    operator = attempt.role.operator
    return attempt.train(shard_of=operator, batch_of=operator, noise=attempt.streams_of(operator).noise)
