"""Which coordinates a round trains: what matches a name, in the order of the flat vector, and nothing else."""

import numpy as np
import pytest

from nerv_fl.config import TrainingConfig
from nerv_fl.errors import ConfigError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.forecaster import Forecaster, LoadScale
from nerv_fl.models.presets import get_preset
from nerv_fl.models.trainable import num_trained, train_only, trained_P


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(get_preset("quickstart"))


def test_everything_needs_no_mask(encoder: Encoder) -> None:
    assert trained_P(encoder, "*") is None
    assert trained_P(encoder, " * ") is None
    assert num_trained(None, 49_376) == 49_376


def test_coordinates_are_those_of_the_flat_vector(encoder: Encoder) -> None:
    """Of the quickstart: 1 + 64 + 256 tokens of width 32 come first, then 129 positions."""
    moves_P = trained_P(encoder, "positions.*")
    assert moves_P is not None
    assert moves_P.shape == (49_376,)
    assert np.flatnonzero(moves_P).tolist() == list(range(321 * 32, (321 + 129) * 32))
    assert num_trained(moves_P, 49_376) == 129 * 32


def test_patterns_add_up(encoder: Encoder) -> None:
    sizes = {name: item.numel() for name, item in encoder.named_parameters()}
    expected = sum(size for name, size in sizes.items() if name.endswith("bias")) + sizes["norm.weight"]
    moves_P = trained_P(encoder, "*bias norm.weight")
    assert moves_P is not None
    assert int(moves_P.sum()) == expected


def test_the_model_is_left_as_it_is(encoder: Encoder) -> None:
    trained_P(encoder, "norm.*")
    assert all(item.requires_grad for item in encoder.parameters())


def test_frozen_parameters_stay_frozen(encoder: Encoder) -> None:
    encoder.norm.requires_grad_(requires_grad=False)
    encoder.positions.requires_grad_(requires_grad=False)

    moves_P = trained_P(encoder, "*")
    train_only(encoder, "*")

    assert moves_P is not None
    assert num_trained(moves_P, 49_376) == 49_376 - 2 * 32 - 129 * 32
    assert not encoder.norm.weight.requires_grad
    assert encoder.embedding.weight.requires_grad


def test_a_pattern_that_names_only_frozen_parameters_is_refused(encoder: Encoder) -> None:
    encoder.norm.requires_grad_(requires_grad=False)

    expected = (
        r"^training.trainable holds 'norm.\*', which matches only parameters that the task's build\(\) freezes "
        r"\(requires_grad is False\): norm.weight, norm.bias; expected at least one that it leaves trainable$"
    )
    with pytest.raises(ConfigError, match=expected):
        trained_P(encoder, "* norm.*")
    with pytest.raises(ConfigError, match=expected):
        train_only(encoder, "norm.*")


def test_any_model_will_do() -> None:
    forecaster = Forecaster(LoadScale.unit(), width=8)
    moves_P = trained_P(forecaster, "*bias*")
    assert moves_P is not None
    named = dict(forecaster.named_parameters())
    assert int(moves_P.sum()) == sum(item.numel() for name, item in named.items() if "bias" in name) > 0


def test_a_pattern_without_parameters_is_refused(encoder: Encoder) -> None:
    expected = r"training.trainable holds 'position.weight', expected names of parameters \(did you mean 'positions"
    with pytest.raises(ConfigError, match=expected):
        train_only(encoder, "norm.* position.weight")
    with pytest.raises(ConfigError, match=expected):
        trained_P(encoder, "norm.* position.weight")


def test_no_pattern_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training.trainable is ' ', expected names of parameters, or '\*' for all"):
        TrainingConfig(trainable=" ")
