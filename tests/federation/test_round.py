"""Whole rounds: the real nodes, strategy, enclave and server, through a Grid in this process."""

import csv
import itertools
import json

import pytest

from nerv_fl.enclave.certificate import verify_certificate
from nerv_fl.enclave.identity import VENDOR_ROOT_FILE, read_vendor_root
from nerv_fl.errors import SealError
from nerv_fl.records import REWARD_COLUMNS, read_rewards
from nerv_fl.server.checkpoint import load_state
from nerv_fl.server.run_folder import RunFolder
from tests.federation.conftest import NewRun
from tests.federation.tiny_run import COHORT_2, NUM_ROUNDS, record_of, rewards_of, run_rounds

RECORD_KEYS = {
    "round", "accepted", "reason", "step", "homomorphism", "drift", "residual_share", "effective_rank", "loss",
    "masked_ce", "epsilon", "nodes", "shapley", "gate", "value", "pool_nano", "carried_nano", "seconds", "model_hash",
    "rewards", "measures", "trivial", "faults",
    "failures",
}  # fmt: skip
SECTION_KEYS = {
    "homomorphism": {"max", "p999", "mean", "bound", "n", "violations"},
    "drift": {"mean", "relative", "ratio", "max"},
    "masked_ce": {"value", "unigram", "per_account"},
    "epsilon": {"min", "median", "max", "delta"},
    "nodes": {"sampled", "heard", "admitted", "refused", "clones", "flagged"},
    "shapley": {"method", "evaluations", "se_max", "stop", "se_sample_max", "se_estimator_max"},
    "gate": {"p_value", "relative_drift", "rank_ratio", "ungated"},
    "value": {"total", "empty"},
    "rewards": {"paid_nano", "slashed_nano", "gini"},
    "seconds": {"train", "open", "aggregate", "shapley", "gate", "report", "total"},
}


def test_a_run_leaves_every_file_of_the_contract(undisturbed: RunFolder) -> None:
    root = undisturbed.root

    lines = [json.loads(line) for line in (root / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(NUM_ROUNDS + 1))
    for line in lines:
        assert line.keys() == RECORD_KEYS
        for section, keys in SECTION_KEYS.items():
            assert line[section] is None or line[section].keys() == keys
    assert all(lines[1][section] is not None for section in SECTION_KEYS)

    with (root / "rewards.csv").open() as file:
        header, *rows = list(csv.reader(file))
    assert ",".join(header) == "round,node,value,se,ci_low,ci_high,reputation,payout_nano,flag"
    assert tuple(header) == REWARD_COLUMNS
    assert [int(row[0]) for row in rows] == [1] * 6 + [2] * 6 + [3] * 6

    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["references"].keys() == {"random_weights", "v_alone"}
    assert manifest["references"]["v_alone"]["drift"]["mean"] == 0
    assert manifest["references"]["random_weights"]["homomorphism"]["violations"] == 0
    assert manifest["final"]["chains"] == 16
    assert manifest["data"].keys() == {"genesis", "nodes", "search", "certify", "final"}
    assert manifest["seed"] == 7
    assert manifest["versions"]["torch"].startswith("2.13")
    assert len(manifest["code_hash"]) == 64

    assert undisturbed.config.name == "tiny"
    assert "<html" in (root / "report.html").read_text()
    assert load_state(undisturbed.checkpoint).round_number == NUM_ROUNDS
    checkpoints = [f"round-{number:05d}" for number in (NUM_ROUNDS - 1, NUM_ROUNDS)]
    expected = [f"{name}{suffix}" for name in checkpoints for suffix in (".json", ".safetensors")]
    assert sorted(path.name for path in undisturbed.checkpoint.glob("round-*")) == expected


def test_the_reference_run_is_one_in_which_something_happens(undisturbed: RunFolder) -> None:
    """Otherwise the tests that compare with it would compare nothing."""
    accepted = [record.round for record in undisturbed.rounds() if record.accepted and record.round]
    assert len(accepted) >= 2
    assert any(row.payout_nano for row in read_rewards(undisturbed.rewards_path))


def test_the_chain_of_encoders_is_unbroken(undisturbed: RunFolder) -> None:
    rounds = undisturbed.rounds()
    for before, after in itertools.pairwise(rounds):
        assert (after.model_hash != before.model_hash) == after.accepted
        assert (after.step > 0) == after.accepted
        assert (after.reason == "") == after.accepted
    assert load_state(undisturbed.checkpoint).model_hash == rounds[-1].model_hash


def test_every_nano_is_paid_or_carried(undisturbed: RunFolder) -> None:
    carried_nano = 0
    for record in undisturbed.rounds()[1:]:
        assert record.carried_nano == carried_nano
        paid_nano = sum(row.payout_nano for row in rewards_of(undisturbed, record.round).values())
        assert paid_nano in {0, record.pool_nano + record.carried_nano}
        carried_nano = record.pool_nano + record.carried_nano - paid_nano
    assert carried_nano == load_state(undisturbed.checkpoint).carried_nano


def test_the_bound_is_kept_and_privacy_only_grows(undisturbed: RunFolder) -> None:
    spent = 0.0
    for record in undisturbed.rounds():
        assert record.encoder.homomorphism.max <= 1e-9
        assert record.encoder.homomorphism.n == 200
        assert record.encoder.homomorphism.violations == 0
        if record.epsilon and record.epsilon.max is not None:
            assert record.epsilon.max > spent
            assert record.epsilon.delta == 1e-5
            spent = record.epsilon.max


def test_exactly_valued_round_pays_its_whole_pool(new_run: NewRun) -> None:
    folder = new_run(**{"valuation.method": "auto", "federation.num_rounds": 1, "federation.cohort_size": 4})

    run_rounds(folder)

    record, rows = record_of(folder, 1), rewards_of(folder, 1)
    assert record.accepted
    assert record.shapley is not None
    assert (record.shapley.method, record.shapley.evaluations) == ("exact", 2**4)
    assert record.value is not None
    assert sum(row.value or 0.0 for row in rows.values()) == pytest.approx(record.value.total, abs=1e-9)
    assert sum(row.payout_nano for row in rows.values()) == record.pool_nano


def test_certificate_verifies_and_no_byte_of_it_can_be_changed(undisturbed: RunFolder) -> None:
    vendor_root = read_vendor_root(undisturbed.enclave / VENDOR_ROOT_FILE)
    (last, *_) = [record for record in reversed(undisturbed.rounds()) if record.accepted]
    certificate = undisturbed.certificate_path(last.round).read_bytes()

    verified = verify_certificate(certificate, vendor_root=vendor_root)

    assert verified.model_hash == last.model_hash
    assert verified.round_number == last.round
    assert verified.num_batches == 200
    for position in [*range(0, len(certificate), 97), len(certificate) - 1]:
        changed = bytearray(certificate)
        changed[position] ^= 1
        with pytest.raises(SealError):
            verify_certificate(bytes(changed), vendor_root=vendor_root)
    with pytest.raises(SealError):
        verify_certificate(certificate + b"\n", vendor_root=vendor_root)


def test_rejected_rounds_leave_no_certificate(undisturbed: RunFolder) -> None:
    accepted = {f"round-{record.round}.json" for record in undisturbed.rounds() if record.accepted and record.round}
    assert {path.name for path in (undisturbed.root / "certificates").iterdir()} == accepted


def test_the_cohort_is_drawn_from_seed_and_round(undisturbed: RunFolder) -> None:
    assert tuple(rewards_of(undisturbed, 2)) == COHORT_2
    assert len({tuple(rewards_of(undisturbed, number)) for number in (1, 2, 3)}) > 1
