"""An encoder of 8 accounts and its settings: small enough to be trained in a test."""

from pathlib import Path

import numpy as np

from nerv_fl.bootstrap.pretrain import BootstrapResult, pretrain
from nerv_fl.bootstrap.public import PublicData
from nerv_fl.config import BootstrapConfig, DataConfig, RunConfig
from nerv_fl.data import LedgerFile, open_ledger
from nerv_fl.models.batch import evaluation_masks, make_batch
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.evaluate import EncoderMeasures, measure_samples, summarise
from nerv_fl.models.presets import Preset
from nerv_fl.models.weights import load_encoder

TINY = Preset(name="tiny", num_accounts=8, width=8, num_layers=1, num_heads=2, position_std=0.3, embedding_std=0.05)
CHAINS, STEPS, HELDOUT = 40, 4, 12
NUM_TRAINED = (CHAINS - HELDOUT) * STEPS
SETTINGS = BootstrapConfig(steps=40, batch_size=16, learning_rate=0.01, warmup_steps=5, evaluate_every=10)


def make_config(settings: BootstrapConfig = SETTINGS, *, heldout_chains: int = HELDOUT, seed: int = 7) -> RunConfig:
    return RunConfig(seed=seed, bootstrap=settings, data=DataConfig(heldout_chains=heldout_chains))


def make_data(ledger_path: Path, config: RunConfig) -> PublicData:
    return PublicData(open_ledger(ledger_path), config=config, preset=TINY)


def run(ledger_path: Path, tmp_path: Path, settings: BootstrapConfig = SETTINGS, *, seed: int = 7) -> BootstrapResult:
    return pretrain(make_config(settings, seed=seed), ledger_path, out=tmp_path / "encoder.safetensors")


def load(path: Path) -> tuple[Encoder, dict[str, object]]:
    encoder = Encoder(TINY)
    return encoder, load_encoder(path, encoder)


def weights(path: Path) -> list[float]:
    return [float(value) for value in get_flat(load(path)[0])]


def measured_again(result: BootstrapResult, ledger_path: Path) -> EncoderMeasures:
    """Return the measures of the weights on disk, on the held-out samples."""
    encoder, _ = load(result.path)
    with LedgerFile(ledger_path) as ledger:
        heldout = ledger.read(NUM_TRAINED + np.arange(HELDOUT) * STEPS + np.arange(HELDOUT) % STEPS)
    batch = make_batch(heldout, evaluation_masks(7, heldout))
    return summarise(measure_samples(encoder, batch, movement_floor=result.movement_floor, chunk=32))
