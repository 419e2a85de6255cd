from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from datagen.consensus.generate import RaceShape, generate_races
from nerv_fl.bootstrap.consensus_scores import Logits, RaceScores, answers, score
from nerv_fl.data.consensus import RaceFile
from nerv_fl.models.consensus_inputs import RaceInputs
from nerv_fl.quorum import CUTS, NO_OUTCOME
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray

SHAPE = RaceShape(shards=12, races=40, accounts=32, max_transactions=6, seed=4)
SHARDS = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> RaceFile:
    path: Path = tmp_path_factory.mktemp("races") / "races.h5"
    generate_races(path, SHAPE)
    return RaceFile(path)


@pytest.fixture(scope="module")
def vectors() -> FloatArray:
    return stream(1, "table").standard_normal((32, 8))


def examine(file: RaceFile, vectors: FloatArray, *, logits: Logits) -> list[RaceScores]:
    return [score(cut, answers(file, SHARDS, cut=cut, table_AD=vectors, logits=logits)) for cut in CUTS]


class Cheat:
    """Answers with the truth, shard after shard, at a confidence."""

    def __init__(self, file: RaceFile, *, confidence: float) -> None:
        self.blocks, self.logit = (
            [file.shard(shard) for shard in SHARDS] * 4,
            float(np.log(confidence / (1 - confidence))),
        )

    def __call__(self, inputs: RaceInputs) -> tuple[Tensor, Tensor]:
        block = self.blocks.pop(0)
        first = block.candidate_offset()
        valid_BC = torch.full((block.num_races, 4), -self.logit)
        for race in range(block.num_races):
            for c in range(first[race + 1] - first[race]):
                if block.valid[first[race] + c]:
                    valid_BC[race, c] = self.logit
        outcome_BO = torch.full((block.num_races, NO_OUTCOME + 1), -1e9)
        outcome_B = torch.from_numpy(block.outcome.astype(np.int64))
        outcome_BO[torch.arange(block.num_races), outcome_B] = self.logit
        outcome_BO[torch.arange(block.num_races), (outcome_B + 1) % 5] = 0.0
        return valid_BC, outcome_BO


def test_the_truth_scores_one_and_is_underconfident(file: RaceFile, vectors: FloatArray) -> None:
    scores = examine(file, vectors, logits=Cheat(file, confidence=0.75))
    assert [found.cut for found in scores] == [0.25, 0.5, 0.75, 1.0]
    for found in scores:
        assert found.races == 160
        assert found.agreement == found.confident == found.agreement_all == found.with_rule == 1.0
        assert found.validity == found.balanced == 1.0
        assert found.calibration == pytest.approx(0.25, abs=1e-6)
        assert found.calibration_valid == pytest.approx(0.25, abs=1e-6)
        assert 0.5 < found.majority <= 1.0
        assert 0.85 < found.always_valid < 1.0
    assert scores[-1].delta_error < 0.6
    assert scores[-1].majority > scores[0].majority


def test_with_all_votes_the_rule_mends_any_model(file: RaceFile, vectors: FloatArray) -> None:
    def never(inputs: RaceInputs) -> tuple[Tensor, Tensor]:
        return torch.zeros(inputs.num_races, 4), torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0]).expand(inputs.num_races, 5)

    scores = examine(file, vectors, logits=never)
    assert scores[-1].with_rule == 1.0
    assert scores[-1].agreement < 0.1
    assert scores[0].balanced == 0.5
