"""A round as bytes, for an enclave in another process: what enters it are numbers and texts, never code.

    part  content
    0     JSON: round, base_hash, cohort, weights, num_accepted, num_parameters, num_envelopes
    1-4   float32, little-endian [P]: encoder, last change, first and second moment
    5...  one envelope each

Pickle would let whoever hands in a round run code inside. What comes out, a `RoundOutcome`, is the enclave's own word.

Shapes: P parameters.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.interface import RoundInput
from nerv_fl.errors import AggregationError
from nerv_fl.types import Vector

_NUMBER: Final = np.dtype("<f4")
_KEYS: Final = frozenset({"round", "base_hash", "cohort", "weights", "num_accepted", "num_parameters", "num_envelopes"})


def to_parts(given: RoundInput) -> Iterator[bytes]:
    """Yield a round's parts, one after another, so that no second copy of all envelopes stands in memory.

    Raises:
        AggregationError: If an array is not float32 of the encoder's size.
    """
    num_parameters, optimizer = len(given.theta_P), given.optimizer
    vectors = (given.theta_P, given.move_P, optimizer.momentum_P, optimizer.second_P)
    for vector_P in vectors:
        if vector_P.dtype != np.float32 or vector_P.shape != (num_parameters,):
            raise AggregationError(
                f"round {given.round_number} has an array {vector_P.dtype} {list(vector_P.shape)}, "
                f"expected float32 [{num_parameters}]"
            )
    facts = {
        "round": given.round_number,
        "base_hash": given.base_hash,
        "cohort": list(given.cohort),
        "weights": {str(node): weight for node, weight in given.weights.items()},
        "num_accepted": optimizer.num_rounds,
        "num_parameters": num_parameters,
        "num_envelopes": len(given.envelopes),
    }
    yield json.dumps(facts).encode()
    yield from (vector_P.astype(_NUMBER, copy=False).tobytes() for vector_P in vectors)
    yield from given.envelopes


def from_parts(first: bytes, receive: Callable[[], bytes]) -> RoundInput:
    """Read what `to_parts` yielded.

    Args:
        first: Part 0.
        receive: Returns the next part.

    Raises:
        AggregationError: If a part is not what part 0 announces.
    """
    facts = _facts(first)
    num_parameters = int(facts["num_parameters"])
    theta_P, move_P, momentum_P, second_P = (_vector(receive(), num_parameters) for _ in range(4))
    return RoundInput(
        round_number=int(facts["round"]),
        theta_P=theta_P,
        base_hash=str(facts["base_hash"]),
        optimizer=OptimizerState(momentum_P=momentum_P, second_P=second_P, num_rounds=int(facts["num_accepted"])),
        move_P=move_P,
        cohort=tuple(int(node) for node in facts["cohort"]),
        envelopes=[receive() for _ in range(int(facts["num_envelopes"]))],
        weights={int(node): float(weight) for node, weight in facts["weights"].items()},
    )


def _facts(first: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(first)
    except ValueError as error:
        raise AggregationError(f"round begins with {first[:40]!r}, expected JSON") from error
    if not isinstance(facts, dict) or facts.keys() != _KEYS:
        raise AggregationError(f"round begins with {first[:40]!r}, expected an object with {', '.join(sorted(_KEYS))}")
    return facts


def _vector(part: bytes, num_parameters: int) -> Vector:
    """Return a part as float32 [P], a copy that may be written."""
    if len(part) != _NUMBER.itemsize * num_parameters:
        raise AggregationError(
            f"round has an array of {len(part)} bytes, expected {_NUMBER.itemsize * num_parameters}: "
            f"{num_parameters} float32"
        )
    return np.frombuffer(part, _NUMBER).astype(np.float32)
