"""Envelopes that are broken, replayed, forged or empty: each is refused with its reason, and the round goes on."""

import numpy as np
import pytest

from nerv_fl.config import RewardsConfig
from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.records import read_rewards
from nerv_fl.rewards import update_reputation
from nerv_fl.server.run_folder import RunFolder
from tests.federation.conftest import NewRun
from tests.federation.tiny_run import (
    COHORT_2,
    Forger,
    Interference,
    num_parameters,
    record_of,
    refused,
    rewards_of,
    run_rounds,
)


def test_nan_update_is_refused_counted_and_costs_its_node(new_run: NewRun, caplog: pytest.LogCaptureFixture) -> None:
    folder = new_run(**{"federation.num_rounds": 1})

    def poison(envelopes: dict[int, bytes], forger: Forger) -> dict[int, bytes]:
        update_P = forger.zeros()
        update_P[17] = np.nan
        return {node: forger.seal(node, update_P) if node == 5 else envelopes[node] for node in envelopes}

    state = run_rounds(folder, meddle=Interference(folder, 1, poison))

    record, row = record_of(folder, 1), rewards_of(folder, 1)[5]
    assert record.accepted
    assert record.nodes is not None
    assert record.nodes.refused == {"not-finite": 1}
    assert "round 1: 1 envelopes refused as not-finite, proven of nodes [5]" in caplog.messages
    assert (record.nodes.heard, record.nodes.admitted) == (6, 5)
    assert (row.flag, row.payout_nano, row.value) == ("not-finite", 0, None)
    assert state.reputations[5] == 0.3 * 0.5


def test_update_of_another_model_is_refused(new_run: NewRun) -> None:
    folder = new_run(**{"federation.num_rounds": 1})

    def shorten(envelopes: dict[int, bytes], forger: Forger) -> dict[int, bytes]:
        return {node: forger.seal(node, forger.zeros()[:-1]) if node == 5 else envelopes[node] for node in envelopes}

    run_rounds(folder, meddle=Interference(folder, 1, shorten))

    assert refused(folder, 1) == {"bad-payload": 1}


def test_broken_envelopes_are_counted_and_logged_by_reason_and_the_round_goes_on(
    new_run: NewRun, caplog: pytest.LogCaptureFixture
) -> None:
    folder = new_run(**{"federation.num_rounds": 2})

    def litter(envelopes: dict[int, bytes], forger: Forger) -> list[bytes]:
        node, envelope = next(iter(envelopes.items()))
        absent = next(number for number in range(8) if number not in envelopes and number not in COHORT_2)
        flipped = bytearray(envelope)
        flipped[-1] ^= 1
        return [
            b"",
            b"not an envelope",
            bytes(flipped),
            forger.seal(node, forger.zeros(), run="another"),
            forger.seal(node, forger.zeros(), round=3),
            forger.seal_bytes(node, b"", signer=absent),
            forger.seal(absent, forger.zeros()),
            *envelopes.values(),
            envelope,
        ]

    state = run_rounds(folder, meddle=Interference(folder, 2, litter), num_supernodes=1)

    assert refused(folder, 2) == {
        "bad-signature": 2,
        "duplicate": 1,
        "malformed": 2,
        "not-in-cohort": 1,
        "wrong-context": 2,
    }
    logged = [line.partition("round 2: ")[2] for line in caplog.messages if "refused as" in line]
    assert logged == [f"{count} envelopes refused as {reason}" for reason, count in refused(folder, 2).items()]
    assert record_of(folder, 2).accepted
    assert state.reputations == pytest.approx(reputations_by_rewards(folder))


def test_replayed_envelopes_of_an_earlier_round_do_not_open(new_run: NewRun) -> None:
    folder = new_run(**{"federation.num_rounds": 2})

    def replay(envelopes: dict[int, bytes], forger: Forger) -> list[bytes]:
        return [*forger.earlier, *envelopes.values()]

    run_rounds(folder, meddle=Interference(folder, 2, replay), num_supernodes=1)

    again = len(set(rewards_of(folder, 1)) & set(rewards_of(folder, 2)))
    assert refused(folder, 2) == {"not-in-cohort": 6 - again, "wrong-context": again}


def test_node_that_is_not_on_the_roster_is_not_asked(new_run: NewRun) -> None:
    folder = new_run(**{"federation.num_rounds": 1})
    roster = folder.read_roster()
    del roster[5]
    folder.write_roster(roster, weights=folder.read_weights())

    run_rounds(folder)

    assert 5 not in rewards_of(folder, 1)
    assert not (folder.node(5) / "spending.json").exists()
    assert refused(folder, 1) == {}
    assert record_of(folder, 1).accepted


def test_envelope_sealed_for_another_enclave_is_refused_as_such(new_run: NewRun) -> None:
    folder, other = new_run(**{"federation.num_rounds": 1}), new_run("other")
    EnclaveIdentity.create(other.enclave, run=str(other.read_manifest()["run"]))

    def misdirect(envelopes: dict[int, bytes], forger: Forger) -> dict[int, bytes]:
        foreign = Forger(other, forger.context, ())
        return {node: foreign.seal(node, forger.zeros()) if node == 5 else envelopes[node] for node in envelopes}

    run_rounds(folder, meddle=Interference(folder, 1, misdirect))

    assert refused(folder, 1) == {"wrong-enclave": 1}


def test_identical_updates_are_flagged_share_one_value_and_are_paid_nothing(new_run: NewRun) -> None:
    folder = new_run(**{"federation.num_rounds": 1})
    copied = np.random.default_rng(3).normal(0, 0.5 / 32, num_parameters()).astype(np.float32)

    def copy(envelopes: dict[int, bytes], forger: Forger) -> dict[int, bytes]:
        return {node: forger.seal(node, copied) if node in {4, 5} else envelopes[node] for node in envelopes}

    run_rounds(folder, meddle=Interference(folder, 1, copy))

    record, rows = record_of(folder, 1), rewards_of(folder, 1)
    assert record.nodes is not None
    assert record.nodes.clones == 2
    assert {node for node, row in rows.items() if row.flag == "clone"} == {4, 5}
    assert rows[4].value == rows[5].value != 0
    assert rows[4].payout_nano == rows[5].payout_nano == 0


def test_free_riders_are_paid_nothing_and_the_pool_is_carried(new_run: NewRun) -> None:
    """In round 2 what momentum gained in round 1 goes on and lowers the loss a little; nobody earned it."""
    folder = new_run(**{"federation.num_rounds": 3, "gate.confidence": 0.6, "enclave.noise_alarm": 0.0})

    def ride(envelopes: dict[int, bytes], forger: Forger) -> dict[int, bytes]:
        return {node: forger.seal(node, forger.zeros()) for node in envelopes}

    run_rounds(folder, meddle=Interference(folder, 2, ride))

    record, rows = record_of(folder, 2), rewards_of(folder, 2)
    assert record.accepted
    assert [row.value for row in rows.values()] == [0.0] * 6
    assert [row.payout_nano for row in rows.values()] == [0] * 6
    assert record_of(folder, 3).carried_nano == record.carried_nano + record.pool_nano


def reputations_by_rewards(folder: RunFolder) -> list[float]:
    """Return the reputations that the reward rows' intervals alone lead to, no fault being laid at a node's door."""
    reputations = [0.3] * 8
    for row in read_rewards(folder.rewards_path):
        assert row.reputation == reputations[row.node]
        assert row.ci_low is not None
        assert row.ci_high is not None
        reputations[row.node] = update_reputation(
            reputations[row.node], ci_low=row.ci_low, ci_high=row.ci_high, config=RewardsConfig()
        )
    return reputations
