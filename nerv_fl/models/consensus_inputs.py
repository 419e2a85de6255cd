"""What the predictor is given of a race: the events so far, the candidates' headers, and their deltas under an encoder.

A delta has 512 numbers: those of the encoder's table V, padded with zeros where V is narrower, and last the supply
coordinate, (minted - burned) / T, which is that of a table whose every row ends in the same 1. At width 512 it takes
the place of V's last coordinate.

Shapes: B races, L events at most, C = 4 candidates, P = 4 past batches, D = 512, H = 5 header fields, N candidates of
all races.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nerv_fl.data import Batches
from nerv_fl.data.consensus_schema import RaceBlock
from nerv_fl.models.homomorphism import batch_delta
from nerv_fl.quorum import MAX_CANDIDATES, NO_OUTCOME, PAD_TOKEN, PAST, VOTE, Standing, standing
from nerv_fl.types import FloatArray, IntArray
from nerv_fl.validation import in_range

DELTA_WIDTH: Final = 512
HEADER: Final = ("present", "priority", "transactions", "energy", "minted")
"""1 if it was proposed; its rank over 4; and what its header announces: transactions over 256, energy, net mint."""


@dataclass(frozen=True, kw_only=True)
class RaceInputs:
    """Tensors of B races.

    Attributes:
        tokens_BL: int64, padded with `PAD_TOKEN`.
        headers_BCH: float32; zeros where there is no candidate yet.
        deltas_BCD: float32, of each candidate's batch.
        past_BPD: float32, of the batches finalised before, the newest first; zeros where there is none.
    """

    tokens_BL: Tensor
    headers_BCH: Tensor
    deltas_BCD: Tensor
    past_BPD: Tensor

    @property
    def num_races(self) -> int:
        """B."""
        return self.tokens_BL.shape[0]


@dataclass(frozen=True, kw_only=True)
class RaceTargets:
    """What came of B races.

    Attributes:
        outcome_B: int64, a candidate or `NO_OUTCOME`.
        valid_BC: bool.
        present_BC: bool, the candidates proposed so far: validity is asked of these.
        honest_B: bool, whether every candidate of the race is valid.
        delta_BD: float32, of the batch that was finalised; zeros where none was.
    """

    outcome_B: Tensor
    valid_BC: Tensor
    present_BC: Tensor
    honest_B: Tensor
    delta_BD: Tensor


def event_stops(block: RaceBlock, votes: IntArray) -> IntArray:
    """Return how many events of each race a node has seen after some votes.

    Args:
        block: The races.
        votes: int64 [R], from 0 on; all votes of a race or more mean all its events, the last timeout included.

    Returns:
        int64 [R].
    """
    offset = block.event_offset()
    is_vote = (block.token >> 12) == VOTE
    done = np.concatenate([[0], np.cumsum(is_vote)])
    place = np.maximum(np.searchsorted(done, done[offset[:-1]] + votes, side="left") - offset[:-1], 0)
    return np.where(votes >= block.num_votes, block.num_events, place).astype(np.int64)


def standings(block: RaceBlock, votes: IntArray) -> list[Standing]:
    """Return where each race stands for a node that has seen some votes: int64 [R], as in `event_stops`.

    Raises:
        DataError: If the events of a race break the rule.
    """
    offset, stops = block.event_offset()[:-1], event_stops(block, votes)
    return [
        standing(block.token[begin : begin + stop], weight)
        for begin, stop, weight in zip(offset, stops, block.weight, strict=True)
    ]


def race_deltas(block: RaceBlock, table_AD: FloatArray) -> npt.NDArray[np.float32]:
    """Return the delta of each candidate's batch, float32 [N, 512].

    Args:
        block: The races.
        table_AD: float64, V; at most 512 wide.

    Raises:
        ConfigError: If V is wider.
    """
    in_range("width of V", table_AD.shape[1], low=1, high=DELTA_WIDTH)
    wide_AD = np.zeros((len(table_AD), DELTA_WIDTH))
    wide_AD[:, : table_AD.shape[1]] = table_AD
    wide_AD[:, -1] = 1.0
    batches = Batches(
        kind=block.kind,
        sender=block.sender,
        receiver=block.receiver,
        amount_nano=block.amount_nano,
        offset=block.tx_offset(),
    )
    supply = np.full(len(block.valid), block.supply_nano, dtype=np.int64)
    return batch_delta(batches, supply, wide_AD).astype(np.float32)


def make_inputs(block: RaceBlock, table_AD: FloatArray, *, votes: IntArray) -> tuple[RaceInputs, RaceTargets]:
    """Return what a node has of the races of a shard after some votes, and what came of them.

    Args:
        block: The races, one after another.
        table_AD: float64, V.
        votes: int64 [R], the votes it has seen of each.
    """
    tokens = _tokens(block, event_stops(block, votes))
    row_BC, published_BC = _candidates(block, tokens)
    deltas_ND = race_deltas(block, table_AD)
    valid_BC = (block.valid[row_BC] == 1) & (np.arange(MAX_CANDIDATES) < block.num_candidates[:, None])
    first = block.candidate_offset()[:-1]
    inputs = RaceInputs(
        tokens_BL=torch.from_numpy(tokens),
        headers_BCH=torch.from_numpy(_headers(block, row_BC, published_BC)),
        deltas_BCD=torch.from_numpy(np.where(published_BC[:, :, None], deltas_ND[row_BC], np.float32(0))),
        past_BPD=torch.from_numpy(_past(block, first, deltas_ND)),
    )
    targets = RaceTargets(
        outcome_B=torch.from_numpy(block.outcome.astype(np.int64)),
        valid_BC=torch.from_numpy(valid_BC),
        present_BC=torch.from_numpy(published_BC),
        honest_B=torch.from_numpy(valid_BC.sum(axis=1) == block.num_candidates),
        delta_BD=torch.from_numpy(_finalised(block, first, deltas_ND)),
    )
    return inputs, targets


def join_inputs(parts: list[tuple[RaceInputs, RaceTargets]]) -> tuple[RaceInputs, RaceTargets]:
    """Return one batch of several."""
    longest = max(inputs.tokens_BL.shape[1] for inputs, _ in parts)
    padded = [
        torch.nn.functional.pad(inputs.tokens_BL, (0, longest - inputs.tokens_BL.shape[1]), value=PAD_TOKEN)
        for inputs, _ in parts
    ]
    names = ("headers_BCH", "deltas_BCD", "past_BPD")
    joined = {name: torch.cat([getattr(inputs, name) for inputs, _ in parts]) for name in names}
    answers = ("outcome_B", "valid_BC", "present_BC", "honest_B", "delta_BD")
    targets = {name: torch.cat([getattr(found, name) for _, found in parts]) for name in answers}
    return RaceInputs(tokens_BL=torch.cat(padded), **joined), RaceTargets(**targets)


def _tokens(block: RaceBlock, stops: IntArray) -> IntArray:
    offset, longest = block.event_offset()[:-1], max(1, int(stops.max()))
    at = np.arange(longest)
    seen = at < stops[:, None]
    place = np.minimum(offset[:, None] + at, len(block.token) - 1)
    return np.where(seen, block.token[place].astype(np.int64), PAD_TOKEN)


def _candidates(block: RaceBlock, tokens_BL: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Return the row of each candidate, clipped to those there are, and which of them were proposed, [B, 4] each."""
    published = (tokens_BL >> 12 == 0).sum(axis=1)
    slot = np.arange(MAX_CANDIDATES)
    row = block.candidate_offset()[:-1, None] + np.minimum(slot, block.num_candidates[:, None] - 1)
    return row, slot < published[:, None]


def _headers(block: RaceBlock, row_BC: IntArray, published_BC: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    fields = (
        np.ones(row_BC.shape),
        block.priority[row_BC] / MAX_CANDIDATES,
        block.announced_transactions[row_BC] / 256.0,
        block.announced_energy[row_BC],
        block.announced_minted[row_BC],
    )
    return np.where(published_BC[:, :, None], np.stack(fields, axis=2), 0.0).astype(np.float32)


def _finalised(block: RaceBlock, first: IntArray, deltas_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    decided = block.outcome != NO_OUTCOME
    row_B = first + np.where(decided, block.outcome, 0)
    return np.where(decided[:, None], deltas_ND[row_B], np.float32(0))


def _past(block: RaceBlock, first: IntArray, deltas_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the deltas of the last batches finalised before each race, [B, P, D]."""
    past = np.zeros((block.num_races, PAST, DELTA_WIDTH), dtype=np.float32)
    decided = np.flatnonzero(block.outcome != NO_OUTCOME)
    rows = first[decided] + block.outcome[decided]
    before = np.searchsorted(decided, np.arange(block.num_races))
    for back in range(PAST):
        known = before - 1 - back >= 0
        past[known, back] = deltas_ND[rows[(before - 1 - back)[known]]]
    return past
