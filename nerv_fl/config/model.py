"""Settings of the encoder, its data and its central pretraining."""

import math
from dataclasses import dataclass
from typing import Final

from nerv_fl.errors import ConfigError
from nerv_fl.validation import in_range, one_of

PRESET_NAMES: Final = ("quickstart", "small", "tee", "base", "whitepaper")
"""Sizes of the encoder; `nerv_fl.models.presets` has the numbers."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model is trained: `preset` and `readout` of an encoder, `width` of a forecaster.

    `readout` "mean" is the plain mean, for comparison only. The protocol's forecaster has 296 units in each layer.
    """

    preset: str = "quickstart"
    readout: str = "balance"
    width: int = 32

    def __post_init__(self) -> None:
        """Refuse unknown presets and read-outs."""
        one_of("model.preset", self.preset, choices=PRESET_NAMES)
        one_of("model.readout", self.readout, choices=("balance", "mean"))
        in_range("model.width", self.width, low=1, high=1024)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The ledgers: chains of `steps` batches of 1..`max_transactions` transactions, and which of them a node holds.

    `heterogeneity` (0..1) says how much the kinds of shard differ, `partition` whether nodes take chains in order or
    kinds in proportions drawn from a Dirichlet distribution of concentration `dirichlet_alpha`.
    """

    steps: int = 8
    max_transactions: int = 16
    samples_per_node: int = 4096
    bootstrap_chains: int = 1024
    heldout_chains: int = 256
    search_chains: int = 256
    certify_chains: int = 4096
    final_chains: int = 1024
    heterogeneity: float = 0.0
    partition: str = "chain"
    dirichlet_alpha: float = 0.5

    def __post_init__(self) -> None:
        """Refuse empty pools, and nodes whose samples are not whole chains."""
        in_range("data.steps", self.steps, low=1, high=10**6)
        in_range("data.max_transactions", self.max_transactions, low=1, high=256)
        in_range("data.samples_per_node", self.samples_per_node, low=1, high=10**9)
        for name in ("bootstrap_chains", "heldout_chains", "search_chains", "certify_chains", "final_chains"):
            in_range(f"data.{name}", getattr(self, name), low=2, high=10**9)
        in_range("data.heterogeneity", self.heterogeneity, low=0, high=1)
        one_of("data.partition", self.partition, choices=("chain", "dirichlet"))
        in_range("data.dirichlet_alpha", self.dirichlet_alpha, low=0, high=1e6, open_low=True)
        if self.samples_per_node % self.steps:
            raise ConfigError(
                f"data.samples_per_node is {self.samples_per_node}, expected a multiple of data.steps = {self.steps}"
            )

    @property
    def chains_per_node(self) -> int:
        """Number of whole chains a node holds."""
        return self.samples_per_node // self.steps


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """Central pretraining on public data: AdamW, cosine schedule, the drift term in every `drift_every`-th step.

    `weights` names trained weights, a file or a model of the registry, from which a simulation starts in its place.
    A batch is worked through `micro_batch` samples at a time, and with `checkpointing` blocks are computed again in the
    backward pass: less memory, the same gradient up to rounding. `patience` ends the training after so many evaluations
    without a better one (0: never); every `checkpoint_every` steps all that a resume needs is written.

    A `hint_share` of the samples tell their accounts' balances, with a precision of up to `hint_precision` (1 /
    variance, balances in standard deviations), along directions of length `hint_norm`: see
    `nerv_fl.bootstrap.privileged_features`.
    """

    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup_steps: int = 40
    drift_every: int = 4
    evaluate_every: int = 100
    spread_weight: float = 3.0
    size_weight: float = 0.3
    dp: bool = False
    micro_batch: int = 32
    checkpointing: bool = False
    precision: str = "float32"
    device: str = "cpu"
    patience: int = 0
    checkpoint_every: int = 100
    weights: str = ""
    hint_share: float = 0.0
    hint_precision: float = 10.0
    hint_norm: float = 1.5

    def __post_init__(self) -> None:
        """Refuse schedules that cannot run."""
        in_range("bootstrap.micro_batch", self.micro_batch, low=1, high=10**6)
        in_range("bootstrap.hint_share", self.hint_share, low=0, high=1)
        in_range("bootstrap.hint_precision", self.hint_precision, low=0, high=1e6, open_low=True)
        in_range("bootstrap.hint_norm", self.hint_norm, low=0, high=1e3)
        one_of("bootstrap.precision", self.precision, choices=("float32", "bfloat16"))
        one_of("bootstrap.device", self.device, choices=("cpu", "cuda"))
        in_range("bootstrap.patience", self.patience, low=0, high=10**9)
        in_range("bootstrap.checkpoint_every", self.checkpoint_every, low=1, high=10**9)
        if self.dp and self.precision != "float32":
            raise ConfigError(
                f"bootstrap.precision is {self.precision!r}, expected 'float32' with bootstrap.dp: "
                "per-sample gradients are formed and clipped in float32"
            )
        in_range("bootstrap.steps", self.steps, low=0, high=10**9)
        in_range("bootstrap.batch_size", self.batch_size, low=1, high=10**6)
        in_range("bootstrap.learning_rate", self.learning_rate, low=0, high=10, open_low=True)
        in_range("bootstrap.weight_decay", self.weight_decay, low=0, high=1)
        in_range("bootstrap.warmup_steps", self.warmup_steps, low=0, high=10**9)
        in_range("bootstrap.drift_every", self.drift_every, low=1, high=10**6)
        in_range("bootstrap.spread_weight", self.spread_weight, low=0, high=math.inf)
        in_range("bootstrap.size_weight", self.size_weight, low=0, high=math.inf)
        in_range("bootstrap.evaluate_every", self.evaluate_every, low=1, high=10**9)
