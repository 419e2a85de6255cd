"""A federation small enough for a test: 8 nodes, cohorts of 6, 3 rounds of a second each, in this process."""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from flwr.app import Message

from nerv_fl.client.app import build_client_app
from nerv_fl.config import Flat, RunConfig, as_table, build, flatten
from nerv_fl.crypto import Context, Evidence, SigningKey, encode_update, read_envelope, seal
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import load_encoder, vector_hash
from nerv_fl.records import RewardRow, RoundRecord, read_rewards
from nerv_fl.server.app import ignore_round, serve
from nerv_fl.server.recorder import OnRound
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.strategy.server_state import FederationState
from nerv_fl.types import Vector
from simulations.engine import host_settings
from simulations.prepare import open_folder, prepare
from tests.federation.fake_grid import FakeGrid, Meddle

# Large batches and a lenient gate: most rounds are accepted, so that something happens in them.
SETTINGS: Final[Flat] = {
    "name": "tiny",
    "data.steps": 4,
    "data.samples_per_node": 128,
    "data.bootstrap_chains": 64,
    "data.heldout_chains": 16,
    "data.search_chains": 32,
    "data.certify_chains": 64,
    "data.final_chains": 16,
    "bootstrap.steps": 10,
    "bootstrap.batch_size": 16,
    "bootstrap.warmup_steps": 2,
    "bootstrap.evaluate_every": 5,
    "federation.num_nodes": 8,
    "federation.cohort_size": 6,
    "federation.num_rounds": 3,
    "training.expected_batch": 32,
    "training.micro_batch": 16,
    "privacy.max_epsilon": 60.0,
    "gate.confidence": 0.8,
    "gate.search_samples": 32,
    "gate.certify_samples": 64,
    "gate.monitor_samples": 16,
    "gate.bound_batches": 200,
    "valuation.method": "surrogate",
    "valuation.evaluations": 8,
    "valuation.gradient_samples": 16,
    "valuation.audit_samples": 8,
    "enclave.workers": 1,
    "simulation.blocks": 2,
    "simulation.actors": 1,
}
NUM_ROUNDS: Final = 3
NUM_SUPERNODES: Final = 2

COHORT_2: Final = (0, 1, 2, 4, 6, 7)
"""Round 2's nodes at seed 7, so that a test can name one who was not asked."""


def tiny_config(overrides: Mapping[str, object] | None = None) -> RunConfig:
    """Return the tiny settings with some of them changed."""
    return build(SETTINGS | dict(overrides or {}))  # type: ignore[arg-type]


@cache
def prepared_root() -> Path:
    """Return a prepared run folder, made once for the whole test session; copy it, never run it."""
    parent = Path(tempfile.mkdtemp(prefix="nerv-fl-test-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    root = parent / "prepared"
    prepare(open_folder(root, tiny_config(), resume=False))
    return root


def copy_run(target: Path, **overrides: object) -> RunFolder:
    """Copy the prepared run and change settings that its data and bootstrap do not depend on.

    Args:
        target: The new folder.
        **overrides: Dotted keys, given as `**{"seed": 8}`.
    """
    shutil.copytree(prepared_root(), target)
    RunFolder(target).write_config(tiny_config(overrides))
    return RunFolder(target)


def change_settings(folder: RunFolder, overrides: Flat) -> RunFolder:
    """Change settings of a run folder where it stands."""
    folder.write_config(build(flatten(as_table(folder.config)) | overrides))
    return RunFolder(folder.root)


def make_grid(folder: RunFolder, *, num_supernodes: int = NUM_SUPERNODES, meddle: Meddle | None = None) -> FakeGrid:
    """Return a grid whose SuperNodes host the folder's nodes."""
    settings = host_settings(folder)
    app = build_client_app(lambda _context: settings)
    return FakeGrid(app, num_supernodes=num_supernodes, meddle=meddle or (lambda reply: reply))


def run_rounds(
    folder: RunFolder,
    *,
    num_supernodes: int = NUM_SUPERNODES,
    meddle: Meddle | None = None,
    on_round: OnRound = ignore_round,
) -> FederationState:
    """Run a folder's remaining rounds through a fake grid."""
    grid = make_grid(folder, num_supernodes=num_supernodes, meddle=meddle)
    return serve(grid, folder, num_supernodes=num_supernodes, on_round=on_round, simulated=True)


@dataclass(frozen=True)
class Trace:
    """What must not depend on how a run was executed: each round's verdict, model and money."""

    rounds: list[tuple[int, bool, str, float, str, int, int]]
    rewards: list[RewardRow]

    @classmethod
    def of(cls, folder: RunFolder) -> "Trace":
        """Read the trace of a run folder."""
        rounds = [
            (item.round, item.accepted, item.reason, item.step, item.model_hash, item.pool_nano, item.carried_nano)
            for item in folder.rounds()
        ]
        return cls(rounds=rounds, rewards=read_rewards(folder.rewards_path))


@dataclass
class Interference:
    """Exchanges envelopes in the answers of one round, as a node or whoever carries them could.

    Attributes:
        folder: The run.
        round_number: The round to meddle with.
        change: Takes the envelopes of an answer by node, and what is known of the round; returns the new ones.
    """

    folder: RunFolder
    round_number: int
    change: Callable[[dict[int, bytes], "Forger"], dict[int, bytes] | list[bytes]]
    earlier: list[bytes] = field(default_factory=list)

    def __call__(self, reply: Message) -> Message:
        """Return the reply with other envelopes in it."""
        answer = reply.content.config_records["answer"]
        envelopes: list[bytes] = answer["envelopes"]  # type: ignore[assignment]
        nodes: list[int] = answer["nodes"]  # type: ignore[assignment]
        forger = Forger.from_envelope(self.folder, envelopes[0], earlier=tuple(self.earlier))
        self.earlier += envelopes
        if forger.context.round == self.round_number:
            changed = self.change(dict(zip(nodes, envelopes, strict=True)), forger)
            answer["envelopes"] = list(changed.values()) if isinstance(changed, dict) else changed
        return reply


@dataclass(frozen=True)
class Forger:
    """Seals whatever a registered node could seal, with that node's own key."""

    folder: RunFolder
    context: Context
    earlier: tuple[bytes, ...]

    @classmethod
    def from_envelope(cls, folder: RunFolder, envelope: bytes, *, earlier: tuple[bytes, ...]) -> "Forger":
        """Learn the round's context from one of its envelopes."""
        return cls(folder, read_envelope(envelope).header.context, earlier)

    def seal(self, node: int, update_P: Vector, **context: object) -> bytes:
        """Return node's envelope with an update of the forger's choice, in the round's context or another."""
        return self.seal_bytes(node, encode_update(update_P), context=context)

    def seal_bytes(
        self, node: int, payload: bytes, *, signer: int | None = None, context: Mapping[str, object] | None = None
    ) -> bytes:
        """Return an envelope of any payload; `signer` is the node whose key signs it."""
        evidence = Evidence.from_text((self.folder.enclave / "evidence.json").read_text(encoding="utf-8"))
        key = SigningKey.load_private(self.folder.node(node if signer is None else signer) / "signing.key")
        fields = {"run": self.context.run, "round": self.context.round, "base_hash": self.context.base_hash}
        whole = Context(node=node, **(fields | dict(context or {})))  # type: ignore[arg-type]
        return seal(payload, context=whole, sealing_key=evidence.sealing_key, signing_key=key)

    def zeros(self) -> Vector:
        """Return the free rider's update."""
        return np.zeros(num_parameters(), dtype=np.float32)


@cache
def num_parameters() -> int:
    """Return P of the tiny run's encoder."""
    return Encoder(get_preset(tiny_config().model.preset)).num_parameters


def record_of(folder: RunFolder, round_number: int) -> RoundRecord:
    """Return one round's record."""
    (record,) = (item for item in folder.rounds() if item.round == round_number)
    return record


def rewards_of(folder: RunFolder, round_number: int) -> dict[int, RewardRow]:
    """Return one round's reward rows by node."""
    return {row.node: row for row in read_rewards(folder.rewards_path) if row.round == round_number}


def refused(folder: RunFolder, round_number: int) -> dict[str, int]:
    """Return how many envelopes a round refused, by reason."""
    nodes = record_of(folder, round_number).nodes
    assert nodes is not None
    return dict(nodes.refused)


def bootstrap_hash(folder: RunFolder) -> str:
    """Return the hash of the encoder the run begins with."""
    encoder = Encoder(get_preset("quickstart"))
    load_encoder(folder.bootstrap_path, encoder)
    return vector_hash(get_flat(encoder).numpy())
