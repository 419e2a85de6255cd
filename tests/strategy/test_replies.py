"""Who is charged, and when one reason stops a run."""

from dataclasses import replace

import pytest

from nerv_fl.strategy.replies import RoundReplies, common_failure, failure_reasons, read_replies, trained_nodes

COHORT = frozenset(range(6))


def replies(**fields: object) -> RoundReplies:
    return replace(RoundReplies(num_replies=2), **{name: _set(value) for name, value in fields.items()})  # type: ignore[arg-type]


def _set(value: object) -> object:
    return frozenset(value) if isinstance(value, set) else value


def stops(found: RoundReplies, *, expected: frozenset[int] = COHORT) -> bool:
    failed = failure_reasons(found, expected, num_supernodes=2)
    return common_failure(failed, found, expected=expected) is not None


SAME = dict.fromkeys(range(6), "no such device")
NUMBERED = {node: f"node {node} has no such device" for node in range(6)}
MIXED = SAME | {5: "no space left"}


@pytest.mark.parametrize(
    ("found", "is_one_reason"),
    [
        (replies(refusing=set(range(6)), reasons=SAME), True),
        (replies(refusing=set(range(6)), reasons=NUMBERED), True),
        (replies(refusing=set(range(6)), reasons=MIXED), False),
        (replies(refusing=set(range(5)), reasons=SAME, answering={5}), False),
        (replies(refusing=set(range(5)), reasons=SAME), False),  # node 5 is silent: nobody knows why
        (replies(errors=[("", "actor 7 died"), ("", "actor 8 died")]), True),
        (replies(errors=[("", "actor 7 died"), ("", "no memory")]), True),
        (replies(errors=[("", "actor 7 died")], num_replies=1), False),  # the other SuperNode may be at work still
        (replies(errors=[("", "actor 7 died")], answering={0, 2, 4}), False),
        (replies(), False),
    ],
)
def test_one_reason_for_all_nodes_stops_a_run_and_nothing_less(found: RoundReplies, *, is_one_reason: bool) -> None:
    assert stops(found) == is_one_reason


def test_simulated_faults_are_no_reason_to_stop() -> None:
    """Nodes 0 and 1 fail as the simulation wants; whether the run stops depends on the others."""
    failing = replies(refusing={2, 3, 4, 5}, reasons=SAME)

    assert stops(failing, expected=COHORT - {0, 1})
    assert not stops(replies(), expected=frozenset())


def test_counts_say_who_failed_and_who_has_spent() -> None:
    found = replies(refusing=set(range(6)), reasons=NUMBERED, charged={1, 2})

    failure = common_failure(failure_reasons(found, COHORT, num_supernodes=2), found, expected=COHORT)

    assert failure is not None
    assert (failure.reason, failure.num_failed, failure.num_asked, failure.num_charged) == (NUMBERED[0], 6, 6, 2)


@pytest.mark.parametrize(("simulated", "trained"), [(True, {1, 2, 3, 4, 5}), (False, {0, 1, 2, 3, 4, 5})])
def test_a_deployed_nodes_word_that_it_spent_nothing_is_not_believed(simulated: bool, *, trained: set[int]) -> None:
    """Nodes 0 and 1 refuse, the second after it has spent; 2 answers, the rest are silent."""
    found = replies(refusing={0, 1}, charged={1}, answering={2})

    assert trained_nodes(found, COHORT, simulated=simulated) == trained


def test_reasons_of_a_deployment_are_not_read() -> None:
    answer = {"refusing_nodes": [1, 2], "reasons": ["SECRET"], "charged_nodes": [1], "over_budget_nodes": [2]}

    found = read_replies([answer], [], cohort=COHORT, late=frozenset(), with_reasons=False)

    assert found.refusing == {1, 2}
    assert not found.reasons
    assert not found.charged | found.over_budget


@pytest.mark.parametrize("reasons", [None, 7, [7, b"x"], ["a\x1b[2J\nb", "x" * 10**6, "more"], "text"])
def test_reasons_may_be_anything(reasons: object) -> None:
    answer = {"refusing_nodes": [1, 99, True, 2], "reasons": reasons, "charged_nodes": reasons}

    found = read_replies([answer], [], cohort=COHORT, late=frozenset(), with_reasons=True)

    assert found.reasons.keys() <= {1, 2}
    assert all(reason.isprintable() and len(reason) <= 500 for reason in found.reasons.values())
