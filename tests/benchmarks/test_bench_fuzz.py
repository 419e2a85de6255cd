"""Ten thousand hostile inputs: each is refused as documented, or is one of the real ones; nothing else is accepted."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bench_fuzz import fuzz, peak_mb, share
from benchmarks.fuzz_targets import ACCEPTED, TARGETS, Broken
from benchmarks.mutate import mutate
from nerv_fl import rng
from nerv_fl.crypto import EnvelopeRefused, envelope
from nerv_fl.enclave import admission as opening
from nerv_fl.strategy import replies

EXAMPLES = 25
INPUTS = {"hostile_node": 12, "carrier": 20}
"""Inputs of each example; 40 where nothing is said."""

MUCH_MB = 64


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 2**32 - 1))
def test_nothing_altered_is_accepted_and_no_other_error_escapes(name: str, seed: int) -> None:
    fuzz(name, INPUTS.get(name, 40), seed=seed)


def test_they_are_ten_thousand_in_all() -> None:
    assert EXAMPLES * sum(INPUTS.get(name, 40) for name in TARGETS) >= 9_800


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_accepts_some_real_inputs_and_refuses_most_others(name: str) -> None:
    outcomes, _ = fuzz(name, 400, seed=7)

    assert 0 < outcomes[ACCEPTED] < 400 or name == "carrier"
    assert len(outcomes) > 1


def test_memory_does_not_grow_with_the_inputs() -> None:
    fuzz("envelope", 50, seed=1)
    before_mb = peak_mb()

    for name in ("envelope", "evidence", "certificate", "request", "payload"):
        fuzz(name, 200, seed=1)

    assert peak_mb() - before_mb < MUCH_MB


def planted_signature(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(envelope, "_check_signature", lambda *_, **__: None)


def planted_blame(patch: pytest.MonkeyPatch) -> None:
    def blame(what: str) -> EnvelopeRefused:
        return EnvelopeRefused(what, "malformed", attributable=True)

    patch.setattr(envelope, "_malformed", blame)


def planted_norm(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(opening, "_require_sane", lambda *_, **__: None)


def planted_size(patch: pytest.MonkeyPatch) -> None:
    def believe(data: bytes) -> np.ndarray[Any, Any]:
        return np.zeros(len(data), np.float32)

    patch.setattr("nerv_fl.client.train_request.read_vector", believe)


def planted_listener(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replies, "_list_of", lambda answer, key: answer[key])


def planted_evidence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("nerv_fl.crypto.keys.VerifyKey.verify", lambda *_, **__: None)


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (planted_signature, "envelope"),
        (planted_blame, "envelope"),
        (planted_norm, "hostile_node"),
        (planted_size, "request"),
        (planted_listener, "reply"),
        (planted_evidence, "evidence"),
        (planted_evidence, "certificate"),
    ],
)
def test_planted_bugs_are_found(
    plant: Callable[[pytest.MonkeyPatch], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)

    with pytest.raises((Broken, TypeError, KeyError, AttributeError)):
        fuzz(name, 1000, seed=7)


def test_mutations_start_from_what_is_valid_and_are_drawn_again_by_their_seed() -> None:
    valid = [b"0123456789" * 10, b"other" * 20]

    inputs = [mutate(valid, rng.stream(seed, "mutate")) for seed in range(300)]

    assert inputs == [mutate(valid, rng.stream(seed, "mutate")) for seed in range(300)]
    assert len(set(inputs)) > 250
    assert valid[0] in inputs
    assert max(map(len, inputs)) < 4096


def test_shares_are_those_that_were_asked_for() -> None:
    assert abs(sum(share(name, 10**6) for name in TARGETS) - 10**6) < len(TARGETS)
