"""Settings of the nodes: who takes part, what a node computes, and its privacy."""

import math
from dataclasses import dataclass
from typing import Final

from nerv_fl.errors import ConfigError
from nerv_fl.validation import in_range, one_of

CODEC_NAMES: Final = ("fp32", "bf16", "int8")
"""How a node writes its update; `nerv_fl.crypto.update_codecs` says what each rounds."""

DP_ENGINES: Final = ("layers", "opacus")
"""How per-sample gradients are formed; `nerv_fl.privacy.grad_sample` has both."""

PROTOCOL_SIGMA: Final = 0.5
"""DP-SGD noise multiplier (NERV whitepaper v1.01, section 4.3)."""

PROTOCOL_CLIP: Final = 1.0
"""DP-SGD per-record clipping norm (NERV whitepaper v1.01, section 4.3)."""

GAUSSIAN: Final = "gaussian"
MECHANISMS: Final = (GAUSSIAN, "none")
"""Privacy mechanisms of a node: clipping and Gaussian noise, or none, for a comparison without privacy."""

SMALLEST_SIGMA: Final = 0.1
"""Smallest noise multiplier of a simulation: a step spends an epsilon of 77, and the bound of many takes minutes."""

LARGEST_FEDERATION: Final = 10**6
"""Nodes that there may be."""


@dataclass(frozen=True, kw_only=True)
class FederationConfig:
    """Who takes part, and when a round is too poor to count."""

    num_nodes: int = 100
    cohort_size: int = 50
    num_rounds: int = 20
    min_heard_fraction: float = 0.7
    min_updates: int = 2
    round_timeout_s: float = 600.0
    node_wait_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse a cohort larger than the federation."""
        in_range("federation.num_nodes", self.num_nodes, low=1, high=LARGEST_FEDERATION)
        in_range("federation.cohort_size", self.cohort_size, low=1, high=self.num_nodes)
        in_range("federation.num_rounds", self.num_rounds, low=1, high=10**6)
        in_range("federation.min_heard_fraction", self.min_heard_fraction, low=0, high=1)
        in_range("federation.min_updates", self.min_updates, low=1, high=self.cohort_size)
        in_range("federation.round_timeout_s", self.round_timeout_s, low=0, high=math.inf, open_low=True)
        in_range("federation.node_wait_s", self.node_wait_s, low=0, high=math.inf, open_low=True)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A node's local work: `local_steps` Poisson batches of expected size `expected_batch`.

    A batch is worked through `micro_batch` samples at a time, and with `checkpointing` blocks are computed again in the
    backward pass: less memory, the same update up to rounding. `dp_engine` forms the per-sample gradients, on `device`;
    `codec` is how the update is written.
    `trainable` names the parameters that rounds train, with wildcards, between spaces: noise falls on no other.
    `loss_scale` multiplies the loss before clipping: with few parameters gradients are short, and the clip is fixed.
    """

    expected_batch: int = 64
    local_steps: int = 1
    learning_rate: float = 1.0
    micro_batch: int = 32
    codec: str = "fp32"
    dp_engine: str = "layers"
    checkpointing: bool = False
    device: str = "cpu"
    trainable: str = "*"
    loss_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse empty batches, unknown choices, and hooks where activations are computed again."""
        in_range("training.expected_batch", self.expected_batch, low=1, high=10**6)
        in_range("training.local_steps", self.local_steps, low=1, high=10**4)
        in_range("training.learning_rate", self.learning_rate, low=0, high=100, open_low=True)
        in_range("training.micro_batch", self.micro_batch, low=1, high=10**4)
        one_of("training.codec", self.codec, choices=CODEC_NAMES)
        one_of("training.dp_engine", self.dp_engine, choices=DP_ENGINES)
        one_of("training.device", self.device, choices=("cpu", "cuda"))
        if self.checkpointing and self.dp_engine != "layers":
            raise ConfigError(
                f"training.dp_engine is {self.dp_engine!r}, expected 'layers' with training.checkpointing: "
                "hooks break where blocks are computed again"
            )
        if not self.trainable.split():
            raise ConfigError(f"training.trainable is {self.trainable!r}, expected names of parameters, or '*' for all")
        in_range("training.loss_scale", self.loss_scale, low=0, high=1e6, open_low=True)


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """DP-SGD as the protocol fixes it, and what is added or removed: one record, or all records of one chain.

    With `unit` "chain", chains are drawn, the mean gradient of a chain's records is clipped, and
    `training.expected_batch` counts chains.

    A simulation may set `protocol` to false. Then `sigma` and `clip` may differ from the protocol's, and `mechanism`
    may be "none": nodes neither clip nor add noise, no epsilon exists and nothing is accounted for. A deployment
    refuses such settings.
    """

    sigma: float = PROTOCOL_SIGMA
    clip: float = PROTOCOL_CLIP
    delta: float = 1e-5
    max_epsilon: float = 8.0
    unit: str = "record"
    protocol: bool = True
    mechanism: str = GAUSSIAN

    def __post_init__(self) -> None:
        """Refuse any mechanism but the protocol's, unless `protocol` is false."""
        one_of("privacy.mechanism", self.mechanism, choices=MECHANISMS)
        if self.protocol:
            self._require_protocol_values("the protocol fixes it; a simulation may differ with privacy.protocol=false")
        elif self.is_private:
            in_range("privacy.sigma", self.sigma, low=SMALLEST_SIGMA, high=1e3)
            in_range("privacy.clip", self.clip, low=0, high=1e6, open_low=True)
        else:
            self._require_protocol_values("privacy.mechanism is 'none', which neither clips nor adds noise")
        in_range("privacy.delta", self.delta, low=0, high=0.5, open_low=True)
        in_range("privacy.max_epsilon", self.max_epsilon, low=0, high=math.inf, open_low=True)
        one_of("privacy.unit", self.unit, choices=("record", "chain"))

    @property
    def is_private(self) -> bool:
        """Whether nodes clip and add noise, so that an epsilon exists."""
        return self.mechanism == GAUSSIAN

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation of the noise on a clipped sum, in lengths of the clip; 0 without a mechanism."""
        return self.sigma if self.is_private else 0.0

    @property
    def deviation(self) -> str:
        """How the mechanism differs from the protocol's, in words for each line with an epsilon; empty if it does not.

        >>> PrivacyConfig(protocol=False, sigma=0.7).deviation
        "not the protocol's mechanism (sigma 0.7, clip 1.0)"
        """
        if not self.is_private:
            return "no privacy mechanism: epsilon is infinite"
        if (self.sigma, self.clip) == (PROTOCOL_SIGMA, PROTOCOL_CLIP):
            return ""
        return f"not the protocol's mechanism (sigma {self.sigma}, clip {self.clip})"

    def require_protocol(self) -> None:
        """Refuse settings that only a simulation may have.

        Raises:
            ConfigError: If `protocol` is false.
        """
        if not self.protocol:
            raise ConfigError(
                "privacy.protocol is False, expected True outside a simulation: "
                f"the protocol fixes sigma {PROTOCOL_SIGMA} and clip {PROTOCOL_CLIP}"
            )

    def _require_protocol_values(self, reason: str) -> None:
        fixed = (("sigma", self.sigma, PROTOCOL_SIGMA), ("clip", self.clip, PROTOCOL_CLIP))
        for name, value, expected in fixed:
            if value != expected:
                raise ConfigError(f"privacy.{name} is {value}, expected {expected}: {reason}")
        if self.protocol and not self.is_private:
            raise ConfigError(f"privacy.mechanism is {self.mechanism!r}, expected {GAUSSIAN!r}: {reason}")
