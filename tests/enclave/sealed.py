"""Envelopes of round 3 as nodes 0 to 5 seal them, and a round that opens them; node 4 was not asked."""

from collections.abc import Mapping

import numpy as np

from nerv_fl.config import RunConfig
from nerv_fl.crypto import Context, OpeningKey, VerifyKey, encode_update, seal
from nerv_fl.enclave.admission import AdmissionLog, Admitted, open_round
from nerv_fl.enclave.screening import examiner
from nerv_fl.types import Vector
from tests.enclave.one_round import RUN, signing_key

P = 5
BASE = "c0ffee"
OPENING = OpeningKey(b"enclave".ljust(96))
ELSEWHERE = OpeningKey(b"another".ljust(96))


def envelope(
    node: int,
    update_P: Vector | None = None,
    *,
    run: str = RUN,
    round_number: int = 3,
    base_hash: str = BASE,
    signer: int | None = None,
    enclave: OpeningKey = OPENING,
    payload: bytes | None = None,
) -> bytes:
    update_P = np.full(P, node, dtype=np.float32) if update_P is None else update_P
    return seal(
        encode_update(update_P) if payload is None else payload,
        context=Context(run=run, round=round_number, node=node, base_hash=base_hash),
        sealing_key=enclave.sealing_key,
        signing_key=signing_key(node if signer is None else signer),
    )


def opened(
    envelopes: list[bytes],
    log: AdmissionLog,
    *,
    round_number: int = 3,
    num_registered: int = 6,
    roster: Mapping[int, VerifyKey] | None = None,
    memory_mb: float = 1.0,
    codec: str = "fp32",
    num_parameters: int = P,
    workers: int = 1,
) -> Admitted:
    return open_round(
        envelopes,
        run=RUN,
        round_number=round_number,
        base_hash=BASE,
        cohort=(0, 1, 2, 3, 5),
        roster=roster or {node: signing_key(node).verify_key for node in range(num_registered)},
        opening_key=OPENING,
        log=log,
        num_parameters=num_parameters,
        codec=codec,
        max_norm=300.0,
        memory_mb=memory_mb,
        examine=examiner(np.eye(1, num_parameters, dtype=np.float32), config=RunConfig()),
        workers=workers,
    )


def tampered(original: bytes) -> bytes:
    return original[:-1] + bytes([original[-1] ^ 1])
