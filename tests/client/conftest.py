"""A prepared federation of eight nodes, an enclave's identity, and the order of its first round."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nerv_fl.client.host import HostSettings, NodeHost
from nerv_fl.client.local_training import Trainer
from nerv_fl.client.node import Node, RoundOrder
from nerv_fl.config import Flat
from nerv_fl.crypto import Context, decode_update, open_envelope
from nerv_fl.data import LedgerFile
from nerv_fl.enclave.identity import EnclaveIdentity, own_code_hash
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import load_encoder, vector_hash
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.tasks.encoder import EncoderTask
from nerv_fl.types import Vector
from simulations.engine import host_settings
from tests.client.training import draw_theta, open_ledger
from tests.federation.tiny_run import change_settings, copy_run, num_parameters

CONSTANTS = {"movement_floor": 0.01}


@dataclass(frozen=True)
class Field:
    """Everything a node needs to be asked."""

    folder: RunFolder

    @cached_property
    def identity(self) -> EnclaveIdentity:
        """The enclave's keys."""
        return EnclaveIdentity.load_or_create(self.folder.enclave, run=str(self.folder.read_manifest()["run"]))

    @cached_property
    def ledger(self) -> LedgerFile:
        """The nodes' records."""
        return LedgerFile(self.folder.data("nodes"))

    @cached_property
    def trainer(self) -> Trainer:
        """A resident model."""
        return Trainer(EncoderTask(self.folder.config, CONSTANTS))

    @property
    def settings(self) -> HostSettings:
        """The host's settings."""
        return host_settings(self.folder)

    def order(self, **changes: Any) -> RoundOrder:
        """Return the order of round 1, with some of it changed."""
        encoder = Encoder(get_preset("quickstart"))
        load_encoder(self.folder.bootstrap_path, encoder)
        theta_P = get_flat(encoder)
        order = RoundOrder(
            run=self.identity.evidence.run,
            round_number=1,
            theta_P=theta_P,
            base_hash=vector_hash(theta_P.numpy()),
            evidence=self.identity.evidence.to_text(),
        )
        return replace(order, **changes)

    def moved(self, order: RoundOrder, **changes: Any) -> RoundOrder:
        """Return an order from another encoder, honestly announced."""
        theta_P = order.theta_P + torch.full_like(order.theta_P, 1e-3)
        return replace(order, theta_P=theta_P, base_hash=vector_hash(theta_P.numpy()), **changes)

    def node(self, number: int, *, simulated: bool = True, **changes: Any) -> Node:
        """Return a node as a freshly started process would have it."""
        return Node(
            number,
            changes.get("folder", self.folder.node(number)),
            samples=changes.get("samples", np.arange(number * 128, (number + 1) * 128)),
            config=self.folder.config,
            vendor_root=changes.get("vendor_root", self.identity.vendor_root),
            code_hash=changes.get("code_hash", own_code_hash()),
            simulated=simulated,
        )

    def answer(self, number: int, order: RoundOrder | None = None, **changes: Any) -> bytes:
        """Ask a node."""
        return self.node(number, **changes).answer(order or self.order(), trainer=self.trainer, data=self.ledger)

    def opened(self, envelope: bytes, number: int, order: RoundOrder | None = None) -> Vector:
        """Open a node's envelope as the enclave would."""
        order = order or self.order()
        context = Context(run=order.run, round=order.round_number, node=number, base_hash=order.base_hash)
        payload = open_envelope(
            envelope, expected=context, roster=self.folder.read_roster(), opening_key=self.identity.opening_key
        )
        return decode_update(payload, num_parameters=num_parameters(), codec=self.folder.config.training.codec)

    def host(self) -> NodeHost:
        """Return a host of all nodes."""
        return NodeHost(self.settings, constants=CONSTANTS)


@pytest.fixture
def make_field(tmp_path: Path) -> Callable[[Flat], Field]:
    """Return a function that copies the prepared federation with other settings."""

    def make(settings: Flat) -> Field:
        return Field(change_settings(copy_run(tmp_path / "run"), settings))

    return make


@pytest.fixture
def field(make_field: Callable[[Flat], Field]) -> Field:
    return make_field({})


@pytest.fixture(scope="module", name="ledger")
def fixture_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerFile]:
    with open_ledger(tmp_path_factory.mktemp("node")) as file:
        yield file


@pytest.fixture(scope="module", name="theta")
def fixture_theta() -> torch.Tensor:
    return draw_theta()
