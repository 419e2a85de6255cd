from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datagen.consensus.generate import RaceShape, generate_races, play_on
from nerv_fl.bootstrap.soft_labels import Lessons
from nerv_fl.data.consensus import RaceFile
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.quorum import VOTE
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray, IntArray

SHAPE = RaceShape(shards=20, races=24, accounts=64, max_transactions=6, seed=4)


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("races") / "races.h5"
    generate_races(path, SHAPE)
    return path


def test_lessons_are_races_cut_off_and_the_chances_from_there(races: Path, tmp_path: Path) -> None:
    vectors = stream(1, "table").standard_normal((64, 8))

    def tell_votes(shards: Sequence[int], votes: Sequence[IntArray]) -> Iterator[FloatArray]:
        """Give the number of votes at each cut in place of a chance."""
        for cuts in votes:
            yield np.repeat(cuts[:, :, None].astype(np.float64), 5, axis=2)

    with RaceFile(races) as file:
        lessons = Lessons(
            file, vectors, seed=1, play_on=tell_votes, max_shards=3, cache=tmp_path / "chances", cache_key="1"
        )
        found, again = lessons.batch(5, num_shards=2), lessons.batch(5, num_shards=2)
        kept = Lessons(
            file,
            vectors,
            seed=1,
            play_on=play_on(races, rollouts=1),
            max_shards=3,
            cache=tmp_path / "chances",
            cache_key="1",
        )
        other = Lessons(
            file,
            vectors,
            seed=2,
            play_on=play_on(races, rollouts=1),
            max_shards=3,
            cache=tmp_path / "chances",
            cache_key="1",
        )
    assert found.inputs.num_races == 2 * SHAPE.races
    seen = ((found.inputs.tokens_BL >> 12) == VOTE).sum(dim=1)
    assert torch.equal(found.chances_BO[:, 0].long(), seen)
    assert len(seen.unique()) > 10
    assert torch.equal(found.inputs.tokens_BL, again.inputs.tokens_BL)
    assert torch.equal(kept.batch(5, num_shards=2).chances_BO, found.chances_BO)
    assert other.batch(5, num_shards=2).chances_BO.max() <= 1.0
    with RaceFile(races) as file:
        again_drawn = Lessons(
            file,
            vectors,
            seed=2,
            play_on=tell_votes,
            max_shards=3,
            cache=tmp_path / "chances",
            cache_key="other continuations",
        )
        assert again_drawn.batch(5, num_shards=2).chances_BO.max() > 1.0


def test_races_that_differ_from_their_simulation_are_not_played_on(races: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    path.write_bytes(races.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["seed"] = SHAPE.seed + 1
    votes = [np.ones((SHAPE.races, 1), dtype=np.int64)]
    with pytest.raises(
        DataError, match=r"other\.h5: shard 0 differs from the simulation of its seed by datagen\.consensus/1"
    ):
        next(play_on(path, rollouts=1)([0], votes))
    with pytest.raises(ConfigError, match=r"^rollouts is 0, expected a number in \[1, 1000000\]$"):
        play_on(path, rollouts=0)
