"""The races of one shard, block after block, compiled around `chain` and `candidates`."""

import math
from typing import Any, Final

import numpy as np

from datagen.consensus.candidates import announce, choose, tamper
from datagen.consensus.chain import play
from datagen.consensus.parameters import (
    AGAINST,
    BYZANTINE,
    CANDIDATE,
    CAREFUL,
    CLOCK,
    DELAY,
    FIRST_VOTE,
    LAGGING,
    LATE,
    LATE_PACE,
    NODE_SHAPE,
    OFFLINE,
    PACE,
    PERSON,
    PUBLISH_MEAN,
    RANK_GAP,
    ROUND,
    SECOND_VOTE,
    STUBBORN,
    TALK_RATE,
    TALKERS,
    TALLY_SHAPE,
    TAMPERING,
    UNDECIDED,
)
from datagen.consensus.validators import below, compiled
from nerv_fl.data import ChainBlock
from nerv_fl.data.consensus_schema import CANDIDATE_COLUMNS, RACE_COLUMNS, TX_COLUMNS, RaceBlock
from nerv_fl.quorum import (
    MAX_CANDIDATES,
    MAX_EVENTS,
    MAX_VALIDATORS,
    MAX_WEIGHT,
    MIN_VALIDATORS,
    NO_OUTCOME,
    PAST,
)
from nerv_fl.rng import stream
from nerv_fl.types import FloatArray, IntArray

MANY: Final = 2**31


@compiled
def _draw_people(race: Any, rng: np.random.Generator) -> None:
    """Draw the validators of a race; a Byzantine one has a plan."""
    person, clock = race[0], race[3]
    n = MIN_VALIDATORS + below(MAX_VALIDATORS - MIN_VALIDATORS + 1, rng)
    part = BYZANTINE[0] + (BYZANTINE[1] - BYZANTINE[0]) * rng.random()
    total = 0.0
    for i in range(n):
        p = person[i]
        p.weight = math.floor(MAX_WEIGHT * min(1.0, 0.05 + 0.95 * math.sqrt(rng.random()) * (0.6 + 0.4 * rng.random())))
        p.role = AGAINST + below(LATE, rng) if rng.random() < part else 0
        p.lagging = rng.random() < LAGGING
        p.offline = rng.random() < OFFLINE
        p.delay = DELAY[0] * math.exp(DELAY[1] * rng.standard_normal())
        p.pace = PACE[0] * math.exp(PACE[1] * rng.standard_normal()) * (LATE_PACE if p.role == LATE else 1.0)
        p.stubborn = STUBBORN * rng.random() ** 2
        p.talk = TALK_RATE if rng.random() < TALKERS else 0.0
        total += p.weight
    clock[0].validators, clock[0].total = n, total


@compiled
def _draw_proposers(race: Any, rng: np.random.Generator) -> None:
    """Draw who proposes: by reputation, each once; the better the priority the earlier, mostly."""
    person, candidate, _, clock, _, _ = race
    count = 2 + below(MAX_CANDIDATES - 1, rng)
    clock[0].candidates = count
    for c in range(count):
        proposer, fresh = 0, False
        while not fresh:
            lot = rng.random() * clock[0].total
            for i in range(clock[0].validators):
                proposer = i
                lot -= person[i].weight
                if lot < 0.0:
                    break
            fresh = True
            for other in range(c):
                fresh = fresh and candidate[other].proposer != proposer
        at = RANK_GAP * c - PUBLISH_MEAN * math.log1p(-rng.random())
        place = c
        while place > 0 and candidate[place - 1].publish > at:
            candidate[place] = candidate[place - 1]
            place -= 1
        candidate[place].publish, candidate[place].priority = at, c
        candidate[place].proposer = proposer
    for c in range(count - 1, -1, -1):
        candidate[c].publish -= candidate[0].publish


@compiled
def _begin(race: Any, rng: np.random.Generator) -> None:
    """Draw a race that has not begun."""
    _, _, node, clock, tally, rates = race
    _draw_people(race, rng)
    _draw_proposers(race, rng)
    node[:] = 0
    node[:, FIRST_VOTE] = -1
    node[:, SECOND_VOTE] = -1
    tally[:] = 0.0
    rates[:] = 0.0
    clock[0].time, clock[0].rounds, clock[0].deadline = 0.0, 0, ROUND[0]
    clock[0].published, clock[0].winner, clock[0].votes = 0, UNDECIDED, 0


@compiled
def _make_batches(race: Any, pool: Any, world: Any, record: Any, rng: np.random.Generator) -> int:
    """Write the candidates of a race; return where the transactions end."""
    person, candidate, clock = race[0], race[1], race[3]
    columns, out = record
    place, past, first_candidate, first = world[0], world[1], world[2], int(world[3])
    for c in range(clock[0].candidates):
        row, proposer = first_candidate + c, candidate[c].proposer
        last = choose(pool, out, first, rng)
        header = announce(out, first, last, place[0])
        way, careful = 0, False
        if person[proposer].role != 0 and rng.random() < TAMPERING:
            way, last = tamper(out, (first, last), place, past, rng)
            careful = rng.random() < CAREFUL
        if careful:
            header = announce(out, first, last, place[0])
        candidate[c].valid = way == 0
        columns[0][row], columns[1][row], columns[2][row] = way == 0, way, careful
        columns[3][row], columns[4][row] = proposer, candidate[c].priority
        columns[5][row], columns[6][row] = last - first, header[0]
        columns[7][row], columns[8][row] = header[1], header[2]
        first = last
    return first


@compiled
def _remember(past: Any, begin: int, end: int) -> None:
    past[1:] = past[:-1].copy()
    past[0, 0], past[0, 1] = begin, end


@compiled
def _outcomes(race: Any, copies: Any, chances: Any, rollouts: int, rng: np.random.Generator) -> None:
    """Continue a race many times from where it stands; fill ``chances`` with the part of each outcome."""
    _, _, node, clock, tally, rates = race
    kept_node, kept_clock, kept_tally, kept_rates, no_tokens = copies
    kept_node[:], kept_clock[:], kept_tally[:], kept_rates[:] = node, clock, tally, rates
    chances[:] = 0.0
    for _ in range(rollouts):
        play(race, no_tokens, 0, MANY, rng)
        chances[clock[0].winner] += 1.0 / rollouts
        node[:], clock[:], tally[:], rates[:] = kept_node, kept_clock, kept_tally, kept_rates


@compiled
def _shard(shard: Any, race: Any, record: Any, oracle: Any, rng: np.random.Generator) -> tuple[int, int, int]:
    """Play all races of a shard; return the numbers of candidates, transactions and events."""
    pool, offset, place = shard
    races, columns, out, tokens = record
    copies, chances, stops, rollouts, aside = oracle
    past, num_past = np.zeros((PAST, 2), dtype=np.int64), 0
    first_candidate, first, count = 0, 0, 0
    for r in range(len(offset) - 1):
        span = (
            pool[0][offset[r] : offset[r + 1]],
            pool[1][offset[r] : offset[r + 1]],
            pool[2][offset[r] : offset[r + 1]],
            pool[3][offset[r] : offset[r + 1]],
        )
        _begin(race, rng)
        world = (place, past[:num_past], first_candidate, first)
        last = _make_batches(race, span, world, (columns, out), rng)
        begun = count
        for cut in range(stops.shape[1]):
            count = play(race, tokens, count, stops[r, cut], rng)
            _outcomes(race, copies, chances[r, cut], rollouts, aside)
        count = play(race, tokens, count, MANY, rng)
        clock = race[3][0]
        races[0][r], races[1][r], races[2][r] = clock.winner, clock.validators, count - begun
        races[3][r], races[4][r] = clock.votes, clock.candidates
        for i in range(clock.validators):
            races[5][r, i] = race[0][i].weight
        if clock.winner != NO_OUTCOME:
            begin = first
            for c in range(clock.winner):
                begin += columns[5][first_candidate + c]
            _remember(past, begin, begin + columns[5][first_candidate + clock.winner])
            num_past = min(num_past + 1, PAST)
        first_candidate += clock.candidates
        first = last
    return first_candidate, first, count


def simulate(seed: int, shard: int, *, pool: ChainBlock) -> RaceBlock:
    """Play the races of a shard.

    Args:
        seed: Seed of the data set.
        shard: Number of the shard.
        pool: Its ledger, one chain; the batch of each step is the mempool of a race.

    Returns:
        Its races.
    """
    block, _ = _play(seed, shard, pool=pool, stops=np.zeros((pool.counts.shape[1], 0), dtype=np.int64), rollouts=0)
    return block


def continued(
    seed: int, shard: int, *, pool: ChainBlock, votes: IntArray, rollouts: int
) -> tuple[RaceBlock, FloatArray]:
    """Estimate how likely each outcome of a race is, for one who knows the hidden state.

    Args:
        seed: Seed of the data set.
        shard: Number of the shard.
        pool: Its ledger, one chain.
        votes: int64 [R, K], numbers of votes after which to continue, rising in each row; more than a race has mean its
            end, a last timeout included.
        rollouts: Continuations from each.

    Returns:
        The races, as `simulate` plays them, and float64 [R, K, 5], the part of the continuations that end in each
        outcome.
    """
    return _play(seed, shard, pool=pool, stops=votes, rollouts=rollouts)


def _play(seed: int, shard: int, *, pool: ChainBlock, stops: IntArray, rollouts: int) -> tuple[RaceBlock, FloatArray]:
    num_races, most = pool.counts.shape[1], int(pool.counts.max())
    races = _columns(RACE_COLUMNS, num_races)
    races["weight"] = np.zeros((num_races, MAX_VALIDATORS), dtype=np.uint16)
    candidates = _columns(CANDIDATE_COLUMNS, num_races * MAX_CANDIDATES)
    out = _columns(TX_COLUMNS, num_races * MAX_CANDIDATES * (2 * most + 1))
    tokens = np.empty(num_races * MAX_EVENTS, dtype=np.uint16)
    state = (np.zeros(NODE_SHAPE, np.int8), _records(1, CLOCK), np.zeros(TALLY_SHAPE), np.zeros(MAX_VALIDATORS))
    race = (_records(MAX_VALIDATORS, PERSON), _records(MAX_CANDIDATES, CANDIDATE), *state)
    chances = np.zeros((num_races, stops.shape[1], NO_OUTCOME + 1))
    copies = (*(part.copy() for part in state), np.empty(0, dtype=np.uint16))
    offset = np.concatenate([[0], np.cumsum(pool.counts[0])]).astype(np.int64)
    supply = int(pool.supply_nano[0])
    num_candidates, num_transactions, num_events = _shard(
        (pool.columns(), offset, (float(supply), pool.balances.shape[2])),
        race,
        (tuple(races.values()), tuple(candidates.values()), tuple(out.values()), tokens),
        (copies, chances, stops, rollouts, stream(seed, "consensus", shard, "continued")),
        stream(seed, "consensus", shard),
    )
    block = RaceBlock(
        supply_nano=supply,
        token=tokens[:num_events].copy(),
        **races,
        **{name: values[:num_candidates].copy() for name, values in candidates.items()},
        **{name: values[:num_transactions].copy() for name, values in out.items()},
    )
    return block, chances


def _records(length: int, dtype: np.dtype[Any]) -> Any:
    """Return zeros whose fields are attributes, compiled or not."""
    return np.zeros(length, dtype).view(np.recarray)


def _columns(types: Any, length: int) -> dict[str, Any]:
    return {name: np.zeros(length, dtype=dtype) for name, dtype in types.items()}
