"""One shard registered as many small nodes: each declares a part of the records and trains on all of them.

The roster gives each identity a part of one node's weight, so that the weights are conserved.
"""

from torch import Tensor

from simulations.adversaries.attack_context import Attempt


def splitter(attempt: Attempt) -> Tensor:
    """Return an honest update on the operator's shard, with batches and noise of its own."""
    return attempt.train(shard_of=attempt.role.operator)
