"""The valid inputs that fuzzing starts from: a vendor, an enclave, two nodes, their envelopes and a certificate."""

from dataclasses import asdict
from functools import cache, cached_property
from typing import Any, Final

import numpy as np

from nerv_fl import rng
from nerv_fl.config import PROTOCOL_BOUND, PROTOCOL_SIGMA, GateConfig
from nerv_fl.crypto import (
    CODECS,
    Context,
    Evidence,
    OpeningKey,
    SigningKey,
    VerifyKey,
    encode_update,
    issue_evidence,
    seal,
    sign_document,
)
from nerv_fl.models.homomorphism import clopper_pearson_low
from nerv_fl.models.weights import vector_hash
from nerv_fl.types import Vector

RUN: Final = "fuzz"
NODE: Final = 3
OTHER: Final = 4
NUM_PARAMETERS: Final = 1100
MAX_NORM: Final = 100.0
CODE: Final = "ab" * 32


class Cast:
    """Whoever takes part, with fixed keys; `forger` is another vendor, whom nobody pinned."""

    vendor: Final = SigningKey(b"vendor".ljust(32))
    forger: Final = SigningKey(b"forger".ljust(32))
    signer: Final = SigningKey(b"enclave".ljust(32))
    opening_key: Final = OpeningKey(b"enclave".ljust(96))
    elsewhere: Final = OpeningKey(b"elsewhere".ljust(96))

    @cached_property
    def nodes(self) -> dict[int, SigningKey]:
        """The nodes' keys."""
        return {node: SigningKey(f"node {node}".encode().ljust(32)) for node in (NODE, OTHER)}

    @cached_property
    def roster(self) -> dict[int, VerifyKey]:
        """The nodes' public keys."""
        return {node: key.verify_key for node, key in self.nodes.items()}

    @cached_property
    def root(self) -> VerifyKey:
        """The vendor root that everyone pinned."""
        return self.vendor.verify_key

    @cached_property
    def theta(self) -> Vector:
        """The encoder that stands, float32 (P,)."""
        return rng.stream(7, "theta").standard_normal(NUM_PARAMETERS, dtype="float32")

    @cached_property
    def context(self) -> Context:
        """What node 3 answers."""
        return Context(run=RUN, round=7, node=NODE, base_hash=vector_hash(self.theta))

    @staticmethod
    @cache
    def payload(codec: str = "fp32", *, node: int = NODE) -> bytes:
        """Return a node's update of norm 1 as bytes."""
        update_P = rng.stream(7, "update", node).standard_normal(NUM_PARAMETERS, dtype="float32")
        update_P /= np.linalg.norm(update_P)
        return encode_update(update_P, codec=codec, rounding=rng.stream(7, "rounding", node))

    def seal(self, payload: bytes, *, context: Context | None = None, enclave: OpeningKey | None = None) -> bytes:
        """Return an envelope, signed by the node that its context names."""
        whole = context or self.context
        key = (enclave or self.opening_key).sealing_key
        return seal(payload, context=whole, sealing_key=key, signing_key=self.nodes[whole.node])

    @cached_property
    def envelopes(self) -> tuple[bytes, ...]:
        """Node 3's envelope, and real ones of another node, round, base model, run and enclave."""
        fields = asdict(self.context)
        changes: list[dict[str, Any]] = [{}, {"node": OTHER}, {"round": 6}, {"base_hash": "00" * 32}, {"run": "other"}]
        sealed = [self.seal(self.payload(), context=Context(**fields | change)) for change in changes]
        return (*sealed, self.seal(self.payload(), enclave=self.elsewhere))

    def evidence(self, vendor: SigningKey, *, run: str = RUN) -> Evidence:
        """Return a vendor's evidence for the enclave."""
        keys = {"sealing_key": self.opening_key.sealing_key, "verify_key": self.signer.verify_key}
        return issue_evidence(vendor, **keys, code_hash=CODE, run=run, nonce="n-1")  # type: ignore[arg-type]

    @cached_property
    def evidences(self) -> tuple[bytes, ...]:
        """The enclave's evidence, and that for another run and of another vendor."""
        real, other = self.evidence(self.vendor), self.evidence(self.vendor, run="other")
        return tuple(item.to_text().encode() for item in (real, other, self.evidence(self.forger)))

    @cached_property
    def certificates(self) -> tuple[bytes, ...]:
        """An accepted round's certificate, and one of another round by an enclave that nobody pinned."""
        real = sign_document(statement(), key=self.signer, evidence=self.evidence(self.vendor))
        foreign = sign_document(statement() | {"round": 8}, key=self.signer, evidence=self.evidence(self.forger))
        return real.encode(), foreign.encode()


def statement() -> dict[str, Any]:
    """Return the body of an encoder's certificate whose numbers support its verdict."""
    gate = asdict(GateConfig())
    num_batches, measures = gate["bound_batches"], {"masked_ce": 3.6, "drift_relative": 0.1}
    return {
        "kind": "nerv_fl homomorphism certificate",
        "version": 1,
        "run": RUN,
        "task": "encoder",
        "round": 7,
        "base_hash": "00" * 32,
        "model_hash": CODE,
        "step": 1.0,
        "preset": "quickstart",
        "sigma": PROTOCOL_SIGMA,
        "sampling_seed": CODE,
        "limits": {key: value for key, value in gate.items() if isinstance(value, int | float)},
        "homomorphism": {
            "max": 1e-16,
            "p999": 1e-16,
            "mean": 1e-17,
            "bound": PROTOCOL_BOUND,
            "n": num_batches,
            "violations": 0,
            "pass_fraction_low": clopper_pearson_low(num_batches, num_batches),
        },
        "p_value": 1e-4,
        "before": measures | {"effective_rank": 25.0, "mean_norm": 1.0},
        "after": measures | {"effective_rank": 25.1, "mean_norm": 1.0},
        "nodes": {"sampled": 2, "heard": 2, "admitted": 2, "refused": {}, "clones": 0, "flagged": {}},
    }


CODEC_NAMES: Final = tuple(CODECS)
