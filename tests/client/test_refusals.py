"""A node's failure is its own: recorded with its reason, and in the log once for each kind of reason."""

import logging

import pytest

from nerv_fl.client.refusals import NodeLostError, Refusals
from nerv_fl.errors import BudgetError, DataError


def refused(errors: dict[int, Exception], *, spent: frozenset[int] = frozenset()) -> Refusals:
    refusals = Refusals(4, has_spent=spent.__contains__)
    for number, error in errors.items():
        with refusals.isolate(number):
            raise error
    refusals.log_counts(len(errors))
    return refusals


def test_a_refusal_says_why_and_whether_the_node_has_spent() -> None:
    found = refused({7: BudgetError("epsilon"), 2: DataError("damaged")}, spent=frozenset({2})).by_node

    assert list(found) == [2, 7]
    assert (found[2].reason, found[2].has_spent, found[2].is_over_budget) == ("damaged", True, False)
    assert (found[7].reason, found[7].has_spent, found[7].is_over_budget) == ("epsilon", False, True)


def test_a_lost_node_does_not_refuse() -> None:
    assert refused({1: NodeLostError("node 1 stops")}).by_node == {}


def test_what_ends_the_process_is_not_kept_in() -> None:
    refusals = Refusals(1, has_spent=frozenset().__contains__)

    with pytest.raises(KeyboardInterrupt), refusals.isolate(0):
        raise KeyboardInterrupt


def test_a_traceback_is_logged_once_in_a_process_and_counts_each_time(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        refused({node: DataError(f"node {node} holds no chains of this kind") for node in range(500)})

    tracebacks = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in tracebacks] == ["node 0 gives no update for round 4"]
    assert [record.getMessage() for record in caplog.records if not record.exc_info] == [
        "round 4: 500 of 500 nodes give no update: node 0 holds no chains of this kind"
    ] * 3
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
