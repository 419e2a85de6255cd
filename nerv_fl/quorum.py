"""Consensus races: what nodes see of one, and the exact quorum rule. Facts every other part agrees on.

Candidates of one mempool race for the next block. Validators vote with their reputation; what happens is a sequence of
events, each a token of 16 bits: kind (3), candidate (2), reputation bucket (4), validator (6), the last one lowest.
Nothing in a token tells who is honest.

The rule: in each of three rounds the first vote of a validator counts, unless evidence shows that it voted twice; then
its vote of the round is void, and it votes no more. A candidate is finalised by the vote that brings it 67 % of the
reputation of all validators of the race; after three timeouts none is.

Source: NERV whitepaper v1.01, section 2.3 (prediction before the vote, weights by reputation, 67 %); rounds and
evidence are ours, since it leaves them open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nerv_fl.errors import DataError
from nerv_fl.types import IntArray

MIN_VALIDATORS: Final = 24
MAX_VALIDATORS: Final = 64
MAX_CANDIDATES: Final = 4
MAX_EVENTS: Final = 512
MAX_WEIGHT: Final = 1000
"""Reputation is an integer, 1 to 1,000, so that the rule is exact."""
NUM_BUCKETS: Final = 16
ROUNDS: Final = 3
QUORUM: Final = (67, 100)
NO_OUTCOME: Final = MAX_CANDIDATES
"""The outcome of a race in which every round passed without a quorum."""
PAST: Final = 4
"""Finalised batches before a race that a node still compares with."""

PROPOSE, VOTE, DISPUTE, EVIDENCE, TIMEOUT = range(5)
EVENTS: Final = ("propose", "vote", "dispute", "evidence", "timeout")
"""Evidence names a validator that voted twice, and its first vote. A timeout ends a round; its other fields are 0."""
PAD_TOKEN: Final = 2**16 - 1
CUTS: Final = (0.25, 0.50, 0.75, 1.00)
"""Parts of a race's votes at which predictions are compared."""
DISPUTED: Final = 0.2
"""Part of the reputation whose disputes make a candidate invalid, for who has no better rule."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a race stands after some events.

    Attributes:
        outcome: A candidate, `NO_OUTCOME`, or None while it is open.
        rounds: Rounds that timed out.
        published: Candidates proposed so far.
        now: int64 [4], reputation of the votes that count in this round.
        voters: int64 [4], their number.
        before: int64 [4], reputation of those of the round before.
        disputed: int64 [4], reputation of who disputed.
        disputes: int64 [4], their number.
        convicted: Validators that were shown to have voted twice.
        total: Reputation of all validators.
    """

    outcome: int | None
    rounds: int
    published: int
    now: IntArray
    voters: IntArray
    before: IntArray
    disputed: IntArray
    disputes: IntArray
    convicted: int
    total: int

    @property
    def leader(self) -> int:
        """The candidate with most reputation in this round and the one before; the first of equals."""
        return int((self.now + self.before).argmax())

    @property
    def majority(self) -> int:
        """The candidate with most votes in this round; of equals, the one with more reputation in the one before."""
        return int((self.voters + self.before / (self.total + 1)).argmax())


def unpack(token: npt.NDArray[np.uint16]) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Return kind, candidate, reputation bucket and validator of tokens, int64 each.

    >>> [int(part[0]) for part in unpack(np.array([VOTE << 12 | 2 << 10 | 15 << 6 | 63], dtype=np.uint16))]
    [1, 2, 15, 63]
    """
    wide = token.astype(np.int64)
    return wide >> 12, wide >> 10 & 3, wide >> 6 & 15, wide & 63


def bucket_of(weight: npt.NDArray[np.uint16]) -> IntArray:
    """Return the reputation bucket, 0 to 15, of weights 1 to 1,000."""
    return weight.astype(np.int64) * NUM_BUCKETS // (MAX_WEIGHT + 1)


def votes_at(num_votes: npt.NDArray[np.uint16], cuts: Sequence[float]) -> IntArray:
    """Return how many votes of races have been cast at each cut, int64 [R, K]: ceil(cut x votes).

    >>> votes_at(np.array([8, 5], dtype=np.uint16), (0.25, 1.0)).tolist()
    [[2, 8], [2, 5]]
    """
    return np.asarray(np.ceil(num_votes.astype(np.float64)[:, None] * np.array(cuts) - 1e-9), dtype=np.int64)


def standing(token: npt.NDArray[np.uint16], weight: npt.NDArray[np.uint16]) -> Standing:
    """Apply the rule to the events of a race.

    What is said twice counts once: a repeated vote, dispute, proposal or conviction changes nothing, nor does evidence
    against a validator that has not voted for two candidates in this round. So nobody gains by repeating itself.

    Args:
        token: uint16 [E], in order.
        weight: uint16 [64], reputation of each validator; 0 beyond their number.

    Returns:
        Where the race stands after them.

    Raises:
        DataError: If an event cannot stand where it does, such as a vote for a candidate that was not proposed.
    """
    count = _Count(weight.astype(np.int64))
    for at, (kind, candidate, _, validator) in enumerate(zip(*(part.tolist() for part in unpack(token)), strict=True)):
        if count.outcome is not None:
            raise DataError(f"event {at} follows the outcome {count.outcome}, expected none")
        known = count.published + (kind == PROPOSE)
        if kind != TIMEOUT and (kind > TIMEOUT or not count.weight[validator] or candidate >= known):
            raise DataError(
                f"event {at} is token {int(token[at])}, expected one of a validator and a candidate there is"
            )
        count.add(kind, candidate, validator)
    return count.standing()


class _Count:
    """The count of one race, event after event."""

    def __init__(self, weight: IntArray) -> None:
        self.weight = weight.tolist()
        self.total = int(weight.sum())
        self.outcome: int | None = None
        self.rounds = self.published = 0
        self.vote: dict[int, int] = {}
        self.twice: set[int] = set()
        self.convicted: set[int] = set()
        self.said: set[tuple[int, int]] = set()
        self.now, self.voters, self.before, self.disputed, self.disputes = ([0] * MAX_CANDIDATES for _ in range(5))

    def add(self, kind: int, candidate: int, validator: int) -> None:
        if kind == PROPOSE:
            self.published = max(self.published, candidate + 1)
        elif kind == VOTE:
            self._vote(candidate, validator)
        elif kind == DISPUTE and (candidate, validator) not in self.said:
            self.said.add((candidate, validator))
            self.disputed[candidate] += self.weight[validator]
            self.disputes[candidate] += 1
        elif kind == EVIDENCE and validator in self.twice:
            self.twice.remove(validator)
            self.convicted.add(validator)
            self.now[self.vote[validator]] -= self.weight[validator]
            self.voters[self.vote[validator]] -= 1
        elif kind == TIMEOUT:
            self.rounds += 1
            self.outcome = NO_OUTCOME if self.rounds == ROUNDS else None
            self.vote, self.twice, self.before = {}, set(), self.now
            self.now, self.voters = [0] * MAX_CANDIDATES, [0] * MAX_CANDIDATES

    def standing(self) -> Standing:
        names = ("now", "voters", "before", "disputed", "disputes")
        return Standing(
            outcome=self.outcome,
            rounds=self.rounds,
            published=self.published,
            convicted=len(self.convicted),
            total=self.total,
            **{name: np.array(getattr(self, name), dtype=np.int64) for name in names},
        )

    def _vote(self, candidate: int, validator: int) -> None:
        if validator in self.convicted:
            return
        if validator in self.vote:
            if candidate != self.vote[validator]:
                self.twice.add(validator)
            return
        self.vote[validator] = candidate
        self.now[candidate] += self.weight[validator]
        self.voters[candidate] += 1
        if self.now[candidate] * QUORUM[1] >= QUORUM[0] * self.total:
            self.outcome = candidate
