"""The block of nodes that one process hosts: one resident model, one optimiser, one thread, however many nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from nerv_fl.client.node import Node, RoundOrder
from nerv_fl.client.train import Trainer
from nerv_fl.config import RunConfig
from nerv_fl.errors import NervError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.sealing import VerifyKey
from nerv_fl.store import LedgerFile
from nerv_fl.threads import use_one_thread

Answers: TypeAlias = tuple[Mapping[int, bytes], Mapping[int, str]]


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """What a hosting process needs to know, all of it its own.

    Attributes:
        config: The settings its nodes agreed to.
        ledger: Ledger file; node i's shard is samples i n to (i + 1) n, n being `data.samples_per_node`.
        nodes: Folder that holds each node's folder.
        vendor_root: Pinned public key of the (mock) vendor root.
        simulated: Whether sampling and noise are seeded.
    """

    config: RunConfig
    ledger: Path
    nodes: Path
    vendor_root: VerifyKey
    simulated: bool


class NodeHost:
    """Answers for many nodes with one model.

    Args:
        settings: The host's settings.
        movement_floor: f of the loss, a public constant.
    """

    def __init__(self, settings: HostSettings, *, movement_floor: float) -> None:
        use_one_thread()
        config = settings.config
        encoder = Encoder(get_preset(config.model.preset), readout=config.model.readout)
        self._settings = settings
        self._trainer = Trainer(
            encoder, training=config.training, privacy=config.privacy, movement_floor=movement_floor
        )
        self._ledger = LedgerFile(settings.ledger)
        self._ledger.require_accounts(encoder.preset.num_accounts)

    def answer(self, order: RoundOrder, numbers: Sequence[int]) -> Answers:
        """Return each node's envelope, and in words why a node refused; no node's failure is another's."""
        envelopes: dict[int, bytes] = {}
        refusals: dict[int, str] = {}
        for number in numbers:
            try:
                envelopes[number] = self._node(number).answer(order, trainer=self._trainer, ledger=self._ledger)
            except (NervError, OSError) as error:
                refusals[number] = f"{type(error).__name__}: {error}"
        return envelopes, refusals

    def _node(self, number: int) -> Node:
        settings, size = self._settings, self._settings.config.data.samples_per_node
        return Node(
            number,
            node_folder(settings.nodes, number),
            samples=(number * size, (number + 1) * size),
            config=settings.config,
            vendor_root=settings.vendor_root,
            simulated=settings.simulated,
        )


def node_folder(nodes: Path, number: int) -> Path:
    """Return the folder of one node."""
    return nodes / f"{number:05d}"


@lru_cache(maxsize=1)
def resident_host(settings: HostSettings, *, movement_floor: float) -> NodeHost:
    """Return the process's host, built once."""
    return NodeHost(settings, movement_floor=movement_floor)
