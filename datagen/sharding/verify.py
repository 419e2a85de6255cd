"""Proof that a load file is what it says: its content, what follows from it, and the simulation it came from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from datagen.sharding.kernel import hidden_states, simulate
from datagen.sharding.shard import Records
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_schema import FEATURES, SPLITS, LoadBlock, labels, overloaded
from nerv_fl.data.load_writer import content_digest, draw_split, normalise
from nerv_fl.errors import DataError
from nerv_fl.types import FloatArray, IntArray
from nerv_fl.validation import in_range

HIGHEST: Final = {
    "cpu_percent": 100.0,
    "mem_percent": 100.0,
    "cross_shard_ratio": 1.0,
    "tx_transfer_percent": 100.0,
    "tx_complex_percent": 100.0,
}
MAX_ACTION: Final = 2


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What a verified load file holds.

    Attributes:
        shards: Number of shards.
        steps: Minutes of each.
        overload_rate: Part of the minutes in overload.
        episodes_per_day: Overloads begun, a shard and day.
        ahead_rate: Part of the minutes with overload within the next 10.
        onset_rate: The same among the minutes whose last hour saw no overload.
        replayed: Shards simulated again.
        content_sha256: Hash of every value, as recomputed.
    """

    shards: int
    steps: int
    overload_rate: float
    episodes_per_day: float
    ahead_rate: float
    onset_rate: float
    replayed: int
    content_sha256: str


def verify_load(path: str | Path, *, replay: int = 3) -> LoadReport:
    """Prove that a file is a sound load file, or say where it is not.

    Args:
        path: The file.
        replay: Shards to simulate again, spread over the file; 0 for none.

    Returns:
        Counts and rates of the file.

    Raises:
        ConfigError: If replay is negative.
        DataError: If the file is not a load file, or breaks an invariant; the message names the shard and step.

    Guarantees:
        On return every value is in range, overload follows from the metrics, the hash covers the content, the split is
        the one drawn from the seed, and the normalisation is that of the train shards. The replayed shards are equal to
        their simulation, in whose queue every transaction that arrived is waiting, served, or has balked.
    """
    in_range("replay", replay, low=0, high=np.inf)
    with LoadFile(path) as file:
        counts, sums = np.zeros(5, dtype=np.int64), []
        digests = np.empty((file.info.shards, 32), dtype=np.uint8)
        for shard in range(file.info.shards):
            block = file.shard(shard)
            _check_shard(file, block, shard=shard)
            digests[shard] = np.frombuffer(block.digest(), dtype=np.uint8)
            sums.append(block.sums())
            _check_record(file, shard, digest=digests[shard], sums=sums[-1])
            counts += _counts(block)
        _check_whole(file, np.stack(sums), content_sha256=content_digest(digests))
        chosen = np.unique(np.linspace(0, file.info.shards - 1, min(replay, file.info.shards)).astype(np.int64))
        for shard in chosen:
            _check_replay(file, int(shard))
        return _report(file, counts, replayed=len(chosen))


def _report(file: LoadFile, counts: IntArray, *, replayed: int) -> LoadReport:
    overload, episodes, ahead, clean, onset = counts.tolist()
    minutes = file.info.shards * file.info.steps
    return LoadReport(
        shards=file.info.shards,
        steps=file.info.steps,
        overload_rate=overload / minutes,
        episodes_per_day=episodes * 1440 / minutes,
        ahead_rate=ahead / minutes,
        onset_rate=onset / clean if clean else 0.0,
        replayed=replayed,
        content_sha256=file.info.content_sha256,
    )


def _counts(block: LoadBlock) -> list[int]:
    found = labels(block.overload)
    begins = np.diff(block.overload.astype(np.int8), prepend=0) == 1
    return [int(mask.sum()) for mask in (block.overload, begins, found.ahead, found.clean, found.onset)]


def _check_shard(file: LoadFile, block: LoadBlock, *, shard: int) -> None:
    for column, name in enumerate(FEATURES):
        values, highest = block.features[:, column], HIGHEST.get(name, np.inf)
        # Written so that NaN is wrong too.
        for step in np.flatnonzero(~((values >= 0.0) & (values <= highest) & np.isfinite(values)))[:1]:
            raise DataError(
                f"{file.path}: shard {shard}, step {step}: {name} is {values[step]}, expected 0 to {highest}"
            )
    for step in np.flatnonzero(block.action > MAX_ACTION)[:1]:
        raise DataError(f"{file.path}: shard {shard}, step {step}: action is {block.action[step]}, expected 0, 1 or 2")
    expected = overloaded(block.features)
    for step in np.flatnonzero(block.overload != expected)[:1]:
        raise DataError(
            f"{file.path}: shard {shard}, step {step}: overload is {block.overload[step]}, "
            f"expected {expected[step]} (of wait and CPU)"
        )


def _check_record(file: LoadFile, shard: int, *, digest: npt.NDArray[np.uint8], sums: FloatArray) -> None:
    for name, expected in (("shard/sha256", digest), ("shard/sums", sums)):
        if not np.array_equal(file.array(name, shard), expected):
            raise DataError(f"{file.path}: shard {shard}: {name} differs from that of its values")


def _check_whole(file: LoadFile, sums: FloatArray, *, content_sha256: str) -> None:
    info, split = file.info, file.array("shard/split")
    if content_sha256 != info.content_sha256:
        raise DataError(f"{file.path}: its content hashes to {content_sha256}, expected {info.content_sha256}")
    drawn = draw_split(info.seed, info.shards)
    for shard in np.flatnonzero(split != drawn)[:1]:
        raise DataError(
            f"{file.path}: shard {shard} is in split {split[shard]}, expected {drawn[shard]} ({SPLITS[drawn[shard]]})"
        )
    for name, found, expected in zip(
        ("mean", "std"), file.normalisation, normalise(sums, split=split, steps=info.steps), strict=True
    ):
        for column in np.flatnonzero(found != expected)[:1]:
            raise DataError(
                f"{file.path}: {name} of {FEATURES[column]} is {found[column]}, "
                f"expected {expected[column]} (of the train shards)"
            )


def _check_replay(file: LoadFile, shard: int) -> None:
    info, block = file.info, file.shard(shard)
    again = simulate(info.seed, shard, steps=info.steps, splits=info.splits)
    for name in ("features", "overload", "action"):
        differ = (getattr(block, name) != getattr(again, name)).reshape(info.steps, -1).any(axis=1)
        for step in np.flatnonzero(differ)[:1]:
            raise DataError(f"{file.path}: shard {shard}, step {step}: {name} differ from the simulation of its seed")
    states = hidden_states(info.seed, shard, steps=info.steps, splits=info.splits)
    check_queue(states, where=f"{file.path}: shard {shard}")
    for step in np.flatnonzero(states["queue"] != block.features[:, FEATURES.index("queue_size")])[:1]:
        raise DataError(f"{file.path}: shard {shard}, step {step}: queue_size differs from the hidden queue")


def check_queue(states: Records, *, where: str) -> None:
    """Check that every transaction that arrived is in the queue, was served, or has balked.

    Args:
        states: Hidden states of a shard from its first minute on.
        where: The shard, for messages.

    Raises:
        DataError: If transactions appear or vanish, more are served than can be, or fewer while some wait.
    """
    before = np.concatenate([[0.0], states["queue"][:-1]])
    expected = before + states["arrived"] - states["served"] - states["balked"]
    for step in np.flatnonzero(states["queue"] != expected)[:1]:
        raise DataError(f"{where}, step {step}: queue is {states['queue'][step]}, expected {expected[step]}")
    could = np.minimum(before + states["arrived"] - states["balked"], states["room"])
    for step in np.flatnonzero(states["served"] != could)[:1]:
        raise DataError(f"{where}, step {step}: {states['served'][step]} are served, expected {could[step]}")
