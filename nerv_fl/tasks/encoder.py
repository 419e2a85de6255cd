"""The encoder as a task: masked balances and drift, V alone beside it, and a bound that it claims to keep.

Shapes: B samples, A accounts, D width.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from nerv_fl.config import GateConfig, RunConfig
from nerv_fl.data import Ledger, open_ledger
from nerv_fl.data.partition import by_dirichlet
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.models.batch import StateBatch, draw_masks, evaluation_masks, make_batch
from nerv_fl.models.encoder import Encoder, centre, get_flat
from nerv_fl.models.evaluate import (
    BalanceBaselines,
    EncoderMeasures,
    SampleMeasures,
    measure_samples,
    measure_v_alone,
    summarise,
)
from nerv_fl.models.homomorphism import check_bound
from nerv_fl.models.losses import data_free_gradient, sample_losses, sample_losses_through_table
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import load_encoder
from nerv_fl.records import Drift, Homomorphism, MaskedCrossEntropy, Standing
from nerv_fl.rng import stream
from nerv_fl.tasks.initial_model import Constants
from nerv_fl.tasks.metrics import ratio
from nerv_fl.tasks.task import DataSize, Losses, Task
from nerv_fl.types import IntArray, Vector
from nerv_fl.validation import in_range

MAX_MOVEMENT_FLOOR: Final = 1.0
"""f is a tenth of a median |sum delta|, which never reaches 2: whatever the server sends, the loss stays defined."""


class EncoderTask(Task[Encoder, Ledger, StateBatch]):
    """The homomorphic encoder; its constant is `movement_floor`, the f of its loss."""

    def __init__(self, config: RunConfig, constants: Constants) -> None:
        super().__init__(config, constants)
        floor = constants.get("movement_floor")
        if not isinstance(floor, int | float):
            raise ConfigError(f"movement_floor is {floor!r}, expected a number in (0, {MAX_MOVEMENT_FLOOR}]")
        in_range("movement_floor", floor, low=0, high=MAX_MOVEMENT_FLOOR, open_low=True)
        self.movement_floor = float(floor)

    def build(self) -> Encoder:
        """Return the encoder of the configured preset and read-out."""
        model, again = self.config.model, self.config.training.checkpointing
        return Encoder(get_preset(model.preset), readout=model.readout, checkpoint_activations=again)

    def draw_parameters(self, model: Encoder, generator: torch.Generator) -> None:
        """Draw every parameter afresh."""
        model.reset_parameters(generator)

    def open(self, path: Path) -> Ledger:
        """Open a ledger file or folder of the preset's number of accounts."""
        ledger = open_ledger(path)
        ledger.require_accounts(get_preset(self.config.model.preset).num_accounts)
        return ledger

    def size_of(self, data: Ledger) -> DataSize:
        """Return the ledger's chains, and steps of each."""
        return DataSize(data.info.chains, data.info.steps)

    def shards_of(self, data: Ledger) -> IntArray:
        """Return the chains of each node, in order or by kind of shard."""
        config = self.config
        if config.data.partition == "chain":
            return super().shards_of(data)
        return by_dirichlet(
            data.shard_kinds(),
            num_nodes=config.federation.num_nodes,
            chains_per_node=config.data.chains_per_node,
            alpha=config.data.dirichlet_alpha,
            stream=stream(config.seed, "partition"),
        )

    def read(self, data: Ledger, samples: IntArray) -> StateBatch:
        """Return samples under their evaluation masks."""
        read = data.read(samples)
        return make_batch(read, evaluation_masks(self.config.seed, read))

    def draw(self, data: Ledger, samples: IntArray, rng: np.random.Generator) -> StateBatch:
        """Return samples under masks drawn from `rng`."""
        read = data.read(samples)
        num_samples, num_accounts = read.before.shape
        return make_batch(read, draw_masks(rng, num_samples=num_samples, num_accounts=num_accounts))

    def losses(self, model: Encoder, batch: StateBatch) -> Tensor:
        """Return the data loss of each sample, V carrying no gradient."""
        return self.objective(model)(batch)

    def objective(self, model: Encoder) -> Losses[StateBatch]:
        """Return the losses under the table of the weights as they stand."""
        with torch.no_grad():
            table_AD = model.table()
        return partial(self._losses, model, table_AD)

    def value_losses(self, model: Encoder, batch: StateBatch) -> Tensor:
        """Return the losses with the gradient through V too."""
        return sample_losses_through_table(model, batch, movement_floor=self.movement_floor).loss_B

    def measure(self, model: Encoder, batch: StateBatch, *, chunk: int) -> SampleMeasures:
        """Measure loss, drift and masked cross-entropy of every sample."""
        return measure_samples(model, batch, movement_floor=self.movement_floor, chunk=chunk)

    def summarise(self, measures: SampleMeasures) -> EncoderMeasures:
        """Return the pool's measures, the rank and norm of V among them."""
        return summarise(measures)

    def broken_condition(self, before: EncoderMeasures, after: EncoderMeasures, *, limits: GateConfig) -> str:
        """Return which of masked cross-entropy, relative drift, rank and norm is beyond its limit, in words."""
        return broken_condition(before, after, limits=limits)

    def trivial(self, fitted_on: Ledger, data: Ledger, samples: IntArray) -> Mapping[str, float]:
        """Return the masked cross-entropy of the unigram and of the per-account unigram."""
        chains = self.size_of(fitted_on).chains
        fitted = BalanceBaselines.fit(fitted_on.read_chains(0, chains).balances)
        read = data.read(samples)
        unigram, per_account = fitted.cross_entropy(read.before, evaluation_masks(self.config.seed, read))
        return {"unigram": unigram, "per_account": per_account}

    def standing(
        self, summary: EncoderMeasures, *, trivial: Mapping[str, float], homomorphism: Homomorphism | None = None
    ) -> Standing:
        """Return drift with its companions, and masked cross-entropy beside the trivial models."""
        return Standing(
            loss=summary.loss,
            homomorphism=homomorphism,
            drift=Drift(
                mean=summary.drift_mean,
                relative=summary.drift_relative,
                ratio=summary.drift_ratio,
                max=summary.drift_max,
            ),
            residual_share=summary.residual_share,
            effective_rank=summary.effective_rank,
            masked_ce=MaskedCrossEntropy(value=summary.masked_ce, **trivial),
        )

    def references(self, model: Encoder, batch: StateBatch) -> Mapping[str, EncoderMeasures]:
        """Return V alone: the same table without its transformer."""
        return {"v_alone": measure_v_alone(model, batch)}

    def settle(self, model: Encoder) -> None:
        """Move the origin to mean V = 0."""
        centre(model)

    def free_gradient(self, model: Encoder) -> Tensor:
        """Return the gradient of the spread and size of V."""
        server = self.config.server
        return data_free_gradient(model, spread_weight=server.spread_weight, size_weight=server.size_weight)

    def certify(self, model: Encoder, data: Ledger, samples: IntArray, *, bound: float) -> Homomorphism:
        """Test the homomorphism bound on the batches of samples; the "mean" read-out by what it really does."""
        with torch.no_grad():
            table_AD = model.table().numpy()
        errors = None
        if model.readout == "mean":
            errors = self.measure(model, self.read(data, samples), chunk=self.config.enclave.chunk).drift_B
        return check_bound(data.read(samples, with_batches=True), table_AD, bound=bound, errors=errors)

    @classmethod
    def read_start(cls, path: Path, config: RunConfig) -> tuple[Vector, Constants]:
        """Return the weights of an encoder's file, and f of the loss that it was trained by.

        Raises:
            CheckpointError: If it is damaged, of another preset or read-out, or without f.
        """
        encoder = Encoder(get_preset(config.model.preset), readout=config.model.readout)
        facts = load_encoder(path, encoder)
        if facts.get("movement_floor") is None:
            raise CheckpointError(
                f"{path} names no movement_floor, expected the f of its loss: a bootstrap writes it into the file"
            )
        return get_flat(encoder).numpy(), {"movement_floor": facts["movement_floor"]}

    def _losses(self, model: Encoder, table_AD: Tensor, batch: StateBatch) -> Tensor:
        return sample_losses(model, batch, table_AD=table_AD, movement_floor=self.movement_floor).loss_B


def broken_condition(before: EncoderMeasures, after: EncoderMeasures, *, limits: GateConfig) -> str:
    """Return the first condition that an encoder breaks against the one before, in words, or an empty string."""
    if not after.finite:
        return "the encoder is not finite"
    checks = (
        ("masked cross-entropy", ratio(after.masked_ce, before.masked_ce), limits.max_masked_ce_ratio, 1),
        ("relative drift", ratio(after.drift_relative, before.drift_relative), limits.max_relative_drift_ratio, 1),
        ("effective rank", ratio(after.effective_rank, before.effective_rank), limits.min_rank_ratio, -1),
    )
    for name, value, limit, sign in checks:
        if sign * value > sign * limit:
            side = "above" if sign > 0 else "below"
            return f"{name} is {value:.4f} x before, {side} {limit:g} x"
    if not limits.min_norm <= after.mean_norm <= limits.max_norm:
        return f"mean |V_i| is {after.mean_norm:.3f}, outside {limits.min_norm:g}..{limits.max_norm:g}"
    return ""
