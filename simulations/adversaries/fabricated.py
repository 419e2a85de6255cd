"""Training on invented data: the accounts' balances are dealt out anew in every record, before and after alike.

Supplies and the number of records stay plausible; what a balance says of its account is gone.
"""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from nerv_fl.client.local_training import Records
from nerv_fl.data import Ledger, Samples
from nerv_fl.rng import stream
from simulations.adversaries.attack_context import Attempt


def fabricated(attempt: Attempt) -> Tensor:
    """Return an update of DP-SGD on shuffled balances."""
    work = attempt.work
    dealing = stream(attempt.config.seed, "adversaries", "fabricated", work.round_number, work.number)
    return attempt.train(data=_Shuffled(work.data, dealing))


@dataclass(frozen=True)
class _Shuffled:
    """A ledger whose records are read with their accounts in another order, each record in one of its own."""

    ledger: Ledger
    dealing: np.random.Generator

    def read(self, samples: Records, /) -> Samples:
        true = self.ledger.read(samples)
        order_BA = self.dealing.permuted(np.tile(np.arange(true.before.shape[1]), (len(true.before), 1)), axis=1)
        before, after = (np.take_along_axis(column, order_BA, axis=1) for column in (true.before, true.after))
        return replace(true, before=before, after=after, batches=None)
