"""The block of nodes that one process hosts: one resident model, one optimiser, one thread, however many nodes."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from nerv_fl.client.active_workers import present
from nerv_fl.client.alone import alone_in
from nerv_fl.client.local_training import LocalTraining, Records, Trainer, train_honestly
from nerv_fl.client.node import SPENDING_FILE, Node, RoundOrder
from nerv_fl.client.preflight import check_task
from nerv_fl.client.refusals import Refusal, Refusals
from nerv_fl.client.train_request import read_constants
from nerv_fl.config import LARGEST_FEDERATION, RunConfig
from nerv_fl.crypto import VerifyKey
from nerv_fl.errors import ConfigError, DataError, TaskError
from nerv_fl.privacy.budget import has_spent
from nerv_fl.tasks.initial_model import Constants
from nerv_fl.tasks.registry import AnyTask, make_task
from nerv_fl.threads import use_one_thread
from nerv_fl.types import IntArray

Answers: TypeAlias = tuple[Mapping[int, bytes], Mapping[int, Refusal]]
"""Envelopes, and refusals, each by the node's number."""

DISK_THREADS: Final = 16
"""Nodes whose files are written at once: a disk that is waited for by many settles them together."""

log = logging.getLogger(__name__)


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
        self._check(task)

    def _check(self, task: AnyTask) -> None:
        """Run the task's preflight on samples of a node, before any node spends privacy.

        Raises:
            TaskError: If a property that training relies on does not hold. Outside a simulation the samples are
                private, so only the node's own log says which one, and how far off.
        """
        chains = self._shards[0] if self._settings.alone is None else self._shards[self._settings.alone]
        try:
            check_task(task, self._data, samples_of(chains, steps=self._steps))
        except TaskError as error:
            if self._settings.simulated:
                raise
            log.error("%s", error)
            message = f"task {self._settings.config.task!r} does not pass its preflight; this node's log says why"
            raise TaskError(message) from None

    def answer(self, order: RoundOrder, numbers: Sequence[int]) -> Answers:
        """Return each node's envelope, and the refusals; no node's failure is another's.

        A node that is lost in the middle of its work is in neither.
        """
        refusals = _refusals(self._settings, order)
        with present(self._settings.nodes):
            envelopes = self._envelopes(order, numbers, refusals=refusals)
        refusals.log_counts(len(numbers))
        return envelopes, refusals.by_node

    def _envelopes(self, order: RoundOrder, numbers: Sequence[int], *, refusals: Refusals) -> dict[int, bytes]:
        envelopes: dict[int, bytes] = {}
        keeping: dict[int, Future[bytes]] = {}
        with ExitStack() as locks, ThreadPoolExecutor(DISK_THREADS) as disk:
            numbers = self._held(numbers, locks=locks, refusals=refusals)
            for number, prepared in self._prepare_all(order, numbers, disk=disk).items():
                with refusals.isolate(number):
                    node, stored = prepared.result()
                    if stored is not None:
                        envelopes[number] = stored
                        continue
                    envelope = node.train(order, trainer=self._trainer, data=self._data)
                    keeping[number] = disk.submit(_keep, node, order, envelope)
            for number, kept in keeping.items():
                with refusals.isolate(number):
                    envelopes[number] = kept.result()
        return {number: envelopes[number] for number in numbers if number in envelopes}

    def _held(self, numbers: Sequence[int], *, locks: ExitStack, refusals: Refusals) -> Sequence[int]:
        """Return the nodes whose folders no other process holds; they are this one's until `locks` closes.

        A simulation's blocks share no node, and its folders hold nothing but what a seed gives.
        """
        if self._settings.simulated:
            return numbers
        held = []
        for number in numbers:
            with refusals.isolate(number):
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


def _refusals(settings: HostSettings, order: RoundOrder) -> Refusals:
    def spent(number: int) -> bool:
        return has_spent(node_folder(settings.nodes, number) / SPENDING_FILE, order.run, order.round_number)

    return Refusals(order.round_number, has_spent=spent)


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


def answer_with_host(settings: HostSettings, order: RoundOrder, numbers: Sequence[int], *, constants: str) -> Answers:
    """Return what the process's host answers; where it cannot be built in a simulation, every node refuses.

    Args:
        settings: The host's settings.
        order: The round.
        numbers: Nodes of the cohort that are hosted here.
        constants: Those of the task, as the server sent them: a JSON object.

    Raises:
        Exception: Whatever stops a deployed host before its node is asked.
    """
    try:
        return resident_host(settings, constants=constants).answer(order, numbers)
    except Exception as error:
        if not settings.simulated:
            raise
        refusals = _refusals(settings, order)
        for number in numbers:
            refusals.add(number, error)
        refusals.log_counts(len(numbers))
        return {}, refusals.by_node
