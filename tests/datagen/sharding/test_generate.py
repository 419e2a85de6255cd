from pathlib import Path

import numpy as np
import pytest

from datagen.sharding import generate_load
from datagen.sharding.kernel import simulate
from nerv_fl.data.load import LoadFile
from nerv_fl.errors import ConfigError
from tests.datagen.sharding.conftest import SEED, SHARDS, STEPS


def test_two_workers_write_the_same_bytes(made: Path, tmp_path: Path) -> None:
    done: list[int] = []
    generate_load(tmp_path / "b.h5", shards=SHARDS, steps=STEPS, seed=SEED, workers=2, progress=done.append)
    assert (tmp_path / "b.h5").read_bytes() == made.read_bytes()
    assert sorted(done) == [10, 25, 25]
    assert [path.name for path in tmp_path.iterdir()] == ["b.h5"]


def test_a_stopped_run_goes_on_to_the_same_bytes(made: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(_: int) -> None:
        raise StopError

    with pytest.raises(StopError):
        generate_load(tmp_path / "b.h5", shards=SHARDS, steps=STEPS, seed=SEED, progress=stop)
    assert not (tmp_path / "b.h5").exists()
    done: list[int] = []
    generate_load(tmp_path / "b.h5", shards=SHARDS, steps=STEPS, seed=SEED, resume=True, progress=done.append)
    assert done == [25, 25, 10]  # what was kept counts as done
    assert (tmp_path / "b.h5").read_bytes() == made.read_bytes()


def test_the_file_holds_the_simulation_of_each_shard(made: Path) -> None:
    with LoadFile(made) as file:
        for shard in (0, 24, 25, 59):
            expected, found = simulate(SEED, shard, steps=STEPS, splits=False), file.shard(shard)
            np.testing.assert_array_equal(found.features, expected.features)
            np.testing.assert_array_equal(found.action, expected.action)


def test_other_seeds_and_splits_give_other_content(tmp_path: Path) -> None:
    hashes = {
        generate_load(tmp_path / "a.h5", shards=2, steps=1500, seed=seed, splits=splits).content_sha256
        for seed in (4, 5)
        for splits in (False, True)
    }
    assert len(hashes) >= 2
    assert generate_load(tmp_path / "a.h5", shards=2, steps=1500, seed=5, splits=True).splits


@pytest.mark.parametrize(("name", "value"), [("shards", 0), ("steps", 0), ("seed", -1), ("workers", 0)])
def test_impossible_sizes_are_refused(tmp_path: Path, name: str, value: int) -> None:
    given = {"shards": 2, "steps": 30, "seed": 1, "workers": 1, name: value}
    with pytest.raises(ConfigError, match=rf"^{name} is {value}, expected a number in \["):
        generate_load(
            tmp_path / "a.h5",
            shards=given["shards"],
            steps=given["steps"],
            seed=given["seed"],
            workers=given["workers"],
        )
    assert not (tmp_path / "a.h5").exists()
