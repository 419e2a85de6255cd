from dataclasses import replace

import numpy as np
import pytest
import torch

from datagen.consensus.generate import RaceShape, mempools
from datagen.consensus.simulate import simulate
from nerv_fl.data.consensus_schema import RaceBlock
from nerv_fl.errors import ConfigError
from nerv_fl.models.consensus_inputs import DELTA_WIDTH, event_stops, join_inputs, make_inputs, race_deltas
from nerv_fl.quorum import NO_OUTCOME, PAD_TOKEN, VOTE
from nerv_fl.rng import stream
from nerv_fl.tokens import NO_ACCOUNT
from nerv_fl.types import FloatArray

SHAPE = RaceShape(shards=1, races=60, accounts=32, max_transactions=8, seed=2)


@pytest.fixture(scope="module")
def block() -> RaceBlock:
    ((_, pool),) = mempools(SHAPE, [0])
    return simulate(SHAPE.seed, 0, pool=pool)


@pytest.fixture(scope="module")
def vectors() -> FloatArray:
    return stream(1, "table").standard_normal((32, 8))


def test_a_node_has_seen_everything_up_to_a_vote(block: RaceBlock) -> None:
    offset = block.event_offset()
    for part in (0.0, 0.3, 0.7, 1.0):
        votes = np.floor(part * block.num_votes).astype(np.int64)
        stops = event_stops(block, votes)
        for race in range(block.num_races):
            token = block.token[offset[race] : offset[race + 1]]
            seen = token[: stops[race]]
            if votes[race] == block.num_votes[race]:
                assert len(seen) == len(token)
            else:
                assert (seen >> 12 == VOTE).sum() == votes[race]
                assert not votes[race] or seen[-1] >> 12 == VOTE


def test_before_the_first_vote_nothing_of_the_race_before_is_seen(block: RaceBlock) -> None:
    undecided = replace(
        block,
        outcome=np.array([4, 0], dtype=np.uint8),
        num_events=np.array([3, 2], dtype=np.uint16),
        num_votes=np.array([1, 1], dtype=np.uint16),
        token=np.array([0, VOTE << 12, 4 << 12, 0, VOTE << 12], dtype=np.uint16),
    )
    assert event_stops(undecided, np.array([0, 0])).tolist() == [0, 0]
    assert event_stops(undecided, np.array([1, 1])).tolist() == [3, 2]


def test_deltas_are_sums_over_transactions(block: RaceBlock, vectors: FloatArray) -> None:
    found, offset = race_deltas(block, vectors), block.tx_offset()
    for row in range(0, len(block.valid), 7):
        expected, supply = np.zeros(DELTA_WIDTH), 0.0
        for x in range(offset[row], offset[row + 1]):
            share = block.amount_nano[x] / block.supply_nano
            if block.receiver[x] != NO_ACCOUNT:
                expected[:8] += share * vectors[block.receiver[x]]
                supply += share
            if block.sender[x] != NO_ACCOUNT:
                expected[:8] -= share * vectors[block.sender[x]]
                supply -= share
        expected[-1] = supply
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-9)


def test_the_past_is_what_was_finalised_before(block: RaceBlock, vectors: FloatArray) -> None:
    inputs, _ = make_inputs(block, vectors, votes=block.num_votes.astype(np.int64))
    deltas, first = race_deltas(block, vectors), block.candidate_offset()
    past: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
    for race in range(block.num_races):
        expected = np.zeros((4, DELTA_WIDTH), dtype=np.float32)
        for back, delta in enumerate(past[:4]):
            expected[back] = delta
        np.testing.assert_array_equal(inputs.past_BPD[race].numpy(), expected)
        if block.outcome[race] != NO_OUTCOME:
            past.insert(0, deltas[first[race] + block.outcome[race]])


def test_what_was_not_proposed_yet_is_hidden(block: RaceBlock, vectors: FloatArray) -> None:
    inputs, targets = make_inputs(block, vectors, votes=np.ones(block.num_races, dtype=np.int64))
    proposed_B = (inputs.tokens_BL >> 12 == 0).sum(dim=1)
    assert (proposed_B < torch.from_numpy(block.num_candidates.astype(np.int64))).any()
    present_BC = torch.arange(4) < proposed_B[:, None]
    assert torch.equal(targets.present_BC, present_BC)
    assert torch.equal(inputs.headers_BCH[:, :, 0] == 1, present_BC)
    assert not inputs.headers_BCH[~present_BC].any()
    assert not inputs.deltas_BCD[~present_BC].any()
    assert inputs.deltas_BCD[present_BC].any(dim=1).all()


def test_targets_are_what_came_of_the_races(block: RaceBlock, vectors: FloatArray) -> None:
    _, targets = make_inputs(block, vectors, votes=block.num_votes.astype(np.int64))
    first, deltas = block.candidate_offset(), race_deltas(block, vectors)
    for race in range(block.num_races):
        valid = block.valid[first[race] : first[race + 1]]
        assert targets.valid_BC[race].tolist() == [bool(v) for v in valid] + [False] * (4 - len(valid))
        assert bool(targets.honest_B[race]) == bool(valid.all())
        finalised = block.outcome[race]
        expected = np.zeros(DELTA_WIDTH) if finalised == NO_OUTCOME else deltas[first[race] + finalised]
        np.testing.assert_array_equal(targets.delta_BD[race].numpy(), expected)
    assert torch.equal(targets.outcome_B, torch.from_numpy(block.outcome.astype(np.int64)))


def test_joined_batches_are_padded(block: RaceBlock, vectors: FloatArray) -> None:
    few = make_inputs(block, vectors, votes=np.ones(block.num_races, dtype=np.int64))
    all_votes = make_inputs(block, vectors, votes=block.num_votes.astype(np.int64))
    inputs, targets = join_inputs([few, all_votes])
    assert inputs.num_races == 2 * block.num_races == len(targets.outcome_B)
    length = few[0].tokens_BL.shape[1]
    assert torch.equal(inputs.tokens_BL[: block.num_races, :length], few[0].tokens_BL)
    assert (inputs.tokens_BL[: block.num_races, length:] == PAD_TOKEN).all()


def test_a_wider_table_is_refused(block: RaceBlock) -> None:
    with pytest.raises(ConfigError, match=r"^width of V is 513, expected a number in \[1, 512\]$"):
        race_deltas(block, np.zeros((32, 513)))
