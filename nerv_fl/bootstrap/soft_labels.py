"""What the predictor learns from: races cut off after some votes, and how likely each end is from there.

The outcome's target is soft: the part of many continuations, played on from the hidden state at the cut, that end so.
The cut is uniform over the votes of the race, so knowing where it lies tells next to nothing of what follows; then a
drawn outcome has the same mean as the chances, and more noise. Who can play races on is a generator's business, so that
comes as a function.

Shapes: S shards, R races of a shard, K cuts of each, B races of a batch, O = 5 outcomes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from nerv_fl.data.consensus import RaceFile
from nerv_fl.errors import DataError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.models.consensus_inputs import RaceInputs, RaceTargets, join_inputs, make_inputs
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray, IntArray

Continue = Callable[[Sequence[int], Sequence[IntArray]], Iterator[FloatArray]]
"""Given shards, rising, and the votes [R, K] after which to play on in each, yields the chances [R, K, O] of each."""

CUTS_A_RACE: Final = 3
"""Cuts of each race that are played on; a step takes one of them."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A batch: inputs, what came of the races, and the chances float32 [B, O] at the cut."""

    inputs: RaceInputs
    targets: RaceTargets
    chances_BO: Tensor


class Lessons:
    """The train shards of a consensus file, with the chances at random cuts.

    Args:
        file: The file, open.
        table_AD: float64, V of an encoder.
        seed: Seed of the cuts and of the batches.
        play_on: Plays races to their end.
        max_shards: Train shards used.
        cache: Where the chances are kept for a training that is resumed.
        cache_key: All that they follow from besides the file and the seed, such as the number of continuations.

    Raises:
        DataError: If the file has no train shard, or a race without votes.
    """

    def __init__(
        self,
        file: RaceFile,
        table_AD: FloatArray,
        *,
        seed: int,
        play_on: Continue,
        max_shards: int,
        cache: Path,
        cache_key: str,
    ) -> None:
        self._file, self._table_AD, self._seed = file, table_AD, seed
        self.shards = file.shards_of("train")[:max_shards]
        if not len(self.shards):
            raise DataError(f"{file.path} has no train shard, expected at least one")
        self._votes = [self._draw_cuts(int(shard)) for shard in self.shards]
        key = json.dumps([file.info.content_sha256, seed, self.shards.tolist(), cache_key])
        chances = _read(cache, key=key)
        if chances is None:
            chances = np.stack([found.astype(np.float32) for found in play_on(self.shards.tolist(), self._votes)])
            write_atomically(cache, save({"chances": chances}, metadata={"key": key}))
        self._chances = chances

    def batch(self, step: int, *, num_shards: int) -> Lesson:
        """Return the batch of a step: all races of some shards, each at one of its cuts."""
        rng = stream(self._seed, "distill", "batch", step)
        parts, chances = [], []
        for place in rng.choice(len(self.shards), min(num_shards, len(self.shards)), replace=False).tolist():
            block, votes = self._file.shard(int(self.shards[place])), self._votes[place]
            races, cut = np.arange(block.num_races), rng.integers(CUTS_A_RACE, size=block.num_races)
            parts.append(make_inputs(block, self._table_AD, votes=votes[races, cut]))
            chances.append(self._chances[place][races, cut])
        inputs, targets = join_inputs(parts)
        return Lesson(inputs=inputs, targets=targets, chances_BO=torch.from_numpy(np.concatenate(chances)))

    def _draw_cuts(self, shard: int) -> IntArray:
        num_votes = self._file.shard(shard).num_votes.astype(np.int64)
        for race in np.flatnonzero(num_votes < 1)[:1]:
            raise DataError(f"{self._file.path}: shard {shard}, race {race} has no vote, expected at least one")
        rng = stream(self._seed, "distill", "cuts", shard)
        return np.sort(rng.integers(1, num_votes[:, None] + 1, size=(len(num_votes), CUTS_A_RACE)), axis=1)


def _read(cache: Path, *, key: str) -> npt.NDArray[np.float32] | None:
    """Return the chances [S, R, K, O] that were kept under a key; None if there are none, or others."""
    try:
        with safe_open(cache, framework="numpy") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            chances: npt.NDArray[np.float32] = file.get_tensor("chances")
            return chances
    except (OSError, SafetensorError):
        return None
