from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from datagen.consensus.generate import RaceShape, generate_races
from datagen.consensus.score import CutScores, score_races
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.rng import stream


@pytest.fixture(scope="module")
def scores(made: Path) -> tuple[CutScores, ...]:
    table_AD = stream(0, "table").standard_normal((1024, 16))
    return score_races(made, table_AD=table_AD / np.linalg.norm(table_AD, axis=1, keepdims=True))


def test_what_knows_more_is_right_more_often(scores: tuple[CutScores, ...]) -> None:
    assert [found.cut for found in scores] == [0.25, 0.5, 0.75, 1.0]
    for found in scores:
        error = 3 * (0.25 / found.races) ** 0.5
        assert found.oracle >= max(found.first, found.majority, found.reputation, found.trees) - error
        assert found.valid_trees_deltas is not None
        assert found.valid_trees_deltas > found.always_valid
    for earlier, later in pairwise(scores):
        assert later.oracle >= earlier.oracle - 0.01
        assert later.candidates >= earlier.candidates


def test_with_all_votes_the_oracle_knows_the_outcome(scores: tuple[CutScores, ...]) -> None:
    assert scores[-1].oracle > 0.995


def test_without_an_encoder_deltas_are_left_out(made: Path) -> None:
    found = score_races(made, max_shards=2)
    assert all(score.valid_trees_deltas is None for score in found)


def test_a_file_without_test_shards_is_refused(tmp_path: Path) -> None:
    generate_races(tmp_path / "a.h5", RaceShape(shards=1, races=2, accounts=16, max_transactions=4))
    with pytest.raises(DataError, match=r"a\.h5 has 1 train and 0 test shards, expected some of each$"):
        score_races(tmp_path / "a.h5")
    with pytest.raises(ConfigError, match=r"^max_shards is 0, expected a number in \[1, inf\]$"):
        score_races(tmp_path / "a.h5", max_shards=0)
