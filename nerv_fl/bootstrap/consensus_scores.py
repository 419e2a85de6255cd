"""How well races are predicted, at 25, 50, 75 and 100 % of their votes, beside the rules that need no model.

Shapes: B races, C = 4 candidates, O = 5 outcomes, N candidates of all races.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from nerv_fl.bootstrap.forecast_measures import reliability
from nerv_fl.data.consensus import RaceFile
from nerv_fl.data.consensus_schema import RaceBlock
from nerv_fl.errors import DataError
from nerv_fl.models.consensus_inputs import RaceInputs, RaceTargets, make_inputs, standings
from nerv_fl.quorum import MAX_CANDIDATES, NO_OUTCOME, votes_at
from nerv_fl.types import BoolArray, FloatArray, IntArray

CONFIDENT: Final = 0.85
BINS: Final = 15
"""Groups of the calibration error. Source: Guo et al. 2017, On calibration of modern neural networks, equation 3."""

Logits = Callable[[RaceInputs], tuple[Tensor, Tensor]]
"""Returns the logits of validity [B, C] and of the outcome [B, O]."""


@dataclass(frozen=True, kw_only=True)
class RaceScores:
    """What is right at one cut, as parts of 1; of the outcome, on honest races, whose candidates are all valid.

    Attributes:
        cut: Part of the votes that were seen.
        races: Races scored.
        honest: Honest races among them.
        agreement: Outcome, honest races.
        confident: The same on the most confident 85 % of them.
        agreement_all: Outcome, all races.
        with_rule: Outcome, honest races, where the exact quorum rule answers once it decides.
        majority: Rule: the candidate with most votes, honest races.
        reputation: Rule: the one with most reputation, honest races.
        candidates: Candidates whose validity was scored.
        validity: Validity.
        balanced: Mean of the recalls of valid and of invalid candidates.
        always_valid: Rule: every candidate is valid.
        calibration: Expected calibration error of the outcome, all races.
        calibration_valid: The same of validity.
        delta_error: |next delta - that of the finalised batch| over the latter's length, mean over decided races.
    """

    cut: float
    races: int
    honest: int
    agreement: float
    confident: float
    agreement_all: float
    with_rule: float
    majority: float
    reputation: float
    candidates: int
    validity: float
    balanced: float
    always_valid: float
    calibration: float
    calibration_valid: float
    delta_error: float


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers and truths at one cut.

    Attributes:
        chance_BO: float64, probabilities of the outcome.
        outcome_B: int64.
        honest_B: bool.
        rule_B: int64, what the rule has decided; -1 while it has not.
        majority_B: int64.
        reputation_B: int64.
        valid_N: float64, probability of validity, of the candidates proposed so far.
        truth_N: bool.
        error_B: float64, relative error of the next delta; NaN where no batch was finalised.
    """

    chance_BO: FloatArray
    outcome_B: IntArray
    honest_B: BoolArray
    rule_B: IntArray
    majority_B: IntArray
    reputation_B: IntArray
    valid_N: FloatArray
    truth_N: BoolArray
    error_B: FloatArray


def answers(file: RaceFile, shards: Sequence[int], *, cut: float, table_AD: FloatArray, logits: Logits) -> Answers:
    """Return what a predictor answers on some shards at one cut, beside the truth.

    Args:
        file: The races.
        shards: Shards that were not trained on.
        cut: Part of the votes that are seen.
        table_AD: float64, V of an encoder.
        logits: The predictor.
    """
    parts = [_ask(file.shard(shard), cut=cut, table_AD=table_AD, logits=logits) for shard in shards]
    names = Answers.__dataclass_fields__
    return Answers(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def score(cut: float, found: Answers) -> RaceScores:
    """Score the answers of a predictor at one cut.

    Raises:
        DataError: If there are too few races to score: no two honest ones, or no valid or no invalid candidate.
    """
    if found.honest_B.sum() < 2 or found.truth_N.all() or not found.truth_N.any():  # noqa: PLR2004
        raise DataError(
            f"{found.honest_B.sum()} races are honest and {(~found.truth_N).sum()} of {len(found.truth_N)} candidates "
            "invalid, expected two honest races or more, and candidates of both kinds"
        )
    chosen, honest = found.chance_BO.argmax(axis=1), found.honest_B
    right = chosen == found.outcome_B
    confidence = found.chance_BO.max(axis=1)
    surest = np.argsort(-confidence[honest], kind="stable")[: int(CONFIDENT * honest.sum())]
    ruled = np.where(found.rule_B >= 0, found.rule_B, chosen) == found.outcome_B
    valid = found.valid_N > 0.5  # noqa: PLR2004 (more likely than not)
    sure = np.maximum(found.valid_N, 1.0 - found.valid_N)
    return RaceScores(
        cut=cut,
        races=len(right),
        honest=int(honest.sum()),
        agreement=float(right[honest].mean()),
        confident=float(right[honest][surest].mean()),
        agreement_all=float(right.mean()),
        with_rule=float(ruled[honest].mean()),
        majority=float((found.majority_B == found.outcome_B)[honest].mean()),
        reputation=float((found.reputation_B == found.outcome_B)[honest].mean()),
        candidates=len(valid),
        validity=float((valid == found.truth_N).mean()),
        balanced=float(0.5 * (valid[found.truth_N].mean() + (~valid[~found.truth_N]).mean())),
        always_valid=float(found.truth_N.mean()),
        calibration=reliability(confidence, right, bins=BINS).error,
        calibration_valid=reliability(sure, valid == found.truth_N, bins=BINS).error,
        delta_error=float(np.nanmean(found.error_B)),
    )


def _ask(block: RaceBlock, *, cut: float, table_AD: FloatArray, logits: Logits) -> Answers:
    votes = votes_at(block.num_votes, (cut,))[:, 0]
    inputs, targets = make_inputs(block, table_AD, votes=votes)
    valid_BC, outcome_BO = logits(inputs)
    chance_BO = torch.softmax(outcome_BO.double(), dim=1).numpy()
    counts = standings(block, votes)
    return Answers(
        chance_BO=chance_BO,
        outcome_B=targets.outcome_B.numpy(),
        honest_B=targets.honest_B.numpy(),
        rule_B=np.array([-1 if count.outcome is None else count.outcome for count in counts]),
        majority_B=np.array([count.majority for count in counts]),
        reputation_B=np.array([count.leader for count in counts]),
        valid_N=torch.sigmoid(valid_BC[targets.present_BC].double()).numpy(),
        truth_N=targets.valid_BC[targets.present_BC].numpy(),
        error_B=_delta_errors(chance_BO, inputs, targets),
    )


def _delta_errors(chance_BO: FloatArray, inputs: RaceInputs, targets: RaceTargets) -> FloatArray:
    """Return |predicted - finalised| / |finalised| of the next delta, NaN where no batch was finalised."""
    deltas_BCD, expected_BD = inputs.deltas_BCD.double().numpy(), targets.delta_BD.double().numpy()
    next_BD = np.einsum("bc,bcd->bd", chance_BO[:, :MAX_CANDIDATES], deltas_BCD)
    length_B = np.linalg.norm(expected_BD, axis=1)
    length_B[targets.outcome_B.numpy() == NO_OUTCOME] = np.nan
    return np.asarray(np.linalg.norm(next_BD - expected_BD, axis=1) / length_B)
