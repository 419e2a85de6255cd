"""An encoder that has learned something, its held-out pools, and what six honest nodes send."""

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final

import torch

from nerv_fl.client.host import NodeHost
from nerv_fl.client.node import RoundOrder
from nerv_fl.config import Flat, RunConfig, build
from nerv_fl.crypto import Context, decode_update, open_envelope
from nerv_fl.enclave.evaluation import Pools, PoolSettings
from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import load_encoder, vector_hash
from nerv_fl.server.run_folder import POOLS, RunFolder
from nerv_fl.tasks.initial_model import Constants
from nerv_fl.types import Vector
from simulations.engine import host_settings
from simulations.prepare import open_folder, prepare
from tests.federation.tiny_run import SETTINGS

COHORT: Final = (0, 1, 2, 3, 4, 5)
TRAINING: Final[Flat] = {
    "bootstrap.steps": 60,
    "bootstrap.batch_size": 32,
    "bootstrap.warmup_steps": 6,
    "bootstrap.evaluate_every": 20,
    "data.bootstrap_chains": 256,
    "data.samples_per_node": 512,
    "gate.search_samples": 32,
    "gate.certify_samples": 64,
    "training.expected_batch": 64,
    "gate.confidence": 0.95,
    "privacy.max_epsilon": 60.0,
    "valuation.gradient_samples": 32,
}


@dataclass(frozen=True)
class Pretrained:
    """A prepared run whose encoder was trained for 60 steps."""

    folder: RunFolder

    @cached_property
    def config(self) -> RunConfig:
        """The settings it was made with."""
        return self.folder.config

    @property
    def movement_floor(self) -> float:
        """f of the loss."""
        return float(self.constants["movement_floor"])

    @cached_property
    def constants(self) -> Constants:
        """The task's."""
        return {"movement_floor": self._loaded[1]["movement_floor"]}

    @cached_property
    def weights(self) -> Vector:
        """The encoder's weights, float32 (P,)."""
        return get_flat(self._loaded[0]).numpy()

    def pools(self, config: RunConfig) -> Pools:
        """Open the held-out pools."""
        paths = {name: self.folder.data(name) for name in POOLS}
        return Pools(PoolSettings(config=config, paths=paths, constants=self.constants))

    def settings(self, changes: Flat | None = None) -> RunConfig:
        """Return the settings with some of them changed."""
        return build(SETTINGS | TRAINING | (changes or {}))

    @cached_property
    def honest_updates(self) -> dict[int, Vector]:
        """What the six nodes send when they train as they should."""
        identity = EnclaveIdentity.load_or_create(self.folder.enclave, run=str(self.folder.read_manifest()["run"]))
        order = RoundOrder(
            run=identity.evidence.run,
            round_number=1,
            theta_P=torch.from_numpy(self.weights),
            base_hash=vector_hash(self.weights),
            evidence=identity.evidence.to_text(),
        )
        host = NodeHost(host_settings(self.folder), constants=self.constants)
        envelopes, refusals = host.answer(order, COHORT)
        assert not refusals
        roster = self.folder.read_roster()
        return {
            node: decode_update(
                open_envelope(
                    envelope,
                    expected=Context(run=order.run, round=1, node=node, base_hash=order.base_hash),
                    roster=roster,
                    opening_key=identity.opening_key,
                ),
                num_parameters=len(self.weights),
            )
            for node, envelope in envelopes.items()
        }

    @cached_property
    def _loaded(self) -> tuple[Encoder, dict[str, object]]:
        encoder = Encoder(get_preset("quickstart"))
        facts = load_encoder(self.folder.bootstrap_path, encoder)
        return encoder, facts


@cache
def pretrained_run() -> Pretrained:
    """Generate the data and train the encoder, in a few seconds, once for the whole test session."""
    parent = Path(tempfile.mkdtemp(prefix="nerv-fl-test-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    folder = open_folder(parent / "pretrained", build(SETTINGS | TRAINING), resume=False)
    prepare(folder)
    return Pretrained(folder)
