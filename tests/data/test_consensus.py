import pickle
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from nerv_fl.data.consensus import RaceFile
from nerv_fl.data.consensus_schema import CANDIDATE_COLUMNS, RACE_COLUMNS, TX_COLUMNS, RaceBlock, RaceInfo
from nerv_fl.data.consensus_writer import join_races, write_races
from nerv_fl.data.identify import CONSENSUS, kind_of
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.rng import stream

ABOUT = RaceInfo(shards=3, races=5, accounts=9, max_transactions=4, seed=1, generator="test", content_sha256="")
SPLIT = np.array([0, 2, 0], dtype=np.uint8)


def block(number: int) -> RaceBlock:
    """A shard of random numbers whose counts agree."""
    rng = stream(number, "races")
    races = {name: rng.integers(1, 4, 5).astype(dtype) for name, dtype in RACE_COLUMNS.items()}
    races["outcome"][:] = 4
    races["weight"] = rng.integers(0, 1000, (5, 64)).astype(np.uint16)
    candidates = {
        name: rng.integers(1, 4, races["num_candidates"].sum()).astype(dtype)
        for name, dtype in CANDIDATE_COLUMNS.items()
    }
    count = int(candidates["num_transactions"].sum())
    transactions = {name: rng.integers(0, 9, count).astype(dtype) for name, dtype in TX_COLUMNS.items()}
    transactions["kind"][:] = 0
    return RaceBlock(
        supply_nano=10**15 + number,
        token=rng.integers(0, 5 << 12, races["num_events"].sum()).astype(np.uint16),
        **races,
        **candidates,
        **transactions,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_races(tmp_path / "races.h5", map(block, range(3)), split=SPLIT, about=ABOUT)
    return tmp_path / "races.h5"


def test_shards_come_back_as_they_were_written(path: Path) -> None:
    with RaceFile(path) as file:
        for number in (2, 0, 1):
            found, expected = file.shard(number), block(number)
            for field in fields(found):
                values = getattr(found, field.name)
                np.testing.assert_array_equal(values, getattr(expected, field.name))
                if field.name != "supply_nano":
                    assert values.dtype == getattr(expected, field.name).dtype
        assert file.shards_of("train").tolist() == [0, 2]
        assert file.num_races == 15
    assert kind_of(path) == CONSENSUS


def test_a_file_can_be_pickled_while_open(path: Path) -> None:
    with RaceFile(path) as file, pickle.loads(pickle.dumps(file)) as again:
        assert again.shard(1).digest() == file.shard(1).digest()


def test_joined_parts_are_the_file_of_all(path: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "a.h5", tmp_path / "b.h5"]
    write_races(parts[0], [block(0)], split=SPLIT[:1], about=replace(ABOUT, shards=1))
    write_races(parts[1], [block(1), block(2)], split=SPLIT[1:], about=replace(ABOUT, shards=2))
    info = join_races(tmp_path / "all.h5", parts, about=ABOUT)
    with RaceFile(path) as file, RaceFile(tmp_path / "all.h5") as joined:
        assert info == file.info
        assert [joined.shard(n).digest() for n in range(3)] == [file.shard(n).digest() for n in range(3)]
        np.testing.assert_array_equal(joined.array("shard/split"), SPLIT)


def test_parts_that_do_not_fit_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{path}: seed is 1, expected 2$"):
        join_races(tmp_path / "all.h5", [path], about=replace(ABOUT, seed=2))
    with pytest.raises(DataError, match=r"all\.h5: its parts hold 3 shards, expected 4$"):
        join_races(tmp_path / "all.h5", [path], about=replace(ABOUT, shards=4))
    assert not (tmp_path / "all.h5").exists()


@pytest.mark.parametrize(
    ("shards", "message"),
    [(2, "shard 2 has 5 races, expected 2 shards of 5 races"), (4, "3 shards were written, expected 4")],
)
def test_more_or_fewer_shards_than_announced_are_refused(tmp_path: Path, shards: int, message: str) -> None:
    split = np.zeros(shards, dtype=np.uint8)
    with pytest.raises(DataError, match=f"{message}$"):
        write_races(tmp_path / "a.h5", map(block, range(3)), split=split, about=replace(ABOUT, shards=shards))
    assert not list(tmp_path.iterdir())


def test_a_shard_that_is_not_there_is_named(path: Path) -> None:
    with RaceFile(path) as file, pytest.raises(ConfigError, match=r"^shard is 3, expected 0 to 2 \(of .*races\.h5\)$"):
        file.shard(3)


def test_files_that_are_not_whole_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.h5 does not exist, expected a consensus file$"):
        RaceFile(tmp_path / "none.h5")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cut\.h5 is not a readable HDF5 file"):
        RaceFile(cut)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("complete", False, "is incomplete: its writer was stopped, expected a whole consensus file"),
        ("schema_version", 9, "schema_version is 9, expected 1"),
        ("kind", np.bytes_(b"other"), "kind is 'other', expected 'consensus'"),
        ("races", 4, r"race/outcome is .*, expected .*"),
    ],
)
def test_foreign_descriptions_are_refused(path: Path, name: str, value: object, message: str) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(DataError, match=message):
        RaceFile(path)


def test_counts_that_do_not_add_up_are_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["race/num_events"][3] += 1
    with (
        RaceFile(path) as file,
        pytest.raises(DataError, match=r"event/token has \d+ entries, expected \d+ by the races"),
    ):
        file.shard(0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("race/num_candidates", 0, r"shard 0, race 2: num_candidates is 0, expected 1 to 4$"),
        ("race/outcome", 200, r"shard 0, race 2: outcome is 200, expected 4 or below \d$"),
        ("candidate/num_transactions", 0, r"shard 0, candidate 2: num_transactions is 0, expected 1 to 256$"),
        ("event/token", 6 << 12, r"shard 0, event 2: kind is 6, expected 0 to 4$"),
        ("tx/sender", 9, r"shard 0, transaction 2: kind 0, 9 to \d, \d NANO, expected accounts below 9 and at most"),
        ("tx/kind", 1, r"shard 0, transaction 2: kind 1, \d to \d, \d NANO, expected accounts below 9 and at most"),
        (
            "tx/amount_nano",
            -1,
            r"shard 0, transaction 2: kind 0, \d to \d, -1 NANO, expected accounts below 9 and at most",
        ),
    ],
)
def test_values_out_of_range_are_refused(path: Path, name: str, value: int, message: str) -> None:
    with h5py.File(path, "r+") as file:
        file[name][2] = value
        if name == "race/num_candidates":
            file["race/num_candidates"][3] += file["candidate/valid"].shape[0] - file["race/num_candidates"][:].sum()
        if name == "candidate/num_transactions":
            file[name][3] += file["tx/kind"].shape[0] - file[name][:].sum()
    with RaceFile(path) as file, pytest.raises(DataError, match=message):
        file.shard(0)
