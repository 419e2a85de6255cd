"""A ledger as PyTorch trains on it: pairs of token sequences, before and after a batch of payments.

Shapes: B samples, A accounts, T = 1 + 2A tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nerv_fl.ledger import tokens
from nerv_fl.store.parts import open_ledger


class TokenPair(NamedTuple):
    """The states around a batch, as tokens: int64 [T] for a sample, int64 [B, T] for several (see `collate`).

    int64 is what `torch.nn.Embedding` and `torch.nn.functional.cross_entropy` take.
    """

    before: Tensor
    after: Tensor


class LedgerSamples(Dataset[TokenPair]):
    """The samples of a ledger, for `torch.utils.data.DataLoader` with ``collate_fn=collate``.

    A loader asks for whole batches, each of which is read and tokenised at once.

    Args:
        path: The ledger: a file, or a folder of parts.

    Raises:
        DataError: If it is not a whole ledger.

    Guarantees:
        Each process opens the ledger by itself at its first read, so workers may be forked or spawned at any time, and
        give the same samples as none.
    """

    def __init__(self, path: str | Path) -> None:
        self._ledger = open_ledger(path)
        self._ledger.close()

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._ledger.info.num_samples

    def __getitem__(self, index: int) -> TokenPair:
        """Return a sample.

        Raises:
            IndexError: If it does not exist.
            DataError: If the ledger is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample is {index}, expected 0 to {len(self) - 1} (of {self._ledger.path})")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[TokenPair]:
        """Return samples, in the order asked for, from one read.

        Raises:
            ConfigError: If a sample does not exist.
            DataError: If the ledger is damaged.
        """
        samples = self._ledger.read(indices)
        pairs = torch.from_numpy(tokens(np.stack([samples.before, samples.after], axis=1)))
        return [TokenPair(before=pair[0], after=pair[1]) for pair in pairs]

    def close(self) -> None:
        """Close the ledger in this process; the next read opens it again."""
        self._ledger.close()


def collate(samples: Sequence[TokenPair]) -> TokenPair:
    """Stack samples to one batch.

    >>> one = TokenPair(before=torch.tensor([0, 1]), after=torch.tensor([0, 2]))
    >>> collate([one, one]).after.tolist()
    [[0, 2], [0, 2]]
    """
    before, after = zip(*samples, strict=True)
    return TokenPair(before=torch.stack(before), after=torch.stack(after))
