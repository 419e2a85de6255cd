import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nerv_fl.config import PrivacyConfig, RunConfig
from nerv_fl.crypto import sign_document, verify_document
from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.certificate import certificate_body, verify_certificate
from nerv_fl.enclave.gate import Candidate, Certification, certify
from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.enclave.interface import RoundInput
from nerv_fl.errors import SealError
from nerv_fl.models.homomorphism import clopper_pearson_low
from nerv_fl.models.weights import vector_hash
from nerv_fl.records import NodeCounts
from nerv_fl.tasks.metrics import Means
from tests.enclave.quadratic import QuadraticPools

CONFIG = RunConfig()
GATE = replace(CONFIG.gate, certify_samples=32, bound_batches=50)
ORIGIN, ONE = np.zeros(4, np.float32), np.array([1, 0, 0, 0], np.float32)
CANDIDATE = Candidate(step=1.0, theta_P=ONE, search_loss_B=np.zeros(1), base_loss_B=np.zeros(1), reason="", ungated=0.0)
COUNTS = NodeCounts(sampled=6, heard=6, admitted=5, refused={"not-finite": 1}, clones=0)
GIVEN = RoundInput(
    round_number=3,
    theta_P=ORIGIN,
    base_hash=vector_hash(ORIGIN),
    optimizer=OptimizerState.empty(4),
    move_P=ORIGIN,
    cohort=(0, 1, 2, 3, 4, 5),
    envelopes=(),
    weights={},
)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> EnclaveIdentity:
    return EnclaveIdentity.create(tmp_path_factory.mktemp("enclave"), run="demo")


@pytest.fixture(scope="module")
def body() -> dict[str, Any]:
    pools = QuadraticPools(optimum_P=ONE)
    verdict = certify(ORIGIN, CANDIDATE, evaluator=pools, config=GATE, seed=7, round_number=3)
    return certificate_body(GIVEN, CANDIDATE, verdict, nodes=COUNTS, run="demo", config=replace(CONFIG, gate=GATE))


def signed(body: Mapping[str, object], identity: EnclaveIdentity) -> str:
    return sign_document(body, key=identity.signing_key, evidence=identity.evidence)


def test_a_sound_certificate_says_what_was_shown(body: dict[str, Any], identity: EnclaveIdentity) -> None:
    verified = verify_certificate(signed(body, identity), vendor_root=identity.vendor_root, run="demo")

    assert (verified.run, verified.round_number, verified.num_batches) == ("demo", 3, 50)
    assert verified.model_hash == vector_hash(ONE)
    assert verified.pass_fraction_low == pytest.approx(0.05 ** (1 / 50))
    assert verified.p_value == body["p_value"] < 0.05


def test_it_states_everything_the_gate_used(body: dict[str, Any], identity: EnclaveIdentity) -> None:
    stated = verify_document(signed(body, identity), vendor_root=identity.vendor_root)

    assert stated.keys() == {
        "kind", "version", "run", "task", "round", "base_hash", "model_hash", "step", "preset", "sigma",
        "sampling_seed", "limits", "homomorphism", "p_value", "before", "after", "nodes",
    }  # fmt: skip
    assert stated["base_hash"] == vector_hash(ORIGIN)
    assert stated["nodes"] == asdict(COUNTS)


OTHER = Certification(
    reason="",
    p_value=0.01,
    before=Means(loss=1.0, measures={"error": 2.0}, finite=True),
    after=Means(loss=0.9, measures={"error": 2.01}, finite=True),
    homomorphism=None,
    sampling_seed=vector_hash(ONE),
)


def other_body(verdict: Certification = OTHER, *, task: str = "forecaster") -> dict[str, Any]:
    """Return what is certified of a model that claims nothing of itself."""
    return certificate_body(GIVEN, CANDIDATE, verdict, nodes=COUNTS, run="demo", config=replace(CONFIG, task=task))


def test_a_task_without_claims_is_certified_by_its_gate(identity: EnclaveIdentity) -> None:
    body = other_body()

    verified = verify_certificate(signed(body, identity), vendor_root=identity.vendor_root, run="demo")

    assert (body["kind"], body["task"], body["preset"]) == ("nerv_fl gate certificate", "forecaster", None)
    assert (verified.num_batches, verified.pass_fraction_low, verified.p_value) == (None, None, 0.01)


def test_a_measure_that_rose_is_not_certified(identity: EnclaveIdentity) -> None:
    worse = replace(OTHER, after=Means(loss=0.9, measures={"error": 2.1}, finite=True))

    with pytest.raises(SealError, match=r"round 3 states numbers that do not support it: error$"):
        verify_certificate(signed(other_body(worse), identity), vendor_root=identity.vendor_root)


def test_an_encoder_is_not_certified_without_its_bound(identity: EnclaveIdentity) -> None:
    with pytest.raises(SealError, match=r"round 3 states numbers that do not support it: bound$"):
        verify_certificate(signed(other_body(task="encoder"), identity), vendor_root=identity.vendor_root)


def edit(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        *parents, last = path
        for parent in parents:
            body = body[parent]
        body[last] = value

    return change


LIES = {
    "sigma": edit("sigma", value=0.4),
    "bound": edit("homomorphism", "max", value=2e-9),
    "violations": edit("homomorphism", "n", value=49),
    "pass_fraction_low": edit("homomorphism", "pass_fraction_low", value=0.99999),
    "p_value": edit("p_value", value=0.2),
    "masked_ce": edit("after", "masked_ce", value=3.0),
    "relative drift": edit("after", "drift_relative", value=0.5),
    "effective rank": edit("after", "effective_rank", value=1.0),
    "mean norm": edit("after", "mean_norm", value=0.1),
    "sampling seed": edit("sampling_seed", value="00" * 32),
}


@pytest.mark.parametrize("claim", sorted(LIES))
def test_numbers_that_contradict_the_verdict_are_named_even_if_signed(
    claim: str, body: dict[str, Any], identity: EnclaveIdentity
) -> None:
    lying = copy.deepcopy(body)
    LIES[claim](lying)
    if claim == "violations":
        lying["homomorphism"]["pass_fraction_low"] = clopper_pearson_low(49, 49)

    with pytest.raises(SealError) as caught:
        verify_certificate(signed(lying, identity), vendor_root=identity.vendor_root)

    assert str(caught.value) == f"certificate of round 3 states numbers that do not support it: {claim}"


def test_all_contradictions_are_named(body: dict[str, Any], identity: EnclaveIdentity) -> None:
    lying = copy.deepcopy(body)
    LIES["sigma"](lying)
    LIES["p_value"](lying)

    with pytest.raises(SealError, match=r"do not support it: sigma, p_value$"):
        verify_certificate(signed(lying, identity), vendor_root=identity.vendor_root)


def test_every_byte_counts(body: dict[str, Any], identity: EnclaveIdentity) -> None:
    text = signed(body, identity).encode()
    for position in range(0, len(text), 211):
        changed = text[:position] + bytes([text[position] ^ 1]) + text[position + 1 :]
        with pytest.raises(SealError):
            verify_certificate(changed, vendor_root=identity.vendor_root)
    for changed in (text[:-1], text + b" ", text.replace(b'"round": 3', b'"round": 4'), b""):
        with pytest.raises(SealError):
            verify_certificate(changed, vendor_root=identity.vendor_root)


def test_another_vendors_enclave(body: dict[str, Any], identity: EnclaveIdentity, tmp_path: Path) -> None:
    stranger = EnclaveIdentity.create(tmp_path, run="demo")

    with pytest.raises(SealError, match=r"^evidence is not signed by the vendor root "):
        verify_certificate(signed(body, stranger), vendor_root=identity.vendor_root)


def test_another_run(body: dict[str, Any], identity: EnclaveIdentity) -> None:
    with pytest.raises(SealError, match=r"^evidence has the run 'demo', expected 'other'$"):
        verify_certificate(signed(body, identity), vendor_root=identity.vendor_root, run="other")


def test_another_kind_of_document(identity: EnclaveIdentity) -> None:
    with pytest.raises(SealError) as caught:
        verify_certificate(signed({"kind": "invoice", "version": 1}, identity), vendor_root=identity.vendor_root)

    assert str(caught.value) == (
        "document is 'invoice' version 1, expected 'nerv_fl homomorphism certificate' or 'nerv_fl gate certificate' "
        "version 1 or 2"
    )


# --- Another mechanism ------------------------------------------------------------------------------------------------

OWN = {"sigma": 0.7, "clip": 2.0}


def body_with(**privacy: object) -> dict[str, Any]:
    """Return the body of an accepted round whose privacy settings are a simulation's own."""
    verdict = certify(ORIGIN, CANDIDATE, evaluator=QuadraticPools(optimum_P=ONE), config=GATE, seed=7, round_number=3)
    config = replace(CONFIG, gate=GATE, privacy=PrivacyConfig(protocol=False, **privacy))  # type: ignore[arg-type]
    return certificate_body(GIVEN, CANDIDATE, verdict, nodes=COUNTS, run="demo", config=config)


@pytest.mark.parametrize(
    ("privacy", "sigma", "note"),
    [
        (OWN, 0.7, "not the protocol's mechanism (sigma 0.7, clip 2.0)"),
        ({"clip": 2.0}, 0.5, "not the protocol's mechanism (sigma 0.5, clip 2.0)"),
        ({"mechanism": "none"}, None, "no privacy mechanism: epsilon is infinite"),
    ],
)
def test_another_mechanism_is_stated_and_shown(
    privacy: dict[str, object], sigma: float | None, note: str, identity: EnclaveIdentity
) -> None:
    body = body_with(**privacy)
    verified = verify_certificate(signed(body, identity), vendor_root=identity.vendor_root)

    assert (body["version"], body["sigma"], body["mechanism"]["note"], verified.mechanism) == (2, sigma, note, note)


def test_the_protocols_own_values_change_nothing_in_a_certificate(body: dict[str, Any]) -> None:
    assert body_with() == body
    assert "mechanism" not in body


@pytest.mark.parametrize(
    "change",
    [
        edit("version", value=1),
        edit("mechanism", "sigma", value=0.5),
        edit("mechanism", "note", value=""),
        edit("mechanism", "name", value="none"),
        edit("mechanism", "clip", value=-1.0),
        edit("mechanism", value={"name": "gaussian", "sigma": 0.5, "clip": 1.0, "note": ""}),
        edit("sigma", value=0.5),
        lambda body: body.pop("mechanism"),
    ],
)
def test_a_mechanism_that_is_hidden_or_contradicts_itself_is_refused(
    change: Callable[[dict[str, Any]], object], identity: EnclaveIdentity
) -> None:
    lying = body_with(**OWN)
    change(lying)

    with pytest.raises(SealError):
        verify_certificate(signed(lying, identity), vendor_root=identity.vendor_root)


def test_no_certificate_for_a_rejected_round() -> None:
    verdict = certify(ORIGIN, CANDIDATE, evaluator=QuadraticPools(optimum_P=-ONE), config=GATE, seed=7, round_number=3)

    with pytest.raises(
        SealError, match=r"^round 3 was rejected \(p-value 1 of a lower loss is above 0\.05\), expected"
    ):
        certificate_body(GIVEN, CANDIDATE, verdict, nodes=COUNTS, run="demo", config=CONFIG)
