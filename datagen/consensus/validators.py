"""What a validator of a race can do, compiled: judge, dispute, vote, vote twice, and be convicted of it.

A race is a tuple of arrays, changed in place: (persons, candidates, node state, clock, tally, rates); see `cast`.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from datagen.consensus.parameters import (
    AGAINST,
    AGAINST_IT,
    BAD,
    CONVICTED,
    ERROR,
    FIRST_VOTE,
    GOOD,
    HAS_DISPUTED,
    HONEST,
    LAG_DOUBTS,
    LAG_MISSES,
    LAST,
    LATE,
    NOW,
    RUNNER_UP,
    SECOND_VOTE,
    VIEW,
)
from nerv_fl import quorum as races
from nerv_fl.quorum import MAX_WEIGHT, NUM_BUCKETS, QUORUM

F = TypeVar("F", bound=Callable[..., Any])

_VOTE, _DISPUTE, _EVIDENCE = races.VOTE, races.DISPUTE, races.EVIDENCE
_SHARE, _WHOLE = QUORUM
_BUCKET = MAX_WEIGHT + 1
_BEYOND = 1e6  # more than all reputation
NOTHING = -1


def compiled(function: F) -> F:
    """Compile a function, once for all processes."""
    return cast("F", numba.njit(cache=True)(function))


@compiled
def pack(kind: int, candidate: int, weight: float, validator: int) -> int:
    """Return the token of an event; see `nerv_fl.quorum`."""
    return kind << 12 | int(candidate) << 10 | (int(weight) * NUM_BUCKETS // _BUCKET) << 6 | validator


@compiled
def below(limit: int, rng: np.random.Generator) -> int:
    """Return an integer from 0 up to, not including, a limit."""
    return min(int(rng.random() * limit), limit - 1)


@compiled
def disputes(i: int, c: int, race: Any) -> bool:
    """Whether a validator is yet to dispute a candidate: one it judged invalid, or, against the evidence, valid.

    Nobody disputes its own candidate: that would tell the Byzantine proposers from the others.
    """
    person, candidate, node, _, _, _ = race
    wrong = GOOD if person[i].role == AGAINST else BAD
    open_to_it = candidate[c].proposer != i and not node[i, HAS_DISPUTED + c] and person[i].talk > 0.0
    return open_to_it and node[i, VIEW + c] == wrong


@compiled
def may_vote(i: int, race: Any) -> bool:
    """Whether a validator may vote: once a round, first for what it finds valid, later also as others do."""
    _, _, node, clock, _, _ = race
    if node[i, FIRST_VOTE] >= 0 or node[i, CONVICTED]:
        return False
    if clock[0].rounds > 0:
        return True
    found = False
    for c in range(clock[0].published):
        found |= node[i, VIEW + c] == GOOD
    return found


@compiled
def judge(p: Any, valid: int, lot: float) -> int:
    """Return how a validator judges a candidate; those with a plan know the truth."""
    wrong = 0.0
    if p.role == HONEST:
        wrong = ERROR if not p.lagging else (LAG_DOUBTS if valid else LAG_MISSES)
    return GOOD if (valid == 1) != (lot < wrong) else BAD


@compiled
def dispute(i: int, c: int, race: Any) -> int:
    """Dispute a candidate."""
    person, _, node, _, tally, _ = race
    node[i, HAS_DISPUTED + c] = 1
    tally[AGAINST_IT, c] += person[i].weight
    return pack(_DISPUTE, c, person[i].weight, i)


@compiled
def _choice(i: int, race: Any) -> int:
    """Return the candidate a validator would vote for now, or `NOTHING`."""
    person, candidate, node, clock, tally, _ = race
    best, best_key, leader, leader_weight = NOTHING, 0.0, NOTHING, 0.0
    against, late = person[i].role == AGAINST, person[i].role == LATE
    for c in range(clock[0].published):
        weight = tally[LAST, c] + tally[NOW, c]
        if weight > leader_weight:
            leader, leader_weight = c, weight
        if node[i, VIEW + c] == 0:
            continue
        if against:  # an invalid one first, then the one with least support
            key = _BEYOND * (node[i, VIEW + c] == BAD) - weight
        elif late:
            key = -abs(weight - RUNNER_UP * clock[0].total)
        elif clock[0].rounds == 0:
            key = -1.0 * candidate[c].priority
        else:
            key = weight - person[i].stubborn * clock[0].total * candidate[c].priority
        if (against or node[i, VIEW + c] == GOOD) and (best == NOTHING or key > best_key):
            best, best_key = c, key
    # Who is behind follows a majority that few dispute.
    follows = clock[0].rounds > 0 and person[i].role == HONEST and leader not in (NOTHING, best)
    if follows and 2 * tally[NOW, leader] > clock[0].total and 3 * tally[AGAINST_IT, leader] < clock[0].total:
        return leader
    return best


@compiled
def vote(i: int, race: Any) -> int:
    """Vote, if there is a candidate to vote for; 67 % of the reputation decide the race."""
    person, _, node, clock, tally, _ = race
    c = _choice(i, race)
    if c == NOTHING:
        return NOTHING
    node[i, FIRST_VOTE] = c
    tally[NOW, c] += person[i].weight
    clock[0].votes += 1
    if tally[NOW, c] * _WHOLE >= _SHARE * clock[0].total:
        clock[0].winner = c
    return pack(_VOTE, c, person[i].weight, i)


@compiled
def vote_again(i: int, race: Any, rng: np.random.Generator) -> int:
    """Vote for another candidate too; the first vote is the one that counts."""
    person, _, node, clock, _, _ = race
    others = clock[0].published - 1
    if others == 0:
        return NOTHING
    c = (node[i, FIRST_VOTE] + 1 + below(others, rng)) % clock[0].published
    node[i, SECOND_VOTE] = c
    clock[0].votes += 1
    return pack(_VOTE, c, person[i].weight, i)


@compiled
def convict(i: int, race: Any) -> int:
    """Show that a validator voted twice: its vote of this round is void, and it votes no more."""
    person, _, node, _, tally, _ = race
    node[i, CONVICTED] = 1
    tally[NOW, node[i, FIRST_VOTE]] -= person[i].weight
    return pack(_EVIDENCE, node[i, FIRST_VOTE], person[i].weight, i)
