from pathlib import Path

import h5py
import numpy as np
import pytest

from datagen.sharding.kernel import simulate
from nerv_fl.data.load_schema import LoadInfo
from nerv_fl.data.load_writer import draw_split, join_loads, normalise, write_load
from nerv_fl.errors import DataError


def about(shards: int, steps: int = 30) -> LoadInfo:
    return LoadInfo(shards=shards, steps=steps, seed=1, splits=False, generator="test", content_sha256="")


def test_the_split_is_a_partition_drawn_from_the_seed() -> None:
    split = draw_split(3, 200)
    assert np.bincount(split).tolist() == [140, 30, 30]
    assert (split != draw_split(4, 200)).any()
    assert draw_split(3, 1).tolist() == [0]


def test_normalisation_sees_train_shards_only() -> None:
    sums = np.zeros((3, 2, 11))
    sums[0, :, 0], sums[1, :, 0], sums[2, :, 0] = (4, 10), (8, 34), (1000, 1e6)
    # Values 1, 3 and 3, 5: mean 3, squares 44 / 4.
    mean, std = normalise(sums, split=np.array([0, 0, 2], dtype=np.uint8), steps=2)
    assert (mean[0], std[0], std[1]) == (3.0, np.sqrt(2.0), 1.0)


def test_shuffled_chunks_are_what_any_reader_of_hdf5_sees(tmp_path: Path) -> None:
    blocks = [simulate(1, shard, steps=1000, splits=False) for shard in range(2)]
    write_load(tmp_path / "a.h5", blocks, split=np.zeros(2, dtype=np.uint8), about=about(2, 1000))
    with h5py.File(tmp_path / "a.h5") as file:
        assert (file["features"].compression, file["features"].shuffle) == ("gzip", True)
        np.testing.assert_array_equal(file["features"][1], blocks[1].features)
        wide = np.concatenate([block.features for block in blocks]).astype(np.float64)
        np.testing.assert_allclose(file["mean"][:], wide.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(file["std"][:], wide.std(axis=0), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_or_too_many_shards_leave_the_old_file(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"old")
    blocks = [simulate(1, 0, steps=30, splits=False)] * count
    with pytest.raises(DataError, match=rf"^{path}: {count} shards were written, expected 2 of 30 steps$"):
        write_load(path, blocks, split=np.zeros(2, dtype=np.uint8), about=about(2))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_foreign_part_is_named(tmp_path: Path) -> None:
    part = tmp_path / "part.h5"
    write_load(part, [simulate(1, 0, steps=30, splits=False)], split=np.zeros(1, dtype=np.uint8), about=about(1))
    with pytest.raises(DataError, match=rf"^{part}: steps is 30, expected 40$"):
        join_loads(tmp_path / "a.h5", [part], about=about(1, 40))
    with pytest.raises(DataError, match=r"a\.h5: its parts hold 1 shards, expected 2$"):
        join_loads(tmp_path / "a.h5", [part], about=about(2))


def test_parts_must_be_whole(tmp_path: Path) -> None:
    part = tmp_path / "part.h5"
    write_load(part, [simulate(1, 0, steps=30, splits=False)], split=np.zeros(1, dtype=np.uint8), about=about(1))
    part.write_bytes(part.read_bytes()[:5000])
    with pytest.raises(DataError, match=rf"^{part} is not a readable HDF5 file"):
        join_loads(tmp_path / "a.h5", [part], about=about(1))
