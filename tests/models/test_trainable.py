"""Which coordinates a round trains: what matches a name, in the order of the flat vector, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from nerv_fl.config import RunConfig, TrainingConfig
from nerv_fl.errors import ConfigError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import get_preset
from nerv_fl.models.trainable import train_only, trainable_P


def config_of(patterns: str) -> RunConfig:
    return replace(RunConfig(), training=TrainingConfig(trainable=patterns))


def test_everything_needs_no_mask() -> None:
    assert trainable_P(RunConfig()) is None
    assert trainable_P(config_of(" * ")) is None


def test_coordinates_are_those_of_the_flat_vector() -> None:
    """Of the quickstart: 1 + 64 + 256 tokens of width 32 come first, then 129 positions."""
    moves_P = trainable_P(config_of("positions.*"))
    assert moves_P is not None
    assert moves_P.shape == (49_376,)
    assert np.flatnonzero(moves_P).tolist() == list(range(321 * 32, (321 + 129) * 32))


def test_patterns_add_up() -> None:
    sizes = {name: item.numel() for name, item in Encoder(get_preset("quickstart")).named_parameters()}
    expected = sum(size for name, size in sizes.items() if name.endswith("bias")) + sizes["norm.weight"]
    moves_P = trainable_P(config_of("*bias norm.weight"))
    assert moves_P is not None
    assert int(moves_P.sum()) == expected


def test_the_mask_cannot_be_changed_by_who_reads_it() -> None:
    moves_P = trainable_P(config_of("norm.*"))
    assert moves_P is not None
    with pytest.raises(ValueError, match="read-only"):
        moves_P[0] = True


def test_a_pattern_without_parameters_is_refused() -> None:
    expected = r"training.trainable holds 'position.weight', expected names of parameters \(did you mean 'positions"
    with pytest.raises(ConfigError, match=expected):
        train_only(Encoder(get_preset("quickstart")), "norm.* position.weight")


def test_no_pattern_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training.trainable is ' ', expected names of parameters, or '\*' for all"):
        TrainingConfig(trainable=" ")
