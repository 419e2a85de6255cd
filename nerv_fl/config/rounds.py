"""Settings of a round: aggregation, gate, valuation, rewards and the enclave."""

import math
from dataclasses import dataclass
from typing import Final

from nerv_fl.errors import ConfigError
from nerv_fl.validation import in_range, one_of

VALUATION_METHODS: Final = ("auto", "exact", "surrogate", "kernel_cv", "permutation", "audit", "none")
"""Methods of `nerv_fl.shapley`, and none: nobody is valued or paid, and every pool carries over."""

PROTOCOL_BOUND: Final = 1e-9
"""Homomorphism error bound, max-abs over coordinates (NERV whitepaper v1.01, section 2.2)."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """How a cohort's updates become the server's direction.

    An update longer than `max_update_norms` times an honest one is refused; "clipped_mean" shortens the rest to
    `clip_norm`. `mean_noise_std` is the noise added to each coordinate of the mean; no epsilon is computed for it.
    """

    aggregation: str = "mean"
    optimizer: str = "adam"
    learning_rate: float = 0.000625
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-3
    trim_fraction: float = 0.1
    clip_norm: float = 2.0
    max_update_norms: float = 5.0
    max_weight: float = 2.0
    mean_noise_std: float = 0.0
    spread_weight: float = 3.0
    size_weight: float = 0.02
    max_free_norm: float = 0.02

    def __post_init__(self) -> None:
        """Refuse unknown rules and numbers outside their range."""
        one_of("server.aggregation", self.aggregation, choices=("mean", "clipped_mean", "trimmed_mean", "median"))
        one_of("server.optimizer", self.optimizer, choices=("adam", "momentum"))
        in_range("server.learning_rate", self.learning_rate, low=0, high=100)
        in_range("server.beta1", self.beta1, low=0, high=0.9999)
        in_range("server.beta2", self.beta2, low=0, high=0.99999)
        in_range("server.epsilon", self.epsilon, low=0, high=1, open_low=True)
        in_range("server.trim_fraction", self.trim_fraction, low=0, high=0.49)
        in_range("server.clip_norm", self.clip_norm, low=0, high=math.inf, open_low=True)
        in_range("server.max_update_norms", self.max_update_norms, low=1, high=math.inf)
        in_range("server.max_weight", self.max_weight, low=0, high=math.inf, open_low=True)
        in_range("server.mean_noise_std", self.mean_noise_std, low=0, high=math.inf)
        if self.mean_noise_std and self.aggregation != "clipped_mean":
            raise ConfigError(
                f"server.aggregation is {self.aggregation!r}, expected 'clipped_mean' where server.mean_noise_std is "
                f"{self.mean_noise_std}: without a clip no noise bounds what one node changes"
            )
        in_range("server.spread_weight", self.spread_weight, low=0, high=math.inf)
        in_range("server.size_weight", self.size_weight, low=0, high=math.inf)
        in_range("server.max_free_norm", self.max_free_norm, low=0, high=math.inf)


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """What a candidate encoder must show before it is committed.

    `max_measure_ratio` is for the measures of a task other than the encoder.
    `enforce` false commits step 1 whatever it does, without a certificate: for measuring what the gate is worth.
    """

    enforce: bool = True
    steps: tuple[float, ...] = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)
    search_samples: int = 256
    certify_samples: int = 512
    monitor_samples: int = 512
    bound_batches: int = 30_000
    confidence: float = 0.95
    max_masked_ce_ratio: float = 1.01
    max_relative_drift_ratio: float = 1.01
    min_rank_ratio: float = 0.95
    max_measure_ratio: float = 1.01
    min_norm: float = 0.5
    max_norm: float = 2.0

    def __post_init__(self) -> None:
        """Refuse an empty step list and sample sizes without statistics."""
        if not self.steps or not all(0 < step < math.inf for step in self.steps):
            raise ConfigError(f"gate.steps is {list(self.steps)}, expected positive numbers, 0 being tried anyway")
        for name in ("search_samples", "certify_samples", "monitor_samples"):
            in_range(f"gate.{name}", getattr(self, name), low=8, high=10**7)
        in_range("gate.bound_batches", self.bound_batches, low=1, high=10**9)
        in_range("gate.confidence", self.confidence, low=0.5, high=0.9999)
        in_range("gate.max_masked_ce_ratio", self.max_masked_ce_ratio, low=1, high=10)
        in_range("gate.max_relative_drift_ratio", self.max_relative_drift_ratio, low=1, high=10)
        in_range("gate.min_rank_ratio", self.min_rank_ratio, low=0, high=1)
        in_range("gate.max_measure_ratio", self.max_measure_ratio, low=1, high=10)
        in_range("gate.min_norm", self.min_norm, low=0, high=self.max_norm)
        in_range("gate.max_norm", self.max_norm, low=0, high=math.inf, open_low=True)


@dataclass(frozen=True, kw_only=True)
class ValuationConfig:
    """How each node's contribution is valued.

    `game` is "fixed", in which absent nodes are zero updates, or "mean", the federation that would have been without
    them. With the method "none" nobody is valued or paid; no weight depends on a value. `curvature` gives
    "kernel_cv" and "audit" a second control at one gradient a node. `permutations` are those
    of "permutation"; `tolerance` is KernelCV's, 0 to spend every evaluation.
    """

    method: str = "auto"
    game: str = "fixed"
    exact_max_nodes: int = 12
    gradient_samples: int = 256
    evaluations: int = 128
    audit_samples: int = 64
    permutations: int = 10_000
    tolerance: float = 0.05
    curvature: bool = False
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Refuse budgets that cannot be spent."""
        one_of("valuation.method", self.method, choices=VALUATION_METHODS)
        one_of("valuation.game", self.game, choices=("fixed", "mean"))
        in_range("valuation.permutations", self.permutations, low=4, high=10**9)
        in_range("valuation.tolerance", self.tolerance, low=0, high=1)
        in_range("valuation.exact_max_nodes", self.exact_max_nodes, low=1, high=12)
        in_range("valuation.gradient_samples", self.gradient_samples, low=8, high=10**6)
        in_range("valuation.evaluations", self.evaluations, low=8, high=10**7)
        in_range("valuation.audit_samples", self.audit_samples, low=8, high=self.gradient_samples)
        in_range("valuation.confidence", self.confidence, low=0.5, high=0.9999)


@dataclass(frozen=True, kw_only=True)
class RewardsConfig:
    """How a round's pool is paid: on the lower confidence bound of each value, times reputation.

    From `slash_after` values in a row that are shown to be negative, each costs `slash_min` of the node's balance more
    than the one before, up to `slash_max`.
    """

    confidence: float = 0.9
    initial_reputation: float = 0.3
    reputation_rate: float = 0.05
    fault_penalty: float = 0.5
    slash_after: int = 2
    slash_min: float = 0.005
    slash_max: float = 0.05

    def __post_init__(self) -> None:
        """Refuse reputations outside 0..1."""
        in_range("rewards.confidence", self.confidence, low=0.5, high=0.9999)
        in_range("rewards.initial_reputation", self.initial_reputation, low=0, high=0.5)
        in_range("rewards.reputation_rate", self.reputation_rate, low=0, high=1)
        in_range("rewards.fault_penalty", self.fault_penalty, low=0, high=1)
        in_range("rewards.slash_after", self.slash_after, low=1, high=10**6)
        in_range("rewards.slash_min", self.slash_min, low=0, high=self.slash_max)
        in_range("rewards.slash_max", self.slash_max, low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class EnclaveConfig:
    """The simulated enclave: its place, evaluation processes, their chunk (bits depend on it), memory, what it flags.

    Its place is "here", in the server's own process, or a "process" of its own, which alone holds its keys and the
    opened updates.

    Opened updates beyond `memory_mb` MiB are not kept but opened again whenever they are read: slower, the same bits.

    Updates with a cosine from `clone_cosine` on are clones. `noise_alarm` is the probability that an update with all of
    its DP noise is taken for one without; `outlier_sigmas` is how far a cohort's honest updates spread in length, and
    along what is public. 0 switches either off.
    """

    place: str = "here"
    workers: int = 2
    chunk: int = 32
    memory_mb: float = 1024.0
    clone_cosine: float = 0.95
    noise_alarm: float = 1e-9
    outlier_sigmas: float = 8.0

    def __post_init__(self) -> None:
        """Refuse an enclave without workers."""
        one_of("enclave.place", self.place, choices=("here", "process"))
        in_range("enclave.workers", self.workers, low=1, high=1024)
        in_range("enclave.chunk", self.chunk, low=1, high=10**5)
        in_range("enclave.memory_mb", self.memory_mb, low=0, high=1e9)
        in_range("enclave.clone_cosine", self.clone_cosine, low=0, high=1, open_low=True)
        in_range("enclave.noise_alarm", self.noise_alarm, low=0, high=0.01)
        in_range("enclave.outlier_sigmas", self.outlier_sigmas, low=0, high=1e6)
