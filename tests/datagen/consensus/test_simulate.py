import os
import subprocess
import sys

import numpy as np
import pytest

from datagen.consensus.candidates import AMOUNT, MINTED, REPLAY, SIGN
from datagen.consensus.generate import RaceShape, mempools
from datagen.consensus.simulate import continued, simulate
from nerv_fl.data.consensus_schema import RaceBlock
from nerv_fl.quorum import (
    CUTS,
    DISPUTE,
    EVIDENCE,
    NO_OUTCOME,
    PROPOSE,
    QUORUM,
    TIMEOUT,
    VOTE,
    standing,
    unpack,
    votes_at,
)
from nerv_fl.tokens import MINT, NO_ACCOUNT
from nerv_fl.types import FloatArray

SHAPE = RaceShape(shards=8, races=200, accounts=64, max_transactions=12, seed=5)


@pytest.fixture(scope="module")
def blocks() -> list[RaceBlock]:
    return [simulate(SHAPE.seed, shard, pool=pool) for shard, pool in mempools(SHAPE, range(SHAPE.shards))]


def batch(block: RaceBlock, row: int) -> list[tuple[int, int, int, int]]:
    offset = block.tx_offset()
    part = slice(offset[row], offset[row + 1])
    columns = (block.kind, block.sender, block.receiver, block.amount_nano)
    return list(zip(*(column[part].tolist() for column in columns), strict=True))


def test_every_outcome_is_that_of_the_rule(blocks: list[RaceBlock]) -> None:
    outcomes = set()
    for block in blocks:
        offset = block.event_offset()
        for race in range(block.num_races):
            found = standing(block.token[offset[race] : offset[race + 1]], block.weight[race])
            assert found.outcome == block.outcome[race]
            outcomes.add(found.outcome)
    assert outcomes == {0, 1, 2, 3, NO_OUTCOME}


def test_most_reputation_is_honest_so_what_is_finalised_is_valid(blocks: list[RaceBlock]) -> None:
    for block in blocks:
        decided = block.outcome != NO_OUTCOME
        rows = block.candidate_offset()[:-1] + np.minimum(block.outcome, block.num_candidates - 1)
        assert block.valid[rows[decided]].all()


def test_candidates_are_numbered_as_they_are_proposed(blocks: list[RaceBlock]) -> None:
    for block in blocks:
        kind, candidate, _, validator = unpack(block.token)
        race = np.repeat(np.arange(block.num_races), block.num_events)
        for number in range(block.num_races):
            proposed = (race == number) & (kind == PROPOSE)
            count = int(proposed.sum())
            assert candidate[proposed].tolist() == list(range(count))
            first = block.candidate_offset()[number]
            assert validator[proposed].tolist() == block.proposer[first : first + count].tolist()


def test_batches_come_from_the_mempool_and_tampering_is_what_it_says(blocks: list[RaceBlock]) -> None:
    seen = set()
    for (_, pool), block in zip(mempools(SHAPE, range(SHAPE.shards)), blocks, strict=True):
        ends = np.cumsum(pool.counts[0])
        first = block.candidate_offset()
        past: list[list[tuple[int, int, int, int]]] = []
        for race in range(block.num_races):
            own = range(int(ends[race] - pool.counts[0, race]), int(ends[race]))
            mempool = [tuple(int(column[x]) for column in pool.columns()) for x in own]
            for row in range(first[race], first[race + 1]):
                foreign = [tx for tx in batch(block, row) if tx not in mempool]
                seen.add(int(block.tamper[row]))
                check_tamper(int(block.tamper[row]), foreign, mempool=mempool, past=past)
            if block.outcome[race] != NO_OUTCOME:
                past = [batch(block, int(first[race] + block.outcome[race])), *past][:4]
    assert seen == {0, AMOUNT, REPLAY, MINTED, SIGN}


def check_tamper(
    way: int,
    foreign: list[tuple[int, int, int, int]],
    *,
    mempool: list[tuple[int, ...]],
    past: list[list[tuple[int, int, int, int]]],
) -> None:
    """Check that what a batch holds beyond the mempool is what the tampering makes."""
    if way == 0:
        assert not foreign
    elif way == AMOUNT:
        ((kind, sender, receiver, amount),) = foreign
        assert any((kind, sender, receiver) == tx[:3] and amount > tx[3] for tx in mempool)
    elif way == REPLAY:
        assert any(set(foreign) <= set(old) for old in past)
    elif way == MINTED:
        ((kind, sender, _, _),) = foreign
        assert (kind, sender) == (MINT, NO_ACCOUNT)
    else:
        assert foreign or any((k, r, s, a) in mempool for k, s, r, a in mempool)
        assert all((kind, receiver, sender, amount) in mempool for kind, sender, receiver, amount in foreign)


def test_a_few_percent_of_the_candidates_are_invalid(blocks: list[RaceBlock]) -> None:
    valid = np.concatenate([block.valid for block in blocks])
    # Proposers are Byzantine with probability 0.05 to 0.10, and tamper with 0.9 of their batches.
    assert abs((1 - valid).mean() - 0.0675) < 4 * np.sqrt(0.0675 / len(valid)) + 0.01


def test_half_of_the_headers_of_tampered_batches_are_made_to_match(blocks: list[RaceBlock]) -> None:
    tampered = np.concatenate([block.careful[block.tamper > 0] for block in blocks])
    assert abs(tampered.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(tampered))
    assert not any(block.careful[block.tamper == 0].any() for block in blocks)


def test_nobody_disputes_its_own_candidate(blocks: list[RaceBlock]) -> None:
    for block in blocks:
        kind, candidate, _, validator = unpack(block.token)
        race, first = np.repeat(np.arange(block.num_races), block.num_events), block.candidate_offset()
        for at in np.flatnonzero(kind == DISPUTE):
            assert validator[at] != block.proposer[first[race[at]] + candidate[at]]


def test_only_equivocators_are_convicted(blocks: list[RaceBlock]) -> None:
    convicted = 0
    for block in blocks:
        kind, candidate, _, validator = unpack(block.token)
        race = np.repeat(np.arange(block.num_races), block.num_events)
        for at in np.flatnonzero(kind == EVIDENCE):
            ended = np.cumsum(kind == TIMEOUT)
            here = (race[:at] == race[at]) & (ended[:at] == ended[at])
            before = np.flatnonzero(here & (kind[:at] == VOTE) & (validator[:at] == validator[at]))
            assert len(set(candidate[before].tolist())) > 1
            convicted += 1
    assert convicted > 100


def test_the_same_seed_gives_the_same_races(blocks: list[RaceBlock]) -> None:
    ((_, pool),) = mempools(SHAPE, [3])
    assert simulate(SHAPE.seed, 3, pool=pool).digest() == blocks[3].digest()


INTERPRETED = """
from datagen.consensus.generate import RaceShape, mempools
from datagen.consensus.simulate import simulate
shape = RaceShape(shards=1, races=8, accounts=64, max_transactions=8, seed=3)
((shard, pool),) = mempools(shape, [0])
print(simulate(shape.seed, shard, pool=pool).digest().hex())
"""


def test_plain_python_plays_the_same_races() -> None:
    shape = RaceShape(shards=1, races=8, accounts=64, max_transactions=8, seed=3)
    ((shard, pool),) = mempools(shape, [0])
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    process = subprocess.run(
        [sys.executable, "-c", INTERPRETED], capture_output=True, text=True, check=True, env=environment
    )
    assert process.stdout.strip() == simulate(shape.seed, shard, pool=pool).digest().hex()


def test_continuations_know_the_end_and_are_calibrated_before_it(blocks: list[RaceBlock]) -> None:
    chances, outcomes = [], []
    for (shard, pool), block in zip(mempools(SHAPE, range(SHAPE.shards)), blocks, strict=True):
        votes = votes_at(block.num_votes, CUTS)
        _, found = continued(SHAPE.seed, shard, pool=pool, votes=votes, rollouts=32)
        decided = block.outcome != NO_OUTCOME
        np.testing.assert_allclose(found.sum(axis=2), 1.0)
        np.testing.assert_allclose(found[np.flatnonzero(decided), -1, block.outcome[decided]], 1.0)
        chances.append(found[:, 0])
        outcomes.append(block.outcome)
    expected, found_RK = np.concatenate(chances), np.eye(NO_OUTCOME + 1)[np.concatenate(outcomes)]
    assert_calibrated(expected, found_RK)


def assert_calibrated(expected_RK: FloatArray, found_RK: FloatArray) -> None:
    """Check that outcomes are as frequent as the continuations say, over all races and over the doubtful ones."""
    for races in (expected_RK.max(axis=1) > 0, expected_RK.max(axis=1) < 0.95):
        error = found_RK[races].mean(axis=0) - expected_RK[races].mean(axis=0)
        spread = np.sqrt(np.sum(expected_RK[races] * (1 - expected_RK[races]), axis=0)) / races.sum()
        assert races.sum() > 50
        assert (np.abs(error) < 4 * spread + 1e-3).all()


def test_rising_cuts_count_votes_upward() -> None:
    assert votes_at(np.array([8, 5, 1], dtype=np.uint16), CUTS).tolist() == [[2, 4, 6, 8], [2, 3, 4, 5], [1, 1, 1, 1]]


def test_the_quorum_is_reached_by_the_last_vote_alone(blocks: list[RaceBlock]) -> None:
    for block in blocks[:2]:
        offset = block.event_offset()
        for race in np.flatnonzero(block.outcome != NO_OUTCOME):
            token = block.token[offset[race] : offset[race + 1]]
            before = standing(token[:-1], block.weight[race])
            assert before.outcome is None
            assert (before.now * QUORUM[1] < QUORUM[0] * before.total).all()
