"""Nodes that sign anything, and carriers that alter it: who is believed, who is blamed, and what that costs."""

import gzip
import hashlib
import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from benchmarks.bench_fuzz import fuzz, peak_mb
from nerv_fl.crypto import Reason, SigningKey, encode_update, read_envelope
from nerv_fl.enclave.admission import AdmissionLog
from tests.enclave.one_round import signing_key
from tests.enclave.sealed import ELSEWHERE, P, envelope, opened, tampered
from tests.strategy.test_server_state import REWARDS, outcome, state  # noqa: F401 (a fixture)


@pytest.fixture
def log(tmp_path: Path) -> AdmissionLog:
    return AdmissionLog(tmp_path / "admitted.json")


def unopenable(node: int = 2) -> bytes:
    """Return an envelope whose node signed a ciphertext that is none."""
    real = envelope(node)
    read = read_envelope(real)
    garbage = bytes(len(read.ciphertext))
    header = replace(read.header, ciphertext=hashlib.sha256(garbage).hexdigest()).to_bytes()
    signature = signing_key(node).sign(real[:8] + header, context=b"nerv_fl envelope v1")
    return real[:8] + len(header).to_bytes(4, "big") + header + signature + garbage


NAN = np.array([0, 0, np.nan, np.inf, 0], dtype=np.float32)
ASKED: dict[Reason, Callable[[], list[bytes]]] = {
    "too-large": lambda: [envelope(2) + bytes(8000)],
    "malformed": lambda: [envelope(2)[:-1]],
    "wrong-context": lambda: [envelope(2, round_number=2)],
    "unknown-signer": lambda: [envelope(5)],
    "wrong-enclave": lambda: [envelope(2, enclave=ELSEWHERE)],
    "bad-signature": lambda: [tampered(envelope(2))],
    "does-not-open": lambda: [unopenable()],
    "bad-payload": lambda: [envelope(2, payload=b"fp32")],
    "not-finite": lambda: [envelope(2, NAN)],
    "too-long": lambda: [envelope(2, np.full(P, 1e10, dtype=np.float32))],
    "not-in-cohort": lambda: [envelope(4)],
    "duplicate": lambda: [envelope(2), envelope(2)],
}
PROVEN = {"does-not-open", "bad-payload", "not-finite", "too-long"}


@pytest.mark.parametrize("reason", get_args(Reason))
def test_reputation_falls_for_proven_faults_alone(
    reason: Reason,
    log: AdmissionLog,
    request: pytest.FixtureRequest,
) -> None:
    before = request.getfixturevalue("state")

    admitted = opened([envelope(1), *ASKED[reason]()], log, num_registered=5)
    after, rows, _ = before.after(outcome(faults=dict(admitted.faults)), trained=frozenset(range(6)), rewards=REWARDS)

    assert admitted.refused == {reason: 1}
    fallen = {node for node in range(6) if after.reputations[node] < before.reputations[node]}
    assert fallen == ({2} if reason in PROVEN else set())
    assert [(row.node, row.flag) for row in rows] == [(node, reason) for node in fallen]


def test_a_fault_is_anothers_only_if_that_other_signed_it(log: AdmissionLog) -> None:
    """Node 3 cannot have node 2 punished for what node 3 made."""
    forged = [envelope(2, NAN, signer=3), envelope(2, payload=b"fp32", signer=3), envelope(2, signer=3)]

    admitted = opened([*forged, envelope(2)], log)

    assert (admitted.nodes, admitted.faults) == ((2,), {})
    assert admitted.refused == {"bad-signature": 3}


def test_a_key_that_was_replaced_signs_nothing_more(log: AdmissionLog) -> None:
    fresh = SigningKey(b"node 2, again".ljust(32)).verify_key
    roster = {node: signing_key(node).verify_key for node in range(6)} | {2: fresh}

    admitted = opened([envelope(1), envelope(2), envelope(2, NAN)], log, roster=roster)

    assert admitted.nodes == (1,)
    assert admitted.refused == {"bad-signature": 2}
    assert admitted.faults == {}


SIGNALLING = np.array([0x7FA00000] * P, dtype=np.uint32).view(np.float32)
SIGNED = {
    "NaN": (NAN, "not-finite"),
    "signalling NaN": (SIGNALLING, "not-finite"),
    "infinity": (np.full(P, -np.inf, np.float32), "not-finite"),
    "the largest float": (np.full(P, np.finfo(np.float32).max, np.float32), "too-long"),
    "just too long": (np.full(P, 300.1 / P**0.5, np.float32), "too-long"),
}


@pytest.mark.parametrize("name", SIGNED)
def test_what_a_node_signs_is_finite_and_bounded_or_its_fault(name: str, log: AdmissionLog) -> None:
    update_P, reason = SIGNED[name]

    admitted = opened([envelope(1), envelope(2, update_P)], log)

    assert (admitted.nodes, admitted.faults) == ((1,), {2: reason})
    assert opened([envelope(2, np.full(P, 299.9 / P**0.5, np.float32))], log).nodes == (2,)


def npz() -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, np.zeros(10**6, np.float32))
    return packed.getvalue()


WHOLE = encode_update(np.ones(P, np.float32))
PAYLOADS = {
    "a number missing": encode_update(np.ones(P - 1, np.float32)),
    "a number too many": encode_update(np.ones(P + 1, np.float32)),
    "float64": WHOLE[:12] + np.ones(P).tobytes(),
    "float16": WHOLE[:12] + np.ones(P, np.float16).tobytes(),
    "another codec": encode_update(np.ones(P, np.float32), codec="int8", rounding=np.random.default_rng(0)),
    "packed": gzip.compress(WHOLE),
    "an archive that unpacks to 4 MB": npz(),
    "a claim of 2^63 numbers": struct.pack("<4sQ", b"fp32", 2**63),
    "a claim of P numbers": struct.pack("<4sQ", b"fp32", P),
    "nothing": b"",
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_another_type_shape_or_archive_is_its_fault(name: str, log: AdmissionLog) -> None:
    before_mb = peak_mb()
    data = envelope(2, payload=PAYLOADS[name])

    admitted = opened([envelope(1), data], log)

    read_unasked = len(PAYLOADS[name]) > len(WHOLE) + 1500
    assert admitted.nodes == (1,)
    assert admitted.refused == {"too-large" if read_unasked else "bad-payload": 1}
    assert admitted.faults == ({} if read_unasked else {2: "bad-payload"})
    assert peak_mb() - before_mb < 32


def renamed(data: bytes, **changes: Any) -> bytes:
    """Return a real envelope with another context in its header, its lengths put right."""
    read = read_envelope(data)
    header = replace(read.header, context=replace(read.header.context, **changes)).to_bytes()
    return data[:8] + len(header).to_bytes(4, "big") + header + read.signature + bytes(read.ciphertext)


def test_a_replay_counts_for_nothing_in_its_round_or_a_later_one(tmp_path: Path) -> None:
    first = envelope(2)
    path = tmp_path / "admitted.json"

    again = opened([first, first, first], AdmissionLog(path))
    later = opened([first, renamed(first, round=4), envelope(2, round_number=4)], AdmissionLog(path), round_number=4)
    other = opened([renamed(first, node=3), renamed(first, base_hash="beef")], AdmissionLog(tmp_path / "other.json"))

    assert (again.nodes, again.refused) == ((2,), {"duplicate": 2})
    assert (later.nodes, later.refused) == ((2,), {"bad-signature": 1, "wrong-context": 1})
    assert (other.nodes, other.refused) == ((), {"bad-signature": 1, "wrong-context": 1})
    assert again.faults == later.faults == other.faults == {}


def test_a_carrier_can_neither_blame_nor_exclude() -> None:
    """Whatever is sent beside them, both honest envelopes are admitted and nobody is at fault, or `fuzz` raises."""
    outcomes, _ = fuzz("carrier", 100, seed=11)

    assert outcomes.total() == 100
