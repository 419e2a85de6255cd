import numpy as np
import numpy.typing as npt
import pytest

from nerv_fl.errors import DataError
from nerv_fl.quorum import (
    DISPUTE,
    EVIDENCE,
    NO_OUTCOME,
    PROPOSE,
    TIMEOUT,
    VOTE,
    bucket_of,
    standing,
    unpack,
)

Tokens = npt.NDArray[np.uint16]
Weights = npt.NDArray[np.uint16]


def tokens(*events: tuple[int, int, int]) -> Tokens:
    """Pack events (kind, candidate, validator); the rule does not look at buckets."""
    return np.array(
        [kind << 12 | candidate << 10 | validator for kind, candidate, validator in events], dtype=np.uint16
    )


def weights(*values: int) -> Weights:
    return np.array([*values, *[0] * (64 - len(values))], dtype=np.uint16)


TWO = ((PROPOSE, 0, 0), (PROPOSE, 1, 1))


def test_fields_come_out_as_they_went_in() -> None:
    kind, candidate, bucket, validator = unpack(np.array([4 << 12 | 3 << 10 | 9 << 6 | 41], dtype=np.uint16))
    assert (kind[0], candidate[0], bucket[0], validator[0]) == (4, 3, 9, 41)


def test_buckets_split_weights_evenly() -> None:
    counts = np.bincount(bucket_of(np.arange(1, 1001, dtype=np.uint16)))
    assert len(counts) == 16
    assert counts.min() >= 61
    assert counts.max() <= 63


@pytest.mark.parametrize(("share", "outcome"), [(67, 0), (66, None)])
def test_a_quorum_is_67_percent_of_all_reputation(share: int, outcome: int | None) -> None:
    found = standing(tokens(*TWO, (VOTE, 0, 0)), weights(share, 100 - share))
    assert found.outcome == outcome
    assert found.now.tolist() == [share, 0, 0, 0]
    assert found.total == 100


def test_the_first_vote_of_a_round_counts() -> None:
    found = standing(tokens(*TWO, (VOTE, 1, 0), (VOTE, 0, 0), (VOTE, 0, 2)), weights(30, 40, 30))
    assert found.now.tolist() == [30, 30, 0, 0]
    assert found.voters.tolist() == [1, 1, 0, 0]
    assert found.leader == 0


def test_evidence_voids_the_vote_and_bars_its_validator() -> None:
    twice = ((VOTE, 1, 0), (VOTE, 0, 0), (EVIDENCE, 1, 0), (EVIDENCE, 1, 0))
    events = (*TWO, *twice, (VOTE, 0, 0), (TIMEOUT, 0, 0), (VOTE, 0, 0), (VOTE, 0, 1))
    found = standing(tokens(*events), weights(30, 40, 30))
    assert found.before.tolist() == [0, 0, 0, 0]
    assert found.now.tolist() == [40, 0, 0, 0]
    assert found.convicted == 1


def test_what_is_said_twice_counts_once() -> None:
    repeated = (
        (VOTE, 1, 0),
        (VOTE, 1, 2),
        (VOTE, 0, 0),
        (EVIDENCE, 1, 0),
        (EVIDENCE, 1, 0),
        (DISPUTE, 1, 1),
        (DISPUTE, 1, 1),
    )
    found = standing(tokens(*TWO, (PROPOSE, 1, 2), *repeated), weights(30, 40, 30))
    assert found.now.tolist() == [0, 30, 0, 0]
    assert found.voters.tolist() == [0, 1, 0, 0]
    assert found.disputed.tolist() == [0, 40, 0, 0]
    assert (found.published, found.convicted) == (2, 1)


def test_evidence_needs_two_votes_in_its_round() -> None:
    events = (*TWO, (VOTE, 1, 0), (EVIDENCE, 1, 0), (TIMEOUT, 0, 0), (VOTE, 0, 0), (EVIDENCE, 0, 0), (EVIDENCE, 0, 1))
    found = standing(tokens(*events), weights(30, 40, 30))
    assert found.now.tolist() == [30, 0, 0, 0]
    assert found.convicted == 0


def test_a_timeout_begins_a_round_and_the_third_ends_the_race() -> None:
    events = (*TWO, (VOTE, 0, 0), (TIMEOUT, 0, 0), (VOTE, 1, 0), (DISPUTE, 0, 2), (TIMEOUT, 0, 0))
    found = standing(tokens(*events), weights(30, 40, 30))
    assert (found.rounds, found.outcome) == (2, None)
    assert found.before.tolist() == [0, 30, 0, 0]
    assert found.disputed.tolist() == [30, 0, 0, 0]
    assert found.disputes.tolist() == [1, 0, 0, 0]
    assert found.leader == 1
    assert standing(tokens(*events, (TIMEOUT, 0, 0)), weights(30, 40, 30)).outcome == NO_OUTCOME


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (((VOTE, 0, 0), (TIMEOUT, 0, 0)), "event 3 follows the outcome 0, expected none"),
        (((VOTE, 3, 0),), "event 2 is token 7168, expected one of a validator and a candidate there is"),
        (((VOTE, 2, 0),), "event 2 is token 6144, expected one of a validator and a candidate there is"),
        (((VOTE, 0, 2),), "event 2 is token 4098, expected one of a validator and a candidate there is"),
        (((5, 0, 0),), "event 2 is token 20480, expected one of a validator and a candidate there is"),
        (((PROPOSE, 3, 0),), "event 2 is token 3072, expected one of a validator and a candidate there is"),
    ],
)
def test_events_that_cannot_be_are_refused(events: tuple[tuple[int, int, int], ...], message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}$"):
        standing(tokens(*TWO, *events), weights(80, 20))
