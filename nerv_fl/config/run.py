"""Every setting of a run, and what spans sections.

A default is the quickstart's value.
"""

from dataclasses import dataclass, field
from typing import Final

from nerv_fl.config.adversaries import AdversariesConfig
from nerv_fl.config.faults import FaultsConfig
from nerv_fl.config.model import BootstrapConfig, DataConfig, ModelConfig
from nerv_fl.config.rounds import EnclaveConfig, GateConfig, RewardsConfig, ServerConfig, ValuationConfig
from nerv_fl.config.training import FederationConfig, PrivacyConfig, TrainingConfig
from nerv_fl.errors import ConfigError
from nerv_fl.validation import in_range, one_of

MAX_NAME: Final = 64

CHAIN: Final = "chain"
UNITS: Final = {"encoder": "step record", "forecaster": "window"}

OF_NOISE: Final = ("replayer", "noisy_copy", "noise_skipper")
"""Attacks that imitate the noise of an honest update, or leave it out."""

TASK_NAMES: Final = ("encoder", "forecaster")
"""Models that a federation trains out of the box; `nerv_fl.tasks` has them."""


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """How a simulation is spread over actors; no result depends on it.

    `gpus_per_actor` is what Ray sets aside for each, a fraction or a whole number; as many actors start as fit.
    """

    actors: int = 2
    blocks: int = 10
    gpus_per_actor: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a simulation without actors."""
        in_range("simulation.actors", self.actors, low=1, high=4096)
        in_range("simulation.blocks", self.blocks, low=1, high=10**5)
        in_range("simulation.gpus_per_actor", self.gpus_per_actor, low=0, high=64)
        if self.gpus_per_actor > 1 and not self.gpus_per_actor.is_integer():
            raise ConfigError(
                f"simulation.gpus_per_actor is {self.gpus_per_actor}, expected a fraction or a whole number: "
                "Ray divides one GPU only"
            )


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Optional mirrors of the round records."""

    tensorboard: bool = False
    wandb: bool = False


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Every setting of a run. `task` is "encoder", "forecaster", or "package.module:Class" of your own."""

    name: str = "quickstart"
    seed: int = 7
    task: str = "encoder"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    valuation: ValuationConfig = field(default_factory=ValuationConfig)
    rewards: RewardsConfig = field(default_factory=RewardsConfig)
    enclave: EnclaveConfig = field(default_factory=EnclaveConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    adversaries: AdversariesConfig = field(default_factory=AdversariesConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)

    def __post_init__(self) -> None:
        """Check what spans sections."""
        if not 1 <= len(self.name) <= MAX_NAME or not self.name.isascii() or not self.name.isprintable():
            raise ConfigError(f"name is {self.name!r}, expected 1 to {MAX_NAME} printable ASCII characters")
        if self.name.startswith(".") or set(self.name) & set("/\\"):
            raise ConfigError(f"name is {self.name!r}, expected a folder name without / and \\ that begins with no dot")
        self._check_task()
        self._check_valuation()
        self._check_mechanism()
        in_range("seed", self.seed, low=0, high=2**63 - 1)
        in_range("training.expected_batch", self.training.expected_batch, low=1, high=self.units_per_node)
        in_range("gate.search_samples", self.gate.search_samples, low=8, high=self.data.search_chains)
        in_range("gate.certify_samples", self.gate.certify_samples, low=8, high=self.data.certify_chains)
        in_range("gate.monitor_samples", self.gate.monitor_samples, low=8, high=self.data.certify_chains)
        in_range("valuation.gradient_samples", self.valuation.gradient_samples, low=8, high=self.gate.search_samples)

    def _check_task(self) -> None:
        """Refuse an unknown task, and settings that only an encoder's data can follow."""
        if ":" not in self.task:
            one_of("task", self.task, choices=TASK_NAMES)
        if self.task == "encoder":
            return
        settings = (
            ("adversaries.fabricated", self.adversaries.fabricated, 0.0),
            ("data.partition", self.data.partition, "chain"),
            ("data.heterogeneity", self.data.heterogeneity, 0.0),
        )
        for name, value, expected in settings:
            if value != expected:
                raise ConfigError(f"{name} is {value!r}, expected {expected!r} with task {self.task!r}")

    def _check_mechanism(self) -> None:
        """Refuse what has no meaning where nodes neither clip nor add noise."""
        if self.privacy.is_private:
            return
        if self.bootstrap.dp:
            raise ConfigError("bootstrap.dp is True, expected False with privacy.mechanism 'none'")
        for kind in OF_NOISE:
            if fraction := self.adversaries.fractions()[kind]:
                raise ConfigError(
                    f"adversaries.{kind} is {fraction}, expected 0 with privacy.mechanism 'none': "
                    "the attack depends on the noise of an honest update"
                )

    def _check_valuation(self) -> None:
        """Refuse a method that the cohort, the budget or the aggregation rule does not allow."""
        settings, rule, cohort = self.valuation, self.server.aggregation, self.federation.cohort_size
        is_linear = rule not in ("trimmed_mean", "median")
        if settings.method == "exact" and cohort > settings.exact_max_nodes:
            raise ConfigError(
                f"federation.cohort_size is {cohort}, expected at most valuation.exact_max_nodes = "
                f"{settings.exact_max_nodes} with valuation.method 'exact'"
            )
        if not is_linear and (settings.method == "surrogate" or settings.game == "mean"):
            raise ConfigError(
                f"valuation.method is {settings.method!r} and valuation.game {settings.game!r}, expected another "
                f"method and 'fixed' with server.aggregation {rule!r}: neither holds for a rule that is not linear"
            )
        if settings.game == "mean" and settings.method == "surrogate":
            raise ConfigError("valuation.method is 'surrogate', expected another with valuation.game 'mean'")
        least = self._least_evaluations(is_linear=is_linear)
        if settings.evaluations < least:
            raise ConfigError(
                f"valuation.evaluations is {settings.evaluations}, expected at least {least} with valuation.method "
                f"{settings.method!r}, server.aggregation {rule!r} and {cohort} nodes a round"
            )

    def _least_evaluations(self, *, is_linear: bool) -> int:
        """Return what the method needs for a full cohort; exact values and the surrogate need no more than 8."""
        settings, cohort = self.valuation, self.federation.cohort_size
        if settings.method == "permutation":
            return 4 * cohort
        if settings.method in ("kernel_cv", "audit"):
            return max(cohort + 2, 18)
        by_masks = not is_linear or settings.game == "mean"
        return cohort + 2 if settings.method == "auto" and by_masks and cohort > settings.exact_max_nodes else 8

    @property
    def privacy_unit(self) -> str:
        """What epsilon is of: add or remove one of these, samples taken as fixed rows."""
        return CHAIN if self.privacy.unit == CHAIN else UNITS.get(self.task, "sample")

    @property
    def records_per_unit(self) -> int:
        """Records that are drawn and clipped together."""
        return self.data.steps if self.privacy.unit == CHAIN else 1

    @property
    def units_per_node(self) -> int:
        """How many units a node draws from: records, or chains."""
        return self.data.samples_per_node // self.records_per_unit

    @property
    def sampling_rate(self) -> float:
        """Poisson sampling rate q of a unit in one local step."""
        return self.training.expected_batch / self.units_per_node
