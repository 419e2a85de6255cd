from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datagen.sharding import verify_load
from nerv_fl.data.load import LoadFile
from nerv_fl.data.load_writer import content_digest
from nerv_fl.errors import ConfigError, DataError
from tests.datagen.sharding.conftest import SHARDS, STEPS


def change(path: Path, name: str, *, at: tuple[int, ...], value: Any) -> None:
    with h5py.File(path, "r+") as file:
        file[name][at] = value


def rehash(path: Path) -> None:
    """Make the recorded hashes and sums fit what a forger wrote."""
    with LoadFile(path) as file:
        blocks = [file.shard(shard) for shard in range(SHARDS)]
    digests = [np.frombuffer(block.digest(), np.uint8) for block in blocks]
    with h5py.File(path, "r+") as file:
        file["shard/sha256"][:], file["shard/sums"][:] = np.stack(digests), np.stack([block.sums() for block in blocks])
        file.attrs["content_sha256"] = np.bytes_(content_digest(np.stack(digests)).encode())


def test_a_sound_file_is_described(made: Path) -> None:
    report = verify_load(made)
    assert (report.shards, report.steps, report.replayed) == (SHARDS, STEPS, 3)
    with LoadFile(made) as file:
        assert report.overload_rate == file.array("overload").mean()
        assert report.content_sha256 == file.info.content_sha256
    assert 0 < report.onset_rate < report.ahead_rate < 0.2
    assert verify_load(made, replay=0).replayed == 0


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("features", (3, 5, 2), 101.0, r"shard 3, step 5: cpu_percent is 101\.0, expected 0 to 100\.0"),
        ("features", (3, 5, 1), np.nan, r"shard 3, step 5: queue_size is nan, expected 0 to inf"),
        ("features", (3, 5, 0), np.inf, r"shard 3, step 5: tps is inf, expected 0 to inf"),
        ("overload", (3, 5), 1, r"shard 3, step 5: overload is 1, expected 0 \(of wait and CPU\)"),
        ("action", (3, 5), 3, r"shard 3, step 5: action is 3, expected 0, 1 or 2"),
        ("features", (3, 5, 9), 1.0, "shard 3: shard/sha256 differs from that of its values"),
        ("action", (3, 5), 1, "shard 3: shard/sha256 differs from that of its values"),
        ("shard/sums", (3, 1, 5), 1.0, "shard 3: shard/sums differs from that of its values"),
        ("mean", (2,), 7.0, r"mean of cpu_percent is 7\.0, expected [0-9.]+ \(of the train shards\)"),
        ("std", (2,), 7.0, r"std of cpu_percent is 7\.0, expected [0-9.]+ \(of the train shards\)"),
        ("shard/split", (0,), 9, r"shard 0 is in split 9, expected [0-2] \((train|validation|test)\)"),
    ],
)
def test_each_broken_invariant_is_named(
    copied: Path, name: str, *, at: tuple[int, ...], value: float, message: str
) -> None:
    change(copied, name, at=at, value=value)
    with pytest.raises(DataError, match=rf"^{copied}: {message}$"):
        verify_load(copied)


@pytest.mark.parametrize(("name", "at"), [("features", (5, 3)), ("action", (5,))])
def test_a_forged_hash_does_not_hide_a_change_from_the_replay(copied: Path, name: str, at: tuple[int, ...]) -> None:
    with LoadFile(copied) as file:
        shard = int(file.shards_of("test")[0])
        old = getattr(file.shard(shard), name)[at]
    change(copied, name, at=(shard, *at), value=old + 1)
    rehash(copied)
    assert verify_load(copied, replay=0).replayed == 0
    message = f"shard {shard}, step 5: {name} differ from the simulation of its seed"
    with pytest.raises(DataError, match=rf"^{copied}: {message}$"):
        verify_load(copied, replay=SHARDS)


def test_the_hash_covers_all_shards(copied: Path) -> None:
    with h5py.File(copied, "r+") as file:
        file.attrs["content_sha256"] = np.bytes_(b"0" * 64)
    with pytest.raises(DataError, match=rf"^{copied}: its content hashes to [0-9a-f]{{64}}, expected 0{{64}}$"):
        verify_load(copied)


def test_a_negative_replay_is_refused(made: Path) -> None:
    with pytest.raises(ConfigError, match=r"^replay is -1, expected a number in \[0, inf\]$"):
        verify_load(made, replay=-1)
