"""One round through a real enclave: updates are sealed and signed as nodes would, and it decides."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from nerv_fl.config import RunConfig
from nerv_fl.crypto import Context, SigningKey, encode_update, seal
from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.enclave.gate import Evaluator
from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.enclave.interface import RoundInput, RoundOutcome
from nerv_fl.enclave.round import Enclave
from nerv_fl.models.weights import vector_hash
from nerv_fl.types import Vector

RUN: Final = "one-round"


@cache
def signing_key(node: int) -> SigningKey:
    """Return a node's signing key, the same in every test."""
    return SigningKey(f"node {node}".encode().ljust(32))


def decide(
    updates: Mapping[int, Vector],
    *,
    theta_P: Vector,
    evaluator: Evaluator,
    config: RunConfig,
    folder: Path,
    num_asked: int | None = None,
    optimizer: OptimizerState | None = None,
    round_number: int = 1,
    weights: Mapping[int, float] | None = None,
) -> RoundOutcome:
    """Seal updates as their nodes would, and return what the enclave makes of them.

    Args:
        updates: By node.
        theta_P: The encoder that stands.
        evaluator: Measures encoders.
        config: The run's settings.
        folder: Where the enclave keeps its admission log.
        num_asked: Size of the cohort, nodes from 0 on; those of `updates` if None.
        optimizer: Its state; fresh if None.
        round_number: The round.
        weights: Of the nodes in the aggregate; 1 each if None.
    """
    identity = EnclaveIdentity.load_or_create(folder, run=RUN)
    keys = {node: signing_key(node) for node in updates}
    base_hash = vector_hash(theta_P)
    envelopes = [
        seal(
            encode_update(np.asarray(update_P, dtype=np.float32)),
            context=Context(run=RUN, round=round_number, node=node, base_hash=base_hash),
            sealing_key=identity.evidence.sealing_key,
            signing_key=keys[node],
        )
        for node, update_P in updates.items()
    ]
    roster = {node: key.verify_key for node, key in keys.items()}
    enclave = Enclave(identity, roster, evaluator=evaluator, config=config, run=RUN, folder=folder)
    return enclave.process(
        RoundInput(
            round_number=round_number,
            theta_P=theta_P,
            base_hash=base_hash,
            optimizer=optimizer or OptimizerState.empty(len(theta_P)),
            move_P=np.zeros_like(theta_P),
            cohort=tuple(range(num_asked)) if num_asked else tuple(sorted(updates)),
            envelopes=envelopes,
            weights=weights or dict.fromkeys(roster, 1.0),
        )
    )
