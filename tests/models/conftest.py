"""A tiny encoder whose every parameter matters, and a ledger small enough to check by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.data import LedgerFile, Samples
from nerv_fl.models.batch import StateBatch, evaluation_masks, make_batch
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.models.presets import Preset

CHAINS = 12
STEPS = 4


@pytest.fixture(scope="session")
def tiny() -> Preset:
    return Preset(name="tiny", num_accounts=8, width=8, num_layers=1, num_heads=2, position_std=0.3, embedding_std=0.3)


@pytest.fixture(scope="session")
def theta(tiny: Preset) -> torch.Tensor:
    """Weights at which no bias is zero and no norm is one, so that a forgotten term shows."""
    encoder = Encoder(tiny)
    encoder.reset_parameters(torch.Generator().manual_seed(1))
    drawn = get_flat(encoder)
    return drawn + 0.1 * torch.randn(drawn.shape, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def encoder(tiny: Preset, theta: torch.Tensor) -> Encoder:
    fresh = Encoder(tiny)
    set_flat(fresh, theta)
    return fresh


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """One sample of each chain, with its transactions."""
    path: Path = tmp_path_factory.mktemp("ledger") / "ledger.h5"
    generate_ledger(path, LedgerShape(chains=CHAINS, steps=STEPS, accounts=8, max_transactions=6, seed=5))
    with LedgerFile(path) as ledger:
        return ledger.read(np.arange(CHAINS) * STEPS + np.arange(CHAINS) % STEPS, with_batches=True)


@pytest.fixture(scope="session")
def batch(samples: Samples) -> StateBatch:
    return make_batch(samples, evaluation_masks(3, samples))
