"""The block of nodes that one process hosts: one resident model, one optimiser, one thread, however many nodes."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from nerv_fl.arrays import IntArray
from nerv_fl.client.alone import alone_in
from nerv_fl.client.node import Node, RoundOrder
from nerv_fl.client.presence import present
from nerv_fl.client.request import read_constants
from nerv_fl.client.train import LocalTraining, Records, Trainer, train_honestly
from nerv_fl.config import LARGEST_FEDERATION, RunConfig
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.sealing import VerifyKey
from nerv_fl.tasks.known import AnyTask, make_task
from nerv_fl.tasks.start import Constants
from nerv_fl.threads import use_one_thread

Answers: TypeAlias = tuple[Mapping[int, bytes], tuple[int, ...]]

DISK_THREADS: Final = 16
"""Nodes whose files are written at once: a disk that is waited for by many settles them together."""

log = logging.getLogger(__name__)


class NodeLostError(Exception):
    """A node is gone in the middle of its work: it does not answer, and does not say why."""


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """What a hosting process needs to know, all of it its own.

    Attributes:
        config: The settings its nodes agreed to.
        data: Data file or folder that holds the shards of all nodes; the task says whose is what.
        nodes: Folder that holds each node's folder.
        vendor_root: Pinned public key of the (mock) vendor root.
        code_hash: Hash of the enclave code that the nodes trust.
        simulated: Whether sampling and noise are seeded.
        training: What its nodes do with their work; only a simulation may have adversaries and faults among them.
        alone: The one node whose shard the data file holds, all of it and nothing else; None if it holds everybody's.

    Raises:
        ConfigError: If this is no simulation, and the settings name adversaries or faults, or a mechanism of their own.
    """

    config: RunConfig
    data: Path
    nodes: Path
    vendor_root: VerifyKey
    code_hash: str
    simulated: bool
    training: LocalTraining = train_honestly
    alone: int | None = None

    @property
    def num_nodes(self) -> int:
        """Nodes that a cohort may name: a deployed node does not know how many have joined since it was set up."""
        return self.config.federation.num_nodes if self.alone is None else LARGEST_FEDERATION

    def __post_init__(self) -> None:
        """Refuse to cheat, or to fail, in earnest."""
        for name, section in (("adversaries", self.config.adversaries), ("faults", self.config.faults)):
            if section.any and not self.simulated:
                raise ConfigError(f"{name} are set, expected none outside a simulation")
        if not self.simulated:
            self.config.privacy.require_protocol()


class NodeHost:
    """Answers for many nodes with one model.

    Args:
        settings: The host's settings.
        constants: Those of the task, public.

    Raises:
        ConfigError: If the task does not allow a constant.
        DataError: If the data file is missing, damaged, or does not fit the model.
    """

    def __init__(self, settings: HostSettings, *, constants: Constants) -> None:
        use_one_thread()
        task = make_task(settings.config, constants)
        self._settings = settings
        self._trainer = Trainer(task)
        self._data = task.open(settings.data)
        self._shards = shards_of(settings, task, data=self._data)
        self._steps = task.size_of(self._data).steps

    def answer(self, order: RoundOrder, numbers: Sequence[int]) -> Answers:
        """Return each node's envelope, and the nodes that refuse; no node's failure is another's.

        Whoever is lost in the middle of its work is in neither.

        Why a node refused is logged here and leaves in no other form: an error's text may name what the node holds.
        """
        with present(self._settings.nodes):
            return self._answers(order, numbers)

    def _answers(self, order: RoundOrder, numbers: Sequence[int]) -> Answers:
        envelopes: dict[int, bytes] = {}
        keeping: dict[int, Future[bytes]] = {}
        refusing: list[int] = []
        with ExitStack() as locks, ThreadPoolExecutor(DISK_THREADS) as disk:
            numbers = self._held(order, numbers, locks=locks, refusing=refusing)
            for number, prepared in self._prepare_all(order, numbers, disk=disk).items():
                with _contained(number, order, refusing=refusing):
                    node, stored = prepared.result()
                    if stored is not None:
                        envelopes[number] = stored
                        continue
                    envelope = node.train(order, trainer=self._trainer, data=self._data)
                    keeping[number] = disk.submit(_keep, node, order, envelope)
            for number, kept in keeping.items():
                with _contained(number, order, refusing=refusing):
                    envelopes[number] = kept.result()
        return {number: envelopes[number] for number in numbers if number in envelopes}, tuple(sorted(refusing))

    def _held(
        self, order: RoundOrder, numbers: Sequence[int], *, locks: ExitStack, refusing: list[int]
    ) -> Sequence[int]:
        """Return the nodes whose folders no other process holds; they are this one's until `locks` closes.

        A simulation's blocks share no node, and its folders hold nothing but what a seed gives.
        """
        if self._settings.simulated:
            return numbers
        held = []
        for number in numbers:
            with _contained(number, order, refusing=refusing):
                locks.enter_context(alone_in(node_folder(self._settings.nodes, number)))
                held.append(number)
        return held

    def _prepare_all(
        self, order: RoundOrder, numbers: Sequence[int], *, disk: ThreadPoolExecutor
    ) -> dict[int, Future[tuple[Node, bytes | None]]]:
        """Begin to prepare all nodes; the first is waited for: what it reckons, epsilon above all, the others reuse."""
        prepared = {number: disk.submit(self._prepare, order, number) for number in numbers[:1]}
        wait(prepared.values())
        return prepared | {number: disk.submit(self._prepare, order, number) for number in numbers[1:]}

    def _prepare(self, order: RoundOrder, number: int) -> tuple[Node, bytes | None]:
        node = self._node(number)
        return node, node.prepare(order, num_parameters=self._trainer.num_parameters)

    def _node(self, number: int) -> Node:
        settings = self._settings
        return Node(
            number,
            node_folder(settings.nodes, number),
            samples=samples_of(self._shards[number], steps=self._steps),
            config=settings.config,
            vendor_root=settings.vendor_root,
            code_hash=settings.code_hash,
            simulated=settings.simulated,
            training=settings.training,
        )


def _keep(node: Node, order: RoundOrder, envelope: bytes) -> bytes:
    node.keep(order, envelope)
    return envelope


@contextmanager
def _contained(number: int, order: RoundOrder, *, refusing: list[int]) -> Iterator[None]:
    """Keep whatever happens in one node in it."""
    try:
        yield
    except NodeLostError:
        log.info("node %d is lost in round %d", number, order.round_number)
    except Exception:
        log.exception("node %d gives no update for round %d", number, order.round_number)
        refusing.append(number)


def shards_of(settings: HostSettings, task: AnyTask, *, data: Any) -> IntArray | Mapping[int, IntArray]:
    """Return the chains of each node in the host's data file, by the node's number.

    Raises:
        DataError: If the file does not hold what the settings say a node has.
    """
    if settings.alone is None:
        return task.shards_of(data)
    size, config = task.size_of(data), settings.config.data
    if (size.chains, size.steps) != (config.chains_per_node, config.steps):
        raise DataError(
            f"{settings.data} holds {size.chains} chains of {size.steps} steps, expected {config.chains_per_node} of "
            f"{config.steps} (data.samples_per_node = {config.samples_per_node}, data.steps = {config.steps})"
        )
    return {settings.alone: np.arange(size.chains)}


def samples_of(chains: IntArray, *, steps: int) -> Records:
    """Return the samples of whole chains, int64 [chains x steps]."""
    return np.asarray(chains[:, None] * steps + np.arange(steps)).reshape(-1)


def node_folder(nodes: Path, number: int) -> Path:
    """Return the folder of one node."""
    return nodes / f"{number:05d}"


@lru_cache(maxsize=1)
def resident_host(settings: HostSettings, *, constants: str) -> NodeHost:
    """Return the process's host, built once.

    Args:
        settings: The host's settings.
        constants: Those of the task, as the server sent them: a JSON object.

    Raises:
        ConfigError: If they are none.
    """
    return NodeHost(settings, constants=read_constants(constants))
