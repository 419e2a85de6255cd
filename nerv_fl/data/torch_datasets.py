"""Data sets as PyTorch trains on them: token sequences before and after a batch, and windows of shard load.

Shapes: B samples, A accounts, T = 1 + 2A tokens; of windows, T steps and D metrics.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import HORIZON
from nerv_fl.data.multi_file import open_ledger
from nerv_fl.tokens import tokens
from nerv_fl.validation import in_range


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


Item = tuple[Tensor, Tensor]
"""A normalised window, float32 [length, 11], and whether overload comes within 10 minutes, float32 []."""


class LoadWindows(Dataset[Item]):
    """All windows of a split whose whole horizon is in the file, normalised.

    Args:
        file: The load file.
        split: train, validation or test.
        length: Steps of a window.
    """

    def __init__(self, file: LoadFile, split: str, *, length: int = 60) -> None:
        self._file, self._length = file, length
        self._shards = file.shards_of(split)
        self._ends = file.info.steps - HORIZON - length + 1
        in_range("length", length, low=1, high=file.info.steps - HORIZON)
        mean, std = file.normalisation
        self._mean, self._scale = mean.astype(np.float32), (1.0 / std).astype(np.float32)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._shards) * self._ends

    def __getitem__(self, index: int) -> Item:
        """Return one window and its label."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Return windows and their labels, in the order asked for."""
        for wrong in [index for index in indices if not 0 <= index < len(self)][:1]:
            raise IndexError(f"window is {wrong}, expected 0 to {len(self) - 1} (of {self._file.path})")
        place, end = np.divmod(np.asarray(indices, dtype=np.int64), self._ends)
        shards, ends = self._shards[place], end + self._length - 1
        x_BTD = torch.from_numpy((self._file.windows(shards, ends, length=self._length) - self._mean) * self._scale)
        y_B = torch.from_numpy(self._file.window_labels(shards, ends).ahead.astype(np.float32))
        return list(zip(x_BTD, y_B, strict=True))
