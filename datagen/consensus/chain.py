"""A race, compiled: a continuous-time Markov chain over what every validator has seen and done.

A validator's hazards depend on its own state alone; what it votes for, on everybody's. So the next event is drawn from
the sum of the hazards (Gillespie's direct method), and only the hazard of who acted is computed again.

Source: Gillespie (1977), Exact stochastic simulation of coupled chemical reactions, J. Phys. Chem. 81, section III.
"""

import math
from typing import Any

import numpy as np

from datagen.consensus.parameters import (
    AGAINST,
    BAD,
    CONVICTED,
    EQUIVOCATES,
    EVIDENCE_RATE,
    FIRST_VOTE,
    GOOD,
    JUDGE_RATE,
    LAST,
    NOW,
    RECEIVED,
    ROUND,
    SECOND_RATE,
    SECOND_VOTE,
    UNDECIDED,
    VIEW,
)
from datagen.consensus.validators import (
    NOTHING,
    compiled,
    convict,
    dispute,
    disputes,
    judge,
    may_vote,
    pack,
    vote,
    vote_again,
)
from nerv_fl.quorum import NO_OUTCOME, PROPOSE, TIMEOUT

_ROUNDS = len(ROUND)


@compiled
def _rate(i: int, race: Any) -> float:
    """Return the sum of the hazards of a validator; the order is that of `_act`."""
    person, _, node, clock, _, _ = race
    p = person[i]
    if p.offline:
        return 0.0
    total = 0.0
    for c in range(clock[0].published):
        if not node[i, RECEIVED + c]:
            total += 1.0 / p.delay
        elif node[i, VIEW + c] == 0:
            total += JUDGE_RATE
        elif disputes(i, c, race):
            total += p.talk
    if may_vote(i, race):
        total += p.pace
    if p.role == EQUIVOCATES and node[i, FIRST_VOTE] >= 0 and not node[i, CONVICTED]:
        total += SECOND_RATE if node[i, SECOND_VOTE] < 0 else EVIDENCE_RATE
    return total


@compiled
def _act(i: int, at: float, race: Any, rng: np.random.Generator) -> int:
    """Do what falls at ``at``, below the validator's rate; return the token of what others see, or `NOTHING`."""
    person, candidate, node, clock, _, _ = race
    p = person[i]
    for c in range(clock[0].published):
        if not node[i, RECEIVED + c]:
            at -= 1.0 / p.delay
            if at < 0.0:
                node[i, RECEIVED + c] = 1
                return NOTHING
        elif node[i, VIEW + c] == 0:
            at -= JUDGE_RATE
            if at < 0.0:
                node[i, VIEW + c] = judge(p, candidate[c].valid, rng.random())
                return NOTHING
        elif disputes(i, c, race):
            at -= p.talk
            if at < 0.0:
                return dispute(i, c, race)
    if may_vote(i, race):
        at -= p.pace
        if at < 0.0:
            return vote(i, race)
    if node[i, SECOND_VOTE] < 0:
        return vote_again(i, race, rng)
    return convict(i, race)


@compiled
def _all_rates(race: Any) -> None:
    clock, rates = race[3], race[5]
    for i in range(clock[0].validators):
        rates[i] = _rate(i, race)


@compiled
def _publish(race: Any) -> int:
    person, candidate, _, clock, _, _ = race
    c = clock[0].published
    clock[0].published = c + 1
    clock[0].time = max(clock[0].time, candidate[c].publish)
    proposer = candidate[c].proposer
    race[2][proposer, RECEIVED + c] = 1
    # Who votes against the evidence knows what it proposed; others stand by their own.
    knows = person[proposer].role == AGAINST and not candidate[c].valid
    race[2][proposer, VIEW + c] = BAD if knows else GOOD
    _all_rates(race)
    return pack(PROPOSE, c, person[proposer].weight, proposer)


@compiled
def _end_round(race: Any) -> int:
    _, _, node, clock, tally, _ = race
    clock[0].time = clock[0].deadline
    clock[0].rounds += 1
    if clock[0].rounds == _ROUNDS:
        clock[0].winner = NO_OUTCOME
        return pack(TIMEOUT, 0, 0.0, 0)
    clock[0].deadline += ROUND[clock[0].rounds]
    node[:, FIRST_VOTE] = -1
    node[:, SECOND_VOTE] = -1
    tally[LAST] = tally[NOW]
    tally[NOW] = 0.0
    _all_rates(race)
    return pack(TIMEOUT, 0, 0.0, 0)


@compiled
def next_event(race: Any, rng: np.random.Generator) -> int:
    """Advance a race by one event.

    Args:
        race: (persons, candidates, node state, clock, tally, rates), changed in place.
        rng: What follows from.

    Returns:
        Its token, or `NOTHING` if others see nothing.
    """
    candidate, clock, rates = race[1], race[3], race[5]
    total = 0.0
    for i in range(clock[0].validators):
        total += rates[i]
    waits = -math.log1p(-rng.random()) / total if total > 0.0 else np.inf
    at = clock[0].time + waits
    published = clock[0].published
    if published < clock[0].candidates and candidate[published].publish < min(at, clock[0].deadline):
        return _publish(race)
    if at >= clock[0].deadline:
        return _end_round(race)
    clock[0].time = at
    lot = rng.random() * total
    chosen = clock[0].validators - 1
    for i in range(clock[0].validators):
        if lot < rates[i]:
            chosen = i
            break
        lot -= rates[i]
    token = _act(chosen, min(lot, rates[chosen] * (1.0 - 1e-12)), race, rng)
    rates[chosen] = _rate(chosen, race)
    return token


@compiled
def play(race: Any, tokens: Any, count: int, stop_votes: int, rng: np.random.Generator) -> int:
    """Play a race until it is decided or has ``stop_votes`` votes; return how many tokens there are then.

    They are written from ``count`` on, or nowhere if there is no room at all.
    """
    clock = race[3]
    while clock[0].winner == UNDECIDED and clock[0].votes < stop_votes:
        token = next_event(race, rng)
        if token != NOTHING:
            if len(tokens):
                tokens[count] = token
            count += 1
    return count
