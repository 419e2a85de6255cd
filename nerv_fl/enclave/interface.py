"""What goes into the enclave for a round and what comes out: nothing else crosses its border.

Shapes: N admitted nodes, P parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.records import GateSummary, Homomorphism, NodeCounts, ShapleySummary, ValueSummary
from nerv_fl.types import Vector


@dataclass(frozen=True, kw_only=True)
class RoundInput:
    """A round as the server hands it to the enclave.

    Attributes:
        round_number: From 1.
        theta_P: The encoder that stands, float32.
        base_hash: Its hash.
        optimizer: The server optimiser's state.
        move_P: The encoder's last change, zeros before the first.
        cohort: Nodes that were asked, ascending.
        envelopes: Sealed updates, in any order.
        weights: Public weight of each node.
    """

    round_number: int
    theta_P: Vector
    base_hash: str
    optimizer: OptimizerState
    move_P: Vector
    cohort: tuple[int, ...]
    envelopes: Sequence[bytes]
    weights: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class NodeValue:
    """What a node's update was worth, in units of loss (nats), with its standard error and 95 % interval.

    `flag` is empty or "clone"; a flagged node is paid nothing.
    """

    node: int
    value: float
    standard_error: float
    ci_low: float
    ci_high: float
    flag: str


@dataclass(frozen=True, kw_only=True)
class EnclaveSeconds:
    """Wall time of the enclave's stages."""

    open: float
    aggregate: float
    shapley: float
    gate: float


@dataclass(frozen=True, kw_only=True)
class RoundOutcome:
    """What the enclave says of a round: never an update.

    Attributes:
        accepted: Whether the new encoder is committed.
        reason: Empty, or why the round was rejected.
        step: The accepted step; 0 if rejected.
        theta_P: The encoder that stands afterwards.
        optimizer: The optimiser state that stands afterwards.
        homomorphism: Bound test of the candidate, or None if there was none.
        gate: P-value and ratios.
        values: A value for each admitted node; empty if rejected, or if nobody is valued.
        heard: Nodes that are proven to have answered.
        flags: What each admitted node is suspected of whose update was left out.
        faults: Refusal reason of each node whose fault its own signature proves.
        nodes: Counts.
        shapley: How it was valued.
        value: Utility of the cohort and of the empty coalition.
        certificate: Signed text, or None if no candidate came that far.
        seconds: Wall time.
    """

    accepted: bool
    reason: str
    step: float
    theta_P: Vector
    optimizer: OptimizerState
    homomorphism: Homomorphism | None
    gate: GateSummary
    values: tuple[NodeValue, ...]
    heard: frozenset[int]
    flags: Mapping[int, str]
    faults: Mapping[int, str]
    nodes: NodeCounts
    shapley: ShapleySummary
    value: ValueSummary
    certificate: str | None
    seconds: EnclaveSeconds


class Border(Protocol):
    """All that the server sees of an enclave, wherever that is."""

    @property
    def evidence(self) -> str:
        """The signed statement of its public keys and code, for nodes to check."""

    def process(self, given: RoundInput) -> RoundOutcome:
        """Run one round on its envelopes; a rejected round leaves encoder and optimiser as they were."""
