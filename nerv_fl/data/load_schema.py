"""What a shard-load file holds, and the labels that follow from it; see `nerv_fl.data.load` for the file."""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nerv_fl.types import BoolArray, FloatArray

SCHEMA_VERSION: Final = 1
KIND: Final = "shard-load"
FEATURES: Final = (
    "tps",
    "queue_size",
    "cpu_percent",
    "mem_percent",
    "cross_shard_ratio",
    "tx_transfer_percent",
    "tx_complex_percent",
    "network_in_bps",
    "network_out_bps",
    "active_accounts",
    "latency_s",
)
CPU: Final = FEATURES.index("cpu_percent")
LATENCY: Final = FEATURES.index("latency_s")
SPLITS: Final = ("train", "validation", "test")
DTYPES: Final = {
    "features": "float32",
    "overload": "uint8",
    "action": "uint8",
    "shard/split": "uint8",
    "shard/sums": "float64",
    "shard/sha256": "uint8",
    "mean": "float64",
    "std": "float64",
}
HOT_WAIT_S: Final = 30.0
HOT_CPU: Final = 95.0
CALM_WAIT_S: Final = 15.0
CALM_CPU: Final = 90.0
RUN: Final = 3
"""Minutes for which a shard must be hot, or calm, to become overloaded, or cease to be."""
HORIZON: Final = 10
CLEAN: Final = 60


@dataclass(frozen=True, kw_only=True)
class LoadBlock:
    """One shard: features float32 [T, 11], overload and action uint8 [T]."""

    features: npt.NDArray[np.float32]
    overload: npt.NDArray[np.uint8]
    action: npt.NDArray[np.uint8]

    def digest(self) -> bytes:
        """Return the SHA-256 of all values."""
        values = hashlib.sha256(self.features.astype("<f4", order="C", copy=False).data)
        values.update(self.overload.tobytes())
        values.update(self.action.tobytes())
        return values.digest()

    def sums(self) -> FloatArray:
        """Return the sum and the sum of squares of each feature, float64 [2, 11]."""
        wide = self.features.astype(np.float64)
        return np.stack([wide.sum(axis=0), np.square(wide).sum(axis=0)])


@dataclass(frozen=True, kw_only=True)
class LoadInfo:
    """What a load file holds; ``splits`` says whether overload split the shards."""

    shards: int
    steps: int
    seed: int
    splits: bool
    generator: str
    content_sha256: str


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Of each step: whether overload comes within 10 minutes, and whether there was none in the last 60."""

    ahead: BoolArray
    clean: BoolArray

    @property
    def onset(self) -> BoolArray:
        """Whether overload comes to a shard that had none for an hour."""
        onset: BoolArray = self.ahead & self.clean
        return onset


def overloaded(features: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Derive overload from the metrics: hot for 3 minutes begins it, calm for 3 minutes ends it.

    Args:
        features: float32 [T, 11] of one shard, from its first step.

    Returns:
        uint8 [T].
    """
    wait, cpu = features[:, LATENCY], features[:, CPU]
    begins = _run((wait > HOT_WAIT_S) | (cpu >= HOT_CPU))
    ends = _run((wait < CALM_WAIT_S) & (cpu < CALM_CPU))
    step = np.arange(len(features))
    last_begin = np.maximum.accumulate(np.where(begins, step, -1))
    last_end = np.maximum.accumulate(np.where(ends, step, -1))
    return (last_begin > last_end).astype(np.uint8)


def labels(overload: npt.NDArray[np.uint8]) -> Labels:
    """Label each step of a shard.

    Args:
        overload: uint8 [T].

    Returns:
        bool [T] each. In the last 10 steps `ahead` knows only the steps that are left; in the first 59 none is clean.

    >>> labels(np.array([0, 0, 1, 0], dtype=np.uint8)).ahead
    array([ True,  True, False, False])
    """
    total = np.concatenate([[0], np.cumsum(overload, dtype=np.int64)])
    step = np.arange(len(overload))
    ahead = total[np.minimum(step + 1 + HORIZON, len(overload))] > total[step + 1]
    clean = (step >= CLEAN - 1) & (total[step + 1] == total[np.maximum(step + 1 - CLEAN, 0)])
    return Labels(ahead=ahead, clean=clean)


def shapes(shards: int, steps: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each dataset."""
    width = len(FEATURES)
    return {
        "features": (shards, steps, width),
        "overload": (shards, steps),
        "action": (shards, steps),
        "shard/split": (shards,),
        "shard/sums": (shards, 2, width),
        "shard/sha256": (shards, 32),
        "mean": (width,),
        "std": (width,),
    }


def _run(holds: BoolArray) -> BoolArray:
    """Return where something holds for the RUN-th time in a row or more."""
    run = holds.copy()
    for back in range(1, RUN):
        run[back:] &= holds[:-back]
        run[:back] = False
    return run
