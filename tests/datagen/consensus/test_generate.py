from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from datagen.consensus.generate import RaceShape, generate_races, mempools, race_split
from datagen.consensus.simulate import simulate
from nerv_fl.data.consensus import RaceFile
from nerv_fl.errors import ConfigError
from tests.datagen.consensus.conftest import SHAPE


def test_two_workers_write_the_same_bytes(made: Path, tmp_path: Path) -> None:
    done: list[int] = []
    generate_races(tmp_path / "b.h5", SHAPE, workers=2, progress=done.append)
    assert (tmp_path / "b.h5").read_bytes() == made.read_bytes()
    assert len(done) == 2
    assert sum(done) == SHAPE.shards
    assert [path.name for path in tmp_path.iterdir()] == ["b.h5"]


def test_a_stopped_run_goes_on_to_the_same_bytes(made: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(_: int) -> None:
        raise StopError

    with pytest.raises(StopError):
        generate_races(tmp_path / "b.h5", SHAPE, progress=stop)
    assert not (tmp_path / "b.h5").exists()
    generate_races(tmp_path / "b.h5", SHAPE, resume=True)
    assert (tmp_path / "b.h5").read_bytes() == made.read_bytes()


def test_a_run_of_another_shape_is_not_resumed(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(_: int) -> None:
        raise StopError

    small = RaceShape(shards=2, races=2, accounts=16, max_transactions=4)
    with pytest.raises(StopError):
        generate_races(tmp_path / "b.h5", small, progress=stop)
    with pytest.raises(ConfigError, match=r"^seed is 8, expected 7: .*b\.h5 was begun with it$"):
        generate_races(tmp_path / "b.h5", replace(small, seed=8), resume=True)


def test_the_file_holds_the_simulation_of_each_shard(made: Path) -> None:
    first_of_second = SHAPE.ledger.chains_per_block
    chosen = [0, first_of_second - 1, first_of_second]
    with RaceFile(made) as file:
        assert file.info == SHAPE.about(shards=SHAPE.shards, content_sha256=file.info.content_sha256)
        for shard, pool in mempools(SHAPE, chosen):
            found, expected = file.shard(shard), simulate(SHAPE.seed, shard, pool=pool)
            for field in fields(found):
                np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))
        np.testing.assert_array_equal(file.array("shard/split"), race_split(SHAPE))
        assert len(file.shards_of("train")) == 49
        assert RaceShape.of(file.info) == SHAPE


def test_other_seeds_give_other_content(tmp_path: Path) -> None:
    small = RaceShape(shards=2, races=2, accounts=16, max_transactions=4)
    hashes = {generate_races(tmp_path / "a.h5", replace(small, seed=seed)).content_sha256 for seed in (1, 1, 2)}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("name", "value", "high"),
    [("shards", 0, 10**6), ("races", 0, 10**4), ("max_transactions", 129, 128), ("seed", -1, 2**63 - 1)],
)
def test_impossible_shapes_are_refused(name: str, value: int, high: int) -> None:
    low = 0 if name == "seed" else 1
    with pytest.raises(ConfigError, match=rf"^{name} is {value}, expected a number in \[{low}, {high}\]$"):
        replace(SHAPE, **{name: value})
