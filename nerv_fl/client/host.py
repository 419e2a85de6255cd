"""The block of nodes that one process hosts: one resident model, one optimiser, one thread, however many nodes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from nerv_fl.arrays import IntArray
from nerv_fl.checks import in_range
from nerv_fl.client.node import Node, RoundOrder
from nerv_fl.client.train import LocalTraining, Records, Trainer, train_honestly
from nerv_fl.config import RunConfig
from nerv_fl.errors import ConfigError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.rng import stream
from nerv_fl.sealing import VerifyKey
from nerv_fl.store import Ledger, open_ledger
from nerv_fl.store.partition import by_chain, by_dirichlet
from nerv_fl.threads import use_one_thread

Answers: TypeAlias = tuple[Mapping[int, bytes], tuple[int, ...]]

log = logging.getLogger(__name__)

MAX_MOVEMENT_FLOOR: Final = 1.0
"""f is a tenth of a median |sum delta|, which never reaches 2: whatever the server sends, the loss stays defined."""


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """What a hosting process needs to know, all of it its own.

    Attributes:
        config: The settings its nodes agreed to.
        ledger: Ledger file or folder that holds the shards of all nodes; `shards_of` says whose is what.
        nodes: Folder that holds each node's folder.
        vendor_root: Pinned public key of the (mock) vendor root.
        code_hash: Hash of the enclave code that the nodes trust.
        simulated: Whether sampling and noise are seeded.
        training: What its nodes do with their work; only a simulation may have adversaries among them.

    Raises:
        ConfigError: If the settings name adversaries and this is no simulation.
    """

    config: RunConfig
    ledger: Path
    nodes: Path
    vendor_root: VerifyKey
    code_hash: str
    simulated: bool
    training: LocalTraining = train_honestly

    def __post_init__(self) -> None:
        """Refuse to cheat in earnest."""
        if self.config.adversaries.any and not self.simulated:
            raise ConfigError("adversaries are set, expected none outside a simulation")


class NodeHost:
    """Answers for many nodes with one model.

    Args:
        settings: The host's settings.
        movement_floor: f of the loss, a public constant.
    """

    def __init__(self, settings: HostSettings, *, movement_floor: float) -> None:
        in_range("movement_floor", movement_floor, low=0, high=MAX_MOVEMENT_FLOOR, open_low=True)
        use_one_thread()
        config = settings.config
        encoder = Encoder(get_preset(config.model.preset), readout=config.model.readout)
        self._settings = settings
        self._trainer = Trainer(
            encoder, training=config.training, privacy=config.privacy, movement_floor=movement_floor
        )
        self._ledger = open_ledger(settings.ledger)
        self._ledger.require_accounts(encoder.preset.num_accounts)
        self._shards = shards_of(self._ledger, config)

    def answer(self, order: RoundOrder, numbers: Sequence[int]) -> Answers:
        """Return each node's envelope, and the nodes that have none; no node's failure is another's.

        Why a node refused is logged here and leaves in no other form: an error's text may name what the node holds.
        """
        envelopes: dict[int, bytes] = {}
        refusing: list[int] = []
        for number in numbers:
            try:
                envelopes[number] = self._node(number).answer(order, trainer=self._trainer, ledger=self._ledger)
            except Exception:  # whatever happens in one node stays in it
                log.exception("node %d gives no update for round %d", number, order.round_number)
                refusing.append(number)
        return envelopes, tuple(refusing)

    def _node(self, number: int) -> Node:
        settings = self._settings
        return Node(
            number,
            node_folder(settings.nodes, number),
            samples=samples_of(self._shards[number], steps=self._ledger.info.steps),
            config=settings.config,
            vendor_root=settings.vendor_root,
            code_hash=settings.code_hash,
            simulated=settings.simulated,
            training=settings.training,
        )


def shards_of(ledger: Ledger, config: RunConfig) -> IntArray:
    """Return the chains of each node, int64 [num_nodes, chains_per_node]: the same in every process of a run.

    Raises:
        DataError: If the ledger has too few chains.
    """
    data, num_nodes = config.data, config.federation.num_nodes
    if data.partition == "chain":
        return by_chain(ledger.info.chains, num_nodes=num_nodes, chains_per_node=data.chains_per_node)
    return by_dirichlet(
        ledger.shard_kinds(),
        num_nodes=num_nodes,
        chains_per_node=data.chains_per_node,
        alpha=data.dirichlet_alpha,
        stream=stream(config.seed, "partition"),
    )


def samples_of(chains: IntArray, *, steps: int) -> Records:
    """Return the samples of whole chains, int64 [chains x steps]."""
    return np.asarray(chains[:, None] * steps + np.arange(steps)).reshape(-1)


def node_folder(nodes: Path, number: int) -> Path:
    """Return the folder of one node."""
    return nodes / f"{number:05d}"


@lru_cache(maxsize=1)
def resident_host(settings: HostSettings, *, movement_floor: float) -> NodeHost:
    """Return the process's host, built once."""
    return NodeHost(settings, movement_floor=movement_floor)
