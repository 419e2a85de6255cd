from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.config import RewardsConfig
from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.interface import EnclaveSeconds, NodeValue, RoundOutcome
from nerv_fl.records import GateSummary, NodeCounts, ShapleySummary, ValueSummary
from nerv_fl.rewards import Entry, round_pool_nano
from nerv_fl.rewards.ledger import balances, check_chain
from nerv_fl.strategy.server_state import FederationState

NUM_NODES = 6
REWARDS = RewardsConfig()
EVERYBODY = frozenset(range(NUM_NODES))
THETA = np.ones(3, dtype=np.float32)
AFTER = np.full(3, 2.0, dtype=np.float32)


def worth(node: int, value: float, error: float = 0.01, *, flag: str = "") -> NodeValue:
    return NodeValue(
        node=node,
        value=value,
        standard_error=error,
        ci_low=value - 1.96 * error,
        ci_high=value + 1.96 * error,
        flag=flag,
    )


def outcome(*values: NodeValue, accepted: bool = True, faults: dict[int, str] | None = None) -> RoundOutcome:
    return RoundOutcome(
        accepted=accepted,
        reason="" if accepted else "too bad",
        step=1.0 if accepted else 0.0,
        theta_P=AFTER if accepted else THETA,
        optimizer=OptimizerState(momentum_P=AFTER, second_P=AFTER, num_rounds=1)
        if accepted
        else OptimizerState.empty(3),
        homomorphism=None,
        gate=GateSummary(p_value=None, relative_drift=None, rank_ratio=None),
        values=values,
        heard=frozenset(faults or {}),
        flags={},
        faults=faults or {},
        nodes=NodeCounts(sampled=6, heard=6, admitted=len(values), refused={}, clones=0),
        shapley=ShapleySummary(method="exact", evaluations=1, se_max=None, stop=""),
        value=ValueSummary(total=None, empty=None),
        certificate=None,
        seconds=EnclaveSeconds(open=0, aggregate=0, shapley=0, gate=0),
    )


@pytest.fixture
def state() -> FederationState:
    return FederationState.first(THETA, num_nodes=NUM_NODES, rewards=REWARDS, run="test")


def test_the_first_state(state: FederationState) -> None:
    assert state.round_number == 0
    assert state.reputations == (0.3,) * NUM_NODES
    assert state.participations == (0,) * NUM_NODES
    assert state.carried_nano == 0
    assert state.optimizer.num_rounds == 0
    assert len(state.model_hash) == 64


def test_accepted_round_moves_the_encoder_and_pays(state: FederationState) -> None:
    after, rows, _ = state.after(outcome(worth(1, 0.2), worth(4, 0.1)), trained=EVERYBODY, rewards=REWARDS)

    assert np.array_equal(after.theta_P, AFTER)
    assert after.model_hash != state.model_hash
    assert (after.round_number, after.optimizer.num_rounds) == (1, 1)
    assert [row.node for row in rows] == [1, 4]
    assert sum(row.payout_nano for row in rows) == round_pool_nano(1)
    # Lower bounds at one-sided 90 %: 0.2 - 1.2816 x 0.01 and 0.1 - 1.2816 x 0.01.
    assert rows[0].payout_nano / round_pool_nano(1) == pytest.approx(0.187184 / (0.187184 + 0.087184), rel=1e-5)
    assert state.round_number == 0


def test_rejected_round_changes_nothing_and_carries_its_pool(state: FederationState) -> None:
    after, rows, _ = state.after(outcome(accepted=False), trained=EVERYBODY, rewards=REWARDS)

    assert after.model_hash == state.model_hash
    assert after.optimizer.num_rounds == 0
    assert after.reputations == state.reputations
    assert after.carried_nano == round_pool_nano(1)
    assert rows == []
    assert after.participations == (1,) * NUM_NODES


def test_carried_pool_is_paid_by_the_next_round_that_pays(state: FederationState) -> None:
    carried, _, _ = state.after(outcome(accepted=False), trained=EVERYBODY, rewards=REWARDS)
    paid, rows, _ = carried.after(outcome(worth(0, 1.0)), trained=EVERYBODY, rewards=REWARDS)

    assert [row.payout_nano for row in rows] == [round_pool_nano(1) + round_pool_nano(2)]
    assert paid.carried_nano == 0


def test_a_round_in_which_nobody_is_surely_positive_pays_nobody(state: FederationState) -> None:
    values = (worth(0, 0.0, 0.0), worth(1, 0.01, 0.01), worth(2, -1.0))

    after, rows, _ = state.after(outcome(*values), trained=EVERYBODY, rewards=REWARDS)

    assert [row.payout_nano for row in rows] == [0, 0, 0]
    assert after.carried_nano == round_pool_nano(1)


def test_reputations_follow_what_was_shown(state: FederationState) -> None:
    values = (worth(0, 1.0), worth(1, -1.0), worth(2, 0.001))

    after, rows, _ = state.after(outcome(*values, faults={3: "not-finite"}), trained=EVERYBODY, rewards=REWARDS)

    assert after.reputations == pytest.approx((0.335, 0.285, 0.3, 0.15, 0.3, 0.3))
    assert [row.reputation for row in rows] == [0.3] * 4
    assert [(row.node, row.flag, row.value) for row in rows][3] == (3, "not-finite", None)
    assert rows[3].payout_nano == 0


def test_reputation_weighs_the_payout(state: FederationState) -> None:
    known = replace(state, reputations=(0.6, 0.3, 0.3, 0.3, 0.3, 0.3))

    _, rows, _ = known.after(outcome(worth(0, 1.0), worth(1, 1.0)), trained=EVERYBODY, rewards=REWARDS)

    assert rows[0].payout_nano == pytest.approx(2 * rows[1].payout_nano, rel=1e-9)


def test_only_who_may_have_trained_is_charged(state: FederationState) -> None:
    after, _, _ = state.after(outcome(accepted=False), trained=frozenset({0, 5}), rewards=REWARDS)

    assert after.participations == (1, 0, 0, 0, 0, 1)


def test_a_clone_is_flagged_even_if_it_is_at_fault_too(state: FederationState) -> None:
    value = worth(2, 0.1, flag="clone")

    _, rows, _ = state.after(outcome(value, faults={2: "duplicate"}), trained=EVERYBODY, rewards=REWARDS)

    assert [row.flag for row in rows] == ["clone"]


@given(
    rounds=st.lists(
        st.tuples(st.booleans(), st.lists(st.floats(-1, 1), min_size=NUM_NODES, max_size=NUM_NODES)), max_size=6
    )
)
def test_no_nano_is_made_or_lost(rounds: list[tuple[bool, list[float]]]) -> None:
    state, pools_nano, paid_nano = FederationState.first(THETA, num_nodes=NUM_NODES, rewards=REWARDS, run="test"), 0, 0
    ledger: list[Entry] = []
    for accepted, values in rounds:
        items = [worth(node, value, 0.05) for node, value in enumerate(values)] if accepted else []
        before_nano = state.carried_nano
        pool_nano = round_pool_nano(state.round_number + 1)
        state, rows, entries = state.after(outcome(*items, accepted=accepted), trained=EVERYBODY, rewards=REWARDS)
        round_paid = sum(row.payout_nano for row in rows)
        assert round_paid in {0, pool_nano + before_nano}
        pools_nano, paid_nano = pools_nano + pool_nano, paid_nano + round_paid
        ledger += entries
    assert paid_nano + state.carried_nano == pools_nano
    held = balances(ledger)
    assert check_chain(ledger, run="test", source="ledger") == state.ledger
    assert held.get("pool/gradient", 0) == state.carried_nano
    assert [held.get(f"node/{node}", 0) for node in range(NUM_NODES)] == list(state.balances_nano)
    assert sum(held.values()) == 0


def test_repeated_harm_is_slashed_once_for_each_strike(state: FederationState) -> None:
    rich, _, _ = state.after(outcome(worth(0, 1.0)), trained=EVERYBODY, rewards=REWARDS)
    held = rich.balances_nano[0]
    first, _, entries = rich.after(outcome(worth(0, -1.0), worth(1, 1.0)), trained=EVERYBODY, rewards=REWARDS)
    assert (first.strikes[0], first.balances_nano[0]) == (1, held)
    assert not [entry for entry in entries if entry.kind == "slash"]

    second, _, entries = first.after(outcome(worth(0, -1.0), worth(1, 1.0)), trained=EVERYBODY, rewards=REWARDS)
    slashes = [entry for entry in entries if entry.kind == "slash"]
    assert [(entry.source, entry.target, entry.amount_nano) for entry in slashes] == [
        ("node/0", "pool/public_goods", held * 5 // 1000)
    ]
    assert (second.strikes[0], second.balances_nano[0]) == (2, held - held * 5 // 1000)

    rejected, _, entries = second.after(outcome(accepted=False), trained=EVERYBODY, rewards=REWARDS)
    unclear, _, more = rejected.after(outcome(worth(0, 0.0), worth(1, 1.0)), trained=EVERYBODY, rewards=REWARDS)
    assert not [entry for entry in (*entries, *more) if entry.kind == "slash"]
    assert unclear.strikes[0] == 2
    helped, _, _ = unclear.after(outcome(worth(0, 1.0)), trained=EVERYBODY, rewards=REWARDS)
    assert helped.strikes[0] == 0


def test_a_round_settled_twice_has_the_same_entries(state: FederationState) -> None:
    rich, _, _ = state.after(outcome(worth(0, 1.0), worth(1, 0.5)), trained=EVERYBODY, rewards=REWARDS)
    again = [rich.after(outcome(worth(0, -1.0)), trained=EVERYBODY, rewards=REWARDS)[2] for _ in range(2)]
    assert again[0] == again[1]


def test_leaving_and_coming_back_clean_does_not_pay(state: FederationState) -> None:
    """Node 0 stays honest; 1 does harm every third round; 2 does harm in the first half and comes back as 3."""
    for round_number in range(1, 21):
        harm = round_number <= 10
        items = [worth(0, 1.0), worth(1, -1.0 if round_number % 3 == 0 else 1.0), worth(5, 1.0)]
        items.append(worth(2, -1.0) if harm else worth(3, 1.0))
        state, _, _ = state.after(outcome(*items), trained=EVERYBODY, rewards=REWARDS)
    honest, sometimes, rejoined = state.balances_nano[0], state.balances_nano[1], sum(state.balances_nano[2:4])
    assert rejoined < sometimes < honest
    assert rejoined < 0.4 * honest
