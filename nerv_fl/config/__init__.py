"""Settings: frozen sections, and the one parser for TOML and for Flower's run config."""

from nerv_fl.config.adversaries import AdversariesConfig
from nerv_fl.config.faults import FaultsConfig
from nerv_fl.config.model import PRESET_NAMES, BootstrapConfig, DataConfig, ModelConfig
from nerv_fl.config.parse import Flat, as_table, build, flatten, parse_overrides, read_recipe, to_toml
from nerv_fl.config.rounds import (
    PROTOCOL_BOUND,
    EnclaveConfig,
    GateConfig,
    RewardsConfig,
    ServerConfig,
    ValuationConfig,
)
from nerv_fl.config.run import RunConfig, SimulationConfig, TrackingConfig
from nerv_fl.config.training import (
    CODEC_NAMES,
    DP_ENGINES,
    GAUSSIAN,
    LARGEST_FEDERATION,
    PROTOCOL_CLIP,
    PROTOCOL_SIGMA,
    FederationConfig,
    PrivacyConfig,
    TrainingConfig,
)

__all__ = [
    "CODEC_NAMES",
    "DP_ENGINES",
    "GAUSSIAN",
    "LARGEST_FEDERATION",
    "PRESET_NAMES",
    "PROTOCOL_BOUND",
    "PROTOCOL_CLIP",
    "PROTOCOL_SIGMA",
    "AdversariesConfig",
    "BootstrapConfig",
    "DataConfig",
    "EnclaveConfig",
    "FaultsConfig",
    "FederationConfig",
    "Flat",
    "GateConfig",
    "ModelConfig",
    "PrivacyConfig",
    "RewardsConfig",
    "RunConfig",
    "ServerConfig",
    "SimulationConfig",
    "TrackingConfig",
    "TrainingConfig",
    "ValuationConfig",
    "as_table",
    "build",
    "flatten",
    "parse_overrides",
    "read_recipe",
    "to_toml",
]
