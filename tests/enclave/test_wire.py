"""A round crosses the border of the enclave's process in whole, and as data alone."""

import json
import pickle
from dataclasses import replace
from typing import Final

import numpy as np
import pytest

from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.interface import RoundInput
from nerv_fl.enclave.wire import from_parts, to_parts
from nerv_fl.errors import AggregationError

P: Final = 5


def numbers(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=P).astype(np.float32)


GIVEN: Final = RoundInput(
    round_number=3,
    theta_P=numbers(1),
    base_hash="c0ffee",
    optimizer=OptimizerState(momentum_P=numbers(2), second_P=numbers(3), num_rounds=2),
    move_P=numbers(4),
    cohort=(1, 4, 7),
    envelopes=[b"one", b"", b"a third \x00 one"],
    weights={1: 0.1, 4: 4096.0, 7: 1 / 3},
)


def received(parts: list[bytes]) -> RoundInput:
    """Return what the enclave makes of the parts; it must want no more and no fewer."""
    rest = iter(parts[1:])
    found = from_parts(parts[0], lambda: next(rest))
    assert list(rest) == []
    return found


def test_what_comes_in_is_what_was_handed_over() -> None:
    found = received(list(to_parts(GIVEN)))

    for name in ("round_number", "base_hash", "cohort", "envelopes", "weights"):
        assert getattr(found, name) == getattr(GIVEN, name)
    assert found.optimizer.num_rounds == 2
    assert found.theta_P.tobytes() == GIVEN.theta_P.tobytes()
    assert found.move_P.tobytes() == GIVEN.move_P.tobytes()
    assert found.optimizer.momentum_P.tobytes() == GIVEN.optimizer.momentum_P.tobytes()
    assert found.optimizer.second_P.tobytes() == GIVEN.optimizer.second_P.tobytes()
    assert found.theta_P.flags.writeable


def test_numbers_that_are_not_finite_cross_as_they_are() -> None:
    strange_P = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], dtype=np.float32)

    assert received(list(to_parts(replace(GIVEN, move_P=strange_P)))).move_P.tobytes() == strange_P.tobytes()


def test_an_array_of_another_type_or_size_does_not_leave() -> None:
    with pytest.raises(AggregationError) as caught:
        list(to_parts(replace(GIVEN, move_P=np.zeros(P))))  # type: ignore[arg-type]
    assert str(caught.value) == "round 3 has an array float64 [5], expected float32 [5]"

    with pytest.raises(AggregationError) as caught:
        list(to_parts(replace(GIVEN, move_P=numbers(1)[:4])))
    assert str(caught.value) == "round 3 has an array float32 [4], expected float32 [5]"


class Bomb:
    """Runs code in whoever unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code from outside ran')",)


def test_nothing_that_comes_in_is_run() -> None:
    with pytest.raises(AggregationError, match=r"^round begins with b'.*', expected JSON$"):
        received([pickle.dumps(Bomb())])


@pytest.mark.parametrize("first", [b"[]", b"{}", json.dumps({"round": 1}).encode()])
def test_other_json_is_no_round(first: bytes) -> None:
    with pytest.raises(AggregationError, match=r"^round begins with b'.*', expected an object with base_hash, "):
        received([first])


def test_a_part_of_another_size_is_refused() -> None:
    parts = list(to_parts(GIVEN))

    with pytest.raises(AggregationError) as caught:
        received([*parts[:2], parts[2][:-1], *parts[3:]])

    assert str(caught.value) == "round has an array of 19 bytes, expected 20: 5 float32"
