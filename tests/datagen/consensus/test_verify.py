from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datagen.consensus.verify import verify_races
from nerv_fl.data.consensus import RaceFile
from nerv_fl.errors import ConfigError, DataError
from tests.datagen.consensus.conftest import SHAPE


def test_a_sound_file_is_counted(made: Path) -> None:
    report = verify_races(made)
    assert (report.shards, report.races, report.replayed) == (70, 70 * 64, 3)
    with RaceFile(made) as file:
        valid, outcome = file.array("candidate/valid"), file.array("race/outcome")
        assert report.invalid == pytest.approx((valid == 0).mean())
        assert report.undecided == pytest.approx((outcome == 4).mean())
        assert report.candidates == sum(report.tampers) == len(valid)
        assert report.longest == file.array("race/num_events").max()
        assert report.content_sha256 == file.info.content_sha256
    assert 0.5 < report.honest < 0.95
    assert 0.2 < report.several_rounds < 0.9


def set_value(name: str, at: int, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][at] = value

    return change


def exchange_tokens(file: h5py.File) -> None:
    """Let the first vote of the file come before the first proposal."""
    token = file["event/token"][:64]
    at = int(np.flatnonzero(token >> 12 == 1)[0])
    token[0], token[at] = token[at], token[0]
    file["event/token"][:64] = token


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            set_value("race/outcome", 5, 4),
            r"shard 0, race 5: its events lead to outcome \d with \d+ votes, expected 4 ",
        ),
        (set_value("race/num_votes", 5, 3), r"shard 0, race 5: its events lead to outcome \d with \d+ votes, expected"),
        (set_value("race/num_validators", 64, 9), r"shard 1, race 0: \d+ validators have reputation, expected 9"),
        (set_value("race/weight", 0, 500), r"shard 0, race 0: 64 validators have reputation, expected \d+"),
        (
            exchange_tokens,
            r"shard 0, race 0: event [01] is token \d+, expected one of a validator and a candidate there is",
        ),
        (
            set_value("candidate/tamper", 3, 7),
            r"shard 0, candidate 3: valid is \d and tamper 7, expected 1 and 0, or 0 and 1 to 4",
        ),
        (
            set_value("candidate/announced_energy", 3, 0.5),
            r"shard 0, candidate 3: its header announces energy 5\.000000e-01, expected .*\(of its transactions\)",
        ),
        (
            set_value("tx/sender", 2, 5000),
            r"shard 0, transaction 2: kind \d, 5000 to \d+, \d+ NANO, expected accounts below 1024",
        ),
        (set_value("shard/split", 2, 3), r"shard 2 is in split 3, expected \d"),
        (set_value("shard/sha256", 4, 0), r"shard 4: shard/sha256 differs from that of its values"),
        (
            set_value("candidate/proposer", 0, 63),
            r"shard 0, race 0: \(candidate, proposer\) are \[\(0, \d+\).*expected \[\(0, 63\)",
        ),
        (set_value("candidate/careful", 3, 7), r"shard 0: shard/sha256 differs from that of its values"),
    ],
)
def test_a_broken_invariant_is_named(
    made: Path, tmp_path: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    path = tmp_path / "races.h5"
    path.write_bytes(made.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=message):
        verify_races(path)


def test_a_simulation_of_another_seed_is_found_out(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "races.h5"
    path.write_bytes(made.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["seed"] = SHAPE.seed + 1
    with pytest.raises(DataError, match=r"shard \d+ is in split \d, expected \d$"):
        verify_races(path)


def test_a_negative_replay_is_refused(made: Path) -> None:
    with pytest.raises(ConfigError, match=r"^replay is -1, expected a number in \[0, inf\]$"):
        verify_races(made, replay=-1)
