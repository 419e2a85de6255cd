import json
import math
from pathlib import Path

import numpy as np
import pytest

from nerv_fl.config import RunConfig, build
from nerv_fl.crypto import decode_update, encode_update
from nerv_fl.enclave import admission as opening
from nerv_fl.enclave.admission import AdmissionLog, largest_honest_norm
from nerv_fl.errors import CheckpointError
from nerv_fl.types import Vector
from tests.enclave.sealed import ELSEWHERE, P, envelope, opened, tampered


@pytest.fixture
def log(tmp_path: Path) -> AdmissionLog:
    return AdmissionLog(tmp_path / "admitted.json")


def test_updates_come_in_node_order_whatever_order_they_arrive_in(log: AdmissionLog) -> None:
    admitted = opened([envelope(3), envelope(0), envelope(2)], log)

    assert admitted.nodes == (0, 2, 3)
    assert admitted.updates.stacked().tolist() == [[0.0] * P, [2.0] * P, [3.0] * P]
    assert admitted.updates.stacked().dtype == np.float32
    assert (admitted.refused, admitted.faults) == ({}, {})


@pytest.mark.parametrize("memory_mb", [0.0, 2 * 4 * P / 2**20])
def test_updates_beyond_the_memory_are_opened_again(
    memory_mb: float, log: AdmissionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    admitted = opened([envelope(3), envelope(0), envelope(2)], log, memory_mb=memory_mb)
    again: list[bytes] = []

    def counted(payload: bytes, *, num_parameters: int, codec: str) -> Vector:
        again.append(payload)
        return decode_update(payload, num_parameters=num_parameters, codec=codec)

    monkeypatch.setattr(opening, "decode_update", counted)

    assert admitted.updates.stacked().tolist() == [[0.0] * P, [2.0] * P, [3.0] * P]
    assert len(again) == (1 if memory_mb else 3)


def test_no_envelope_at_all(log: AdmissionLog) -> None:
    admitted = opened([], log)

    assert admitted.nodes == ()
    assert admitted.updates.stacked().shape == (0, P)


BLAMELESS = {
    "too-large": b"x" * 8001,
    "malformed": b"x",
    "wrong-context": envelope(2, run="another"),
    "wrong-enclave": envelope(2, enclave=ELSEWHERE),
    "bad-signature": tampered(envelope(2)),
    "not-in-cohort": envelope(4),
}
NAN = np.array([0, 0, np.nan, np.inf, 0], dtype=np.float32)
BLAMED = {
    "bad-payload": envelope(2, payload=b"fp32"),
    "not-finite": envelope(2, NAN),
    "too-long": envelope(2, np.full(P, 1e10, dtype=np.float32)),
}


@pytest.mark.parametrize("reason", sorted(BLAMELESS))
def test_refusal_that_may_be_the_carriers_work_is_counted_and_blames_nobody(reason: str, log: AdmissionLog) -> None:
    admitted = opened([envelope(0), BLAMELESS[reason], envelope(1)], log)

    assert admitted.nodes == (0, 1)
    assert admitted.refused == {reason: 1}
    assert admitted.faults == {}


@pytest.mark.parametrize("reason", sorted(BLAMED))
def test_refusal_that_only_the_signer_can_have_caused_is_its_fault(reason: str, log: AdmissionLog) -> None:
    admitted = opened([envelope(0), BLAMED[reason], envelope(1)], log)

    assert admitted.nodes == (0, 1)
    assert admitted.refused == {reason: 1}
    assert admitted.faults == {2: reason}


def test_the_runs_codec_is_the_only_one_and_another_is_the_signers_fault(log: AdmissionLog) -> None:
    whole = np.full(P, 127, dtype=np.float32)
    payload = encode_update(whole, codec="int8", rounding=np.random.default_rng(0))

    admitted = opened([envelope(0), envelope(2, payload=payload)], log, codec="int8")

    assert admitted.updates.stacked().tolist() == [[127.0] * P]
    assert admitted.refused == {"bad-payload": 1}
    assert admitted.faults == {0: "bad-payload"}


def test_the_largest_envelope_is_that_of_the_codec(log: AdmissionLog) -> None:
    """A full fp32 update is longer than any int8 envelope of a model this large, and is not even read."""
    num_parameters = 3000
    fp32 = envelope(2, np.zeros(num_parameters, np.float32))

    refusals = [
        opened([fp32], log, codec=codec, num_parameters=num_parameters).refused for codec in ("int8", "bf16", "fp32")
    ]

    assert refusals == [{"too-large": 1}, {"too-large": 1}, {}]


@pytest.mark.parametrize("field", [{"round_number": 4}, {"base_hash": "beef"}, {"run": "x"}])
def test_another_round_base_or_run_is_the_wrong_context(field: dict[str, object], log: AdmissionLog) -> None:
    assert opened([envelope(2, **field)], log).refused == {"wrong-context": 1}  # type: ignore[arg-type]


def test_somebody_elses_signature(log: AdmissionLog) -> None:
    assert opened([envelope(2, signer=3)], log).refused == {"bad-signature": 1}


def test_node_without_a_key_on_the_roster(log: AdmissionLog) -> None:
    assert opened([envelope(5)], log, num_registered=5).refused == {"unknown-signer": 1}


def test_the_first_valid_envelope_of_a_node_wins(log: AdmissionLog) -> None:
    first, second = envelope(2, np.ones(P, np.float32)), envelope(2, np.zeros(P, np.float32))

    admitted = opened([tampered(first), first, second, first], log)

    assert admitted.updates.stacked().tolist() == [[1.0] * P]
    assert admitted.refused == {"bad-signature": 1, "duplicate": 2}


def test_threads_change_nothing(log: AdmissionLog, tmp_path: Path) -> None:
    first, second = envelope(2, np.ones(P, np.float32)), envelope(2, np.zeros(P, np.float32))
    sent = [
        envelope(3),
        tampered(first),
        first,
        b"x",
        second,
        BLAMELESS["not-in-cohort"],
        envelope(1, NAN),
        envelope(0),
    ]

    alone, together = opened(sent, log), opened(sent, AdmissionLog(tmp_path / "other.json"), memory_mb=0.0, workers=3)

    assert together.nodes == alone.nodes == (0, 2, 3)
    assert np.array_equal(together.updates.stacked(), alone.updates.stacked())
    assert [item.square for item in together.traits] == [item.square for item in alone.traits] == [0.0, 5.0, 45.0]
    assert together.refused == alone.refused
    assert together.faults == alone.faults == {1: "not-finite"}
    assert (tmp_path / "other.json").read_text() == (tmp_path / "admitted.json").read_text()


def test_a_second_envelope_is_not_even_opened(log: AdmissionLog) -> None:
    assert opened([envelope(2), envelope(2, NAN)], log).faults == {}


def test_the_first_envelope_survives_a_restart(tmp_path: Path) -> None:
    """What was admitted before a crash is admitted again; a second one of the same node never is."""
    path = tmp_path / "admitted.json"
    first, second = envelope(2), envelope(2)
    opened([first, envelope(1)], AdmissionLog(path))

    assert opened([second, first], AdmissionLog(path)).refused == {"duplicate": 1}
    assert opened([second], AdmissionLog(path)).nodes == ()


def test_a_refused_envelope_takes_nobodys_place(tmp_path: Path) -> None:
    path = tmp_path / "admitted.json"
    opened([envelope(2, NAN), envelope(1)], AdmissionLog(path))

    assert opened([envelope(2)], AdmissionLog(path)).nodes == (2,)


def test_the_log_keeps_one_round(tmp_path: Path) -> None:
    path = tmp_path / "admitted.json"
    opened([envelope(1), envelope(2)], AdmissionLog(path))
    opened([envelope(2, round_number=4)], AdmissionLog(path), round_number=4)

    assert list(json.loads(path.read_text())) == ["4/2"]


@pytest.mark.parametrize("content", ["[]", "{", ""])
def test_damaged_log(content: str, tmp_path: Path) -> None:
    path = tmp_path / "admitted.json"
    path.write_text(content)

    with pytest.raises(CheckpointError, match=f"^{path} is not an admission log "):
        AdmissionLog(path)


def test_the_log_remembers_a_node_that_was_left_out_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "admitted.json"
    first, second = envelope(2), envelope(2)
    opened([first], AdmissionLog(path))
    opened([envelope(1)], AdmissionLog(path))

    assert opened([second], AdmissionLog(path)).refused == {"duplicate": 1}


def test_an_honest_update_is_far_below_the_largest_norm() -> None:
    """One step at rate 1: clip 1 plus noise of norm 0.5 sqrt(P) / 64, times 5."""
    assert largest_honest_norm(RunConfig(), 64**2) == pytest.approx(5 * (1 + 0.5))
    assert largest_honest_norm(RunConfig(), 49_376) == pytest.approx(5 * (1 + 0.5 * 49_376**0.5 / 64))


def test_the_largest_norm_follows_the_mechanism_and_without_a_clip_there_is_none() -> None:
    config = build({"privacy.protocol": False, "privacy.sigma": 2.0, "privacy.clip": 3.0})
    assert largest_honest_norm(config, 64**2) == pytest.approx(5 * 3 * (1 + 2))
    assert largest_honest_norm(build({"privacy.protocol": False, "privacy.mechanism": "none"}), 64**2) == math.inf
