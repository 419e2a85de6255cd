"""Nodes that are lost, crash, refuse or never come: the round counts who was heard, and the run goes on."""

import pytest
from flwr.app import Context, Message

from nerv_fl.client import app as client_app
from nerv_fl.errors import AggregationError
from nerv_fl.privacy.accounting import Mechanism, epsilon_of
from nerv_fl.privacy.epsilon import format_epsilon
from nerv_fl.server.app import serve
from tests.federation.conftest import NewRun
from tests.federation.fake_grid import FakeGrid, Meddle
from tests.federation.tiny_run import COHORT_2, bootstrap_hash, make_grid, record_of, rewards_of, run_rounds

MECHANISM = Mechanism(sigma=0.5, sampling_rate=32 / 128)


def test_too_few_replies_reject_the_round_and_the_next_one_runs(new_run: NewRun) -> None:
    folder = new_run(**{"federation.num_rounds": 2})
    before = bootstrap_hash(folder)

    run_rounds(folder, meddle=lose_replies(1))

    lost, following = record_of(folder, 1), record_of(folder, 2)
    assert not lost.accepted
    assert lost.reason == "3 of 6 nodes were heard, expected at least 70 % of the cohort"
    assert lost.model_hash == before
    assert not rewards_of(folder, 1)
    assert following.accepted
    assert following.carried_nano == lost.pool_nano
    paid_nano = sum(row.payout_nano for row in rewards_of(folder, 2).values())
    assert paid_nano in {0, following.pool_nano + lost.pool_nano}


def test_no_reply_at_all_is_a_rejected_round_too(new_run: NewRun) -> None:
    folder = new_run(**{"federation.num_rounds": 2})

    run_rounds(folder, meddle=lose_replies(2))

    assert record_of(folder, 1).reason == "0 of 6 nodes were heard, expected at least 70 % of the cohort"
    assert record_of(folder, 1).model_hash == bootstrap_hash(folder)
    assert record_of(folder, 2).accepted


def test_nodes_that_may_have_trained_are_charged_even_if_their_replies_are_lost(new_run: NewRun) -> None:
    folder = new_run(**{"federation.num_rounds": 2})

    state = run_rounds(folder, meddle=lose_replies(2))

    assert sum(state.participations) == 6 + 6


def lose_replies(number: int) -> Meddle:
    """Return what loses the first replies of a run."""
    seen: list[Message] = []

    def lose(reply: Message) -> Message | None:
        seen.append(reply)
        return None if len(seen) <= number else reply

    return lose


def test_a_crashing_supernode_does_not_stop_the_round(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = new_run(**{"federation.num_rounds": 1})
    crash = SuperNodeCrash(monkeypatch, partition=4)

    run_rounds(folder, num_supernodes=6)

    record = record_of(folder, 1)
    assert crash.count == 1
    assert record.accepted
    assert record.nodes is not None
    assert (record.nodes.sampled, record.nodes.heard, record.nodes.admitted) == (6, 5, 5)
    assert "round 1: 1 of 6 SuperNodes failed: RuntimeError('out of memory')" in caplog.text


class SuperNodeCrash:
    """Makes one SuperNode's app raise something that is not our own error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, partition: int) -> None:
        self.count = 0
        original = client_app.hosted_nodes

        def hosted_nodes(cohort: list[int], context: Context) -> list[int]:
            if context.node_config["partition-id"] == partition:
                self.count += 1
                raise RuntimeError("out of memory")
            return original(cohort, context)

        monkeypatch.setattr(client_app, "hosted_nodes", hosted_nodes)


# --- Nodes that refuse ------------------------------------------------------------------------------------------------


def test_nodes_past_their_budget_refuse_and_say_so(new_run: NewRun, caplog: pytest.LogCaptureFixture) -> None:
    folder = new_run(**{"federation.num_rounds": 2, "privacy.max_epsilon": 10.0})
    grid = make_grid(folder)

    state = serve(grid, folder, num_supernodes=2, simulated=True)

    second = [reply.content.config_records["answer"] for reply in grid.replies[2:]]
    refusing = {node for answer in second for node in answer["refusing_nodes"]}  # type: ignore[union-attr]
    both = set(rewards_of(folder, 1)) & set(COHORT_2)
    assert refusing == both
    assert (
        f"epsilon after round 2 would be {format_epsilon(epsilon_of(MECHANISM, 2, delta=1e-5), digits=3)} at "
        "delta 1e-05 per step record (Poisson sampling at 0.25), expected at most 10"
    ) in caplog.text
    record = record_of(folder, 2)
    assert record.reason == f"{6 - len(both)} of 6 nodes were heard, expected at least 70 % of the cohort"
    assert max(state.participations) == 1
    assert record.epsilon is not None
    assert record.epsilon.max is not None
    assert record.epsilon.max <= 10.0


def test_a_reply_holds_envelopes_and_refusals_and_nothing_else(new_run: NewRun) -> None:
    folder = new_run(**{"federation.num_rounds": 1})
    grid = make_grid(folder)

    serve(grid, folder, num_supernodes=2)

    for reply in grid.replies:
        assert list(reply.content.keys()) == ["answer"]
        answer = reply.content.config_records["answer"]
        assert answer.keys() == {"nodes", "envelopes", "refusing_nodes"}
        # The size of an envelope follows from the model alone.
        assert len({len(envelope) for envelope in answer["envelopes"]}) == 1  # type: ignore[union-attr,arg-type]


# --- SuperNodes that do not come --------------------------------------------------------------------------------------


class EmptyGrid(FakeGrid):
    """A grid on which no SuperNode is online."""

    def get_node_ids(self) -> list[int]:
        return []


def test_no_supernode_online_is_an_error_not_an_endless_wait(new_run: NewRun) -> None:
    folder = new_run(**{"federation.node_wait_s": 0.2})
    grid = EmptyGrid(make_grid(folder).client_app, num_supernodes=2)

    with pytest.raises(AggregationError, match=r"^0 of 2 SuperNodes came online in 0\.2 s$"):
        serve(grid, folder, num_supernodes=2)


def test_a_missing_supernode_is_waited_for_and_then_left_out(new_run: NewRun, caplog: pytest.LogCaptureFixture) -> None:
    folder = new_run(**{"federation.node_wait_s": 0.2, "federation.num_rounds": 1})

    serve(make_grid(folder, num_supernodes=2), folder, num_supernodes=3)

    assert "2 of 3 SuperNodes are online; rounds go on without the rest" in caplog.text
    assert record_of(folder, 1).accepted
