"""The work that rounds are measured on, for us, a plain loop and our peers alike.

The encoder has 2 layers of width 64 and 64 accounts, so 129 tokens: in the processes of these benchmarks it takes the
place of the preset `small`, which has 128 accounts. A node takes 2 local steps of 16 records expected; a record is
three states (before, after, masked). Trivial work is a constant in place of training, with an encoder of 2,752 numbers
in the place of `quickstart`.

Shapes: P parameters.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from nerv_fl.client.host import samples_of
from nerv_fl.client.local_training import Assignment, sampling_rate, seeded_streams, train_honestly
from nerv_fl.config import Flat, RunConfig, build
from nerv_fl.models.batch import StateBatch
from nerv_fl.models.presets import PRESETS
from nerv_fl.rng import stream
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.tasks.encoder import EncoderTask
from nerv_fl.types import Vector
from simulations.prepare import open_folder, prepare

PRESETS["small"] = replace(PRESETS["small"], num_accounts=64)
PRESETS["quickstart"] = replace(PRESETS["quickstart"], num_accounts=8, width=4, num_layers=1, num_heads=1)

WORK: Final[Flat] = {
    "name": "bench",
    "model.preset": "small",
    "data.steps": 8,
    "data.samples_per_node": 256,
    "data.bootstrap_chains": 16,
    "data.heldout_chains": 8,
    "data.search_chains": 8,
    "data.certify_chains": 512,
    "data.final_chains": 8,
    "bootstrap.steps": 4,
    "bootstrap.batch_size": 8,
    "bootstrap.warmup_steps": 1,
    "bootstrap.evaluate_every": 4,
    "training.expected_batch": 16,
    "training.local_steps": 2,
    "privacy.max_epsilon": 1000.0,
    "gate.enforce": False,
    "gate.search_samples": 8,
    "gate.certify_samples": 8,
    "gate.monitor_samples": 8,
    "gate.bound_batches": 1,
    "valuation.method": "surrogate",
    "valuation.evaluations": 8,
    "valuation.gradient_samples": 8,
    "valuation.audit_samples": 8,
    "enclave.workers": 1,
}
"""A round whose measures on held-out pools are as small as the settings allow: they are no part of what is compared."""

TINY: Final[Flat] = WORK | {"model.preset": "quickstart", "data.samples_per_node": 8, "training.expected_batch": 8}
"""The smallest encoder, and 8 records a node."""


def prepared(root: Path, settings: Flat) -> RunFolder:
    """Return a run folder that is ready for round 1."""
    folder = open_folder(root, build(settings), resume=False)
    prepare(folder)
    return folder


def train(work: Assignment) -> Tensor:
    """Return an honest update; named here so that whoever trains has this module's encoder."""
    return train_honestly(work)


def train_nothing(work: Assignment) -> Tensor:
    """Return a constant: noise, moved along by the node's number, so that no two nodes are clones."""
    return torch.from_numpy(np.roll(_noise(len(work.theta_P)), work.number))


@lru_cache(maxsize=1)
def _noise(num_parameters: int) -> Vector:
    noise_P = stream(7, "bench", "constant").standard_normal(num_parameters)
    return np.asarray(0.5 / 8 * noise_P, dtype=np.float32)


class Shards:
    """A run's start and its nodes' batches, for those who train without us.

    Args:
        folder: A prepared run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.config: RunConfig = folder.config
        start_P, constants = EncoderTask.read_start(folder.bootstrap_path, folder.config)
        self.theta_P = torch.from_numpy(start_P)
        self.task = EncoderTask(folder.config, constants)
        self._ledger = self.task.open(folder.data("nodes"))
        self._chains = self.task.shards_of(self._ledger)

    def whole(self, node: int) -> StateBatch:
        """Return all records of a node under some masks."""
        samples = samples_of(self._chains[node], steps=self.config.data.steps)
        return self.task.draw(self._ledger, samples, stream(self.config.seed, "bench", "whole", node))

    def batches(self, node: int, round_number: int) -> list[StateBatch]:
        """Return the very batches that our node draws in a round."""
        samples = samples_of(self._chains[node], steps=self.config.data.steps)
        streams = seeded_streams(self.config.seed, round_number, node)
        rate, batches = sampling_rate(self.config, samples), []
        for _ in range(self.config.training.local_steps):
            drawn = samples[np.flatnonzero(streams.sampling.random(len(samples)) < rate)]
            batches.append(self.task.draw(self._ledger, drawn, streams.masks))
        return batches
