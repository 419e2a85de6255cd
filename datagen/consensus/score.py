"""How well a race's outcome and the validity of its candidates can be foreseen at 25, 50, 75 and 100 % of its votes.

By always taking the first candidate, by majorities, by boosted trees on the exact count, without and with the
candidates' deltas, and by one who knows the hidden state and plays the race to its end many times. Outcomes are scored
on honest races, those whose candidates are all valid; validity on all.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier

from datagen.consensus.generate import play_on
from nerv_fl.data.consensus import RaceFile
from nerv_fl.data.consensus_schema import RaceBlock
from nerv_fl.errors import DataError
from nerv_fl.models.consensus_inputs import make_inputs, standings
from nerv_fl.models.predictor import race_facts
from nerv_fl.quorum import CUTS, DISPUTED, MAX_CANDIDATES, Standing, votes_at
from nerv_fl.types import BoolArray, FloatArray, IntArray
from nerv_fl.validation import in_range

ROLLOUTS: Final = 64
BATCHES_FIRST: Final = 12
"""Where the figures of a candidate's batch begin in `race_facts`."""


@dataclass(frozen=True, kw_only=True)
class CutScores:
    """What is right at one cut, as parts of 1.

    Attributes:
        cut: Part of the votes that were seen.
        races: Honest races scored.
        first: Outcome: the candidate proposed first.
        majority: The one with most votes.
        reputation: The one with most reputation behind it.
        trees: Boosted trees on the count.
        oracle: The likeliest, given the hidden state.
        candidates: Candidates scored.
        always_valid: Validity: all are.
        disputed: Invalid once a fifth of the reputation disputes it.
        valid_trees: Boosted trees on the count.
        valid_trees_deltas: Boosted trees on the count and the deltas; None without an encoder.
        balanced_trees: Mean of its recalls of valid and invalid candidates, with deltas where there are any.
    """

    cut: float
    races: int
    first: float
    majority: float
    reputation: float
    trees: float
    oracle: float
    candidates: int
    always_valid: float
    disputed: float
    valid_trees: float
    valid_trees_deltas: float | None
    balanced_trees: float


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Races at one cut, and the candidates proposed so far.

    Attributes:
        outcome: int64 [R].
        honest: bool [R].
        published: int64 [R], candidates of each.
        majority: int64 [R].
        reputation: int64 [R].
        oracle: int64 [R].
        x: float64 [N, F], the count.
        x_delta: float64 [N, J], figures of the batch.
        disputed: float64 [N], part of the reputation.
        valid: bool [N].
        finalised: bool [N].
    """

    outcome: IntArray
    honest: BoolArray
    published: IntArray
    majority: IntArray
    reputation: IntArray
    oracle: IntArray
    x: FloatArray
    x_delta: FloatArray
    disputed: FloatArray
    valid: BoolArray
    finalised: BoolArray


def score_races(path: str | Path, *, table_AD: FloatArray | None = None, max_shards: int = 60) -> tuple[CutScores, ...]:
    """Score baselines and the oracle on the test shards of a consensus file.

    Args:
        path: The file.
        table_AD: float64 [accounts, up to 512], V of an encoder; None leaves the deltas out.
        max_shards: Test shards used; twice as many train shards fit the trees.

    Returns:
        The scores at each of the four cuts.

    Raises:
        ConfigError: If max_shards is below 1.
        DataError: If the file is damaged, or has no train or test shards.
    """
    in_range("max_shards", max_shards, low=1, high=np.inf)
    with RaceFile(path) as file:
        train, test = file.shards_of("train")[: 2 * max_shards], file.shards_of("test")[:max_shards]
        if not len(train) or not len(test):
            raise DataError(f"{file.path} has {len(train)} train and {len(test)} test shards, expected some of each")
        fitted = [_read(file, train, cut=cut, table_AD=table_AD) for cut in CUTS]
        scored = [_read(file, test, cut=cut, table_AD=table_AD, oracle=True) for cut in CUTS]
    return tuple(
        _score(cut, fit, found, deltas=table_AD is not None)
        for cut, fit, found in zip(CUTS, fitted, scored, strict=True)
    )


def _score(cut: float, train: _Sample, test: _Sample, *, deltas: bool) -> CutScores:
    honest, outcome = test.honest, test.outcome[test.honest]
    chosen = _choose(_fit(train.x, train.finalised).predict_proba(test.x)[:, 1], test.published)
    without = _fit(train.x, train.valid).predict(test.x)
    both = without
    if deltas:
        both = _fit(np.hstack([train.x, train.x_delta]), train.valid).predict(np.hstack([test.x, test.x_delta]))
    return CutScores(
        cut=cut,
        races=int(honest.sum()),
        first=float(np.mean(outcome == 0)),
        majority=float(np.mean(test.majority[honest] == outcome)),
        reputation=float(np.mean(test.reputation[honest] == outcome)),
        trees=float(np.mean(chosen[honest] == outcome)),
        oracle=float(np.mean(test.oracle[honest] == outcome)),
        candidates=len(test.valid),
        always_valid=float(np.mean(test.valid)),
        disputed=float(np.mean((test.disputed < DISPUTED) == test.valid)),
        valid_trees=float(np.mean(without == test.valid)),
        valid_trees_deltas=float(np.mean(both == test.valid)) if deltas else None,
        balanced_trees=float(0.5 * (np.mean(both[test.valid]) + np.mean(~both[~test.valid]))),
    )


def _choose(chance: FloatArray, published: IntArray) -> IntArray:
    """Return the likeliest candidate of each race."""
    ends = np.cumsum(published)
    return np.array([part.argmax() for part in np.split(chance, ends[:-1])])


def _fit(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> HistGradientBoostingClassifier:
    if y.all() or not y.any():
        raise DataError(f"{len(y)} candidates of the train shards are all alike, expected valid and invalid ones")
    trees = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.1, early_stopping=False, random_state=0)
    return trees.fit(x, y)


def _read(
    file: RaceFile, shards: IntArray, *, cut: float, table_AD: FloatArray | None, oracle: bool = False
) -> _Sample:
    blocks = [file.shard(shard) for shard in shards.tolist()]
    likeliest = [np.zeros(block.num_races, dtype=np.int64) for block in blocks]
    if oracle:
        # With all votes in, a last timeout is still to come: the oracle sees what the others see.
        votes = [votes_at(block.num_votes, (cut,)) + (cut == 1.0) for block in blocks]
        chances = play_on(file.path, rollouts=ROLLOUTS)(shards.tolist(), votes)
        likeliest = [found[:, 0].argmax(axis=1) for found in chances]
    parts = [
        _sample(block, cut=cut, table_AD=table_AD, oracle=best) for block, best in zip(blocks, likeliest, strict=True)
    ]
    names = _Sample.__dataclass_fields__
    return _Sample(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _sample(block: RaceBlock, *, cut: float, table_AD: FloatArray | None, oracle: IntArray) -> _Sample:
    votes = votes_at(block.num_votes, (cut,))[:, 0]
    facts = np.zeros((block.num_races, MAX_CANDIDATES, 0))
    if table_AD is not None:
        inputs, _ = make_inputs(block, table_AD, votes=votes)
        found = race_facts(inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD)
        facts = found[:, :, BATCHES_FIRST:].numpy().astype(np.float64)
    first, counts = block.candidate_offset(), standings(block, votes)
    rows = np.concatenate([first[race] + np.arange(count.published) for race, count in enumerate(counts)])
    published = np.array([count.published for count in counts])
    slot = rows - np.repeat(first[:-1], published)
    return _Sample(
        outcome=block.outcome.astype(np.int64),
        honest=np.add.reduceat(block.valid, first[:-1]) == block.num_candidates,
        published=published,
        majority=np.array([count.majority for count in counts]),
        reputation=np.array([count.leader for count in counts]),
        oracle=oracle,
        x=np.concatenate(
            [_of_count(count, priority=block.priority[first[race] :]) for race, count in enumerate(counts)]
        ),
        x_delta=np.concatenate([_of_batches(facts[race, : count.published]) for race, count in enumerate(counts)]),
        disputed=np.concatenate([count.disputed[: count.published] / count.total for count in counts]),
        valid=block.valid[rows] == 1,
        finalised=slot == np.repeat(block.outcome, published),
    )


def _of_count(count: Standing, *, priority: npt.NDArray[np.uint8]) -> FloatArray:
    """Return figures of each candidate proposed so far, its best rival's beside its own."""
    here = slice(0, count.published)
    shares = np.stack([count.now, count.before, count.disputed])[:, here] / count.total
    numbers = np.stack([count.voters[here], count.disputes[here], priority[here]])
    rivals = np.array([[np.delete(share, c).max(initial=0.0) for share in shares] for c in range(count.published)])
    whole = [count.rounds, count.published, count.convicted, count.total, shares[0].sum()]
    return np.hstack([shares.T, numbers.T, rivals, np.tile(whole, (count.published, 1)), np.eye(4)[here]])


def _of_batches(facts_CF: FloatArray) -> FloatArray:
    """Return figures of each batch, its greatest cosines to another candidate and to the past beside them."""
    if not facts_CF.shape[1]:
        return facts_CF
    own, cosines = facts_CF[:, :3], facts_CF[:, 3:]
    peers = cosines[:, : len(facts_CF)] - 2.0 * np.eye(len(facts_CF))
    past = cosines[:, MAX_CANDIDATES:]
    nearest = np.stack([peers.max(axis=1), peers.mean(axis=1), past.max(axis=1)], axis=1)
    return np.concatenate([own, nearest], axis=1)
