"""A tiny trainer with rigged streams, and the slow loop it must agree with.

Shapes: A accounts.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.client.local_training import Streams, Trainer
from nerv_fl.config import PrivacyConfig, RunConfig, TrainingConfig
from nerv_fl.data import LedgerFile
from nerv_fl.models.batch import draw_masks, make_batch
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.models.losses import sample_losses
from nerv_fl.models.presets import Preset
from nerv_fl.rng import Source, stream
from nerv_fl.tasks.encoder import EncoderTask
from nerv_fl.types import IntArray

TINY = Preset(name="tiny", num_accounts=8, width=8, num_layers=1, num_heads=2, position_std=0.3, embedding_std=0.3)
FLOOR = 1e-3
STEPS = 4
NUM_SAMPLES = 10 * STEPS


def open_ledger(folder: Path) -> LedgerFile:
    path = folder / "ledger.h5"
    generate_ledger(path, LedgerShape(chains=10, steps=STEPS, accounts=8, max_transactions=6, profile="live", seed=5))
    return LedgerFile(path)


def draw_theta() -> Tensor:
    """Weights at which no bias is zero and no norm is one."""
    encoder = Encoder(TINY)
    encoder.reset_parameters(torch.Generator().manual_seed(1))
    drawn = get_flat(encoder)
    return drawn + 0.1 * torch.randn(drawn.shape, generator=torch.Generator().manual_seed(2))


def make_streams(*, round_number: int = 1, node: int = 0) -> Streams:
    return Streams(
        sampling=stream(7, "sampling", round_number, node),
        masks=stream(7, "masks", round_number, node),
        noise=stream(7, "noise", round_number, node),
    )


class Never:
    """A sampling stream that draws no record."""

    def random(self, size: int) -> npt.NDArray[np.float64]:
        return np.ones(size)


class Always:
    """A sampling stream that draws every record."""

    def random(self, size: int) -> npt.NDArray[np.float64]:
        return np.zeros(size)


def rigged(sampling: Never | Always, noise: Source) -> Streams:
    return Streams(sampling=sampling, masks=stream(1, "masks"), noise=noise)  # type: ignore[arg-type]


class TinyTask(EncoderTask):
    """The encoder of eight accounts."""

    def build(self) -> Encoder:
        return Encoder(TINY, checkpoint_activations=self.config.training.checkpointing)


def tiny_task(training: TrainingConfig, privacy: PrivacyConfig | None = None) -> TinyTask:
    config = replace(RunConfig(), training=training, privacy=privacy or PrivacyConfig())
    return TinyTask(config, {"movement_floor": FLOOR})


@dataclass
class Setting:
    """A trainer, what it is given, and the slow loop that must agree with it."""

    training: TrainingConfig
    samples: IntArray = field(default_factory=lambda: np.arange(4, NUM_SAMPLES))
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    def trainer(self) -> Trainer:
        return Trainer(self.task())

    def task(self) -> "TinyTask":
        """The encoder of eight accounts, under these settings."""
        return tiny_task(self.training, self.privacy)

    def update(self, theta: Tensor, ledger: LedgerFile, *, streams: Streams | None = None) -> Tensor:
        return self.trainer().update(theta, ledger, samples=self.samples, streams=streams or make_streams())

    def slow_update(self, theta: Tensor, ledger: LedgerFile) -> Tensor:
        """Abadi et al., algorithm 1, one record at a time, with nothing of Opacus."""
        encoder, streams, current = Encoder(TINY), make_streams(), theta.clone()
        rate = self.training.expected_batch / len(self.samples)
        for _ in range(self.training.local_steps):
            set_flat(encoder, current)
            lots = streams.sampling.random(len(self.samples))
            drawn = [int(sample) for sample, lot in zip(self.samples, lots, strict=True) if lot < rate]
            masks = draw_masks(streams.masks, num_samples=len(drawn), num_accounts=8)
            total = torch.zeros_like(theta)
            for row, sample in enumerate(drawn):
                gradient = record_gradient(encoder, ledger, sample=sample, masked_1A=masks[row : row + 1])
                total += gradient * min(1.0, self.privacy.clip / float(gradient.norm()))
            std = self.privacy.sigma * self.privacy.clip
            noise = [
                torch.from_numpy(std * streams.noise.standard_normal(tuple(parameter.shape))).float().reshape(-1)
                for parameter in encoder.parameters()
            ]
            step = (total + torch.cat(noise)) / self.training.expected_batch
            current = current - self.training.learning_rate * step
        return current - theta


def record_gradient(encoder: Encoder, ledger: LedgerFile, *, sample: int, masked_1A: npt.NDArray[np.bool_]) -> Tensor:
    batch = make_batch(ledger.read([sample]), masked_1A)
    loss = sample_losses(encoder, batch, table_AD=encoder.table().detach(), movement_floor=FLOOR).loss_B.sum()
    parts = torch.autograd.grad(loss, list(encoder.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])
