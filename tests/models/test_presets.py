"""The encoder's sizes, and the protocol's full size within 8 GB."""

import json
import re
import subprocess
import sys

import pytest
import torch

from nerv_fl.config import PRESET_NAMES
from nerv_fl.errors import ConfigError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.presets import PRESETS, get_preset

MAX_BYTES = 8 * 10**9

FULL_SIZE_STEP = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
import torch
from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.client.train import Streams, Trainer
from nerv_fl.config import PrivacyConfig, TrainingConfig
from nerv_fl.models.batch import draw_masks, make_batch
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.losses import sample_losses
from nerv_fl.models.presets import get_preset
from nerv_fl.rng import stream, torch_stream
from nerv_fl.store import LedgerFile

torch.set_num_threads(1)
path = Path(sys.argv[1])
generate_ledger(path, LedgerShape(chains=1, steps=1, accounts=1024, max_transactions=256, profile="live", seed=1))
encoder = Encoder(get_preset("whitepaper"), checkpoint_activations=True)
encoder.reset_parameters(torch_stream(1, "weights"))
theta = get_flat(encoder)
with LedgerFile(path) as ledger:
    started = time.perf_counter()
    with torch.no_grad():
        masks = draw_masks(stream(1, "masks"), num_samples=1, num_accounts=1024)
        batch = make_batch(ledger.read([0]), masks)
        loss = sample_losses(encoder, batch, table_AD=encoder.table(), movement_floor=0.01).loss_B
    forward_s = time.perf_counter() - started
    training = TrainingConfig(expected_batch=1, learning_rate=1.0)
    trainer = Trainer(encoder, training=training, privacy=PrivacyConfig(), movement_floor=0.01)
    streams = Streams(sampling=stream(1, "sampling"), masks=stream(1, "masks"), noise=stream(1, "noise"))
    started = time.perf_counter()
    update = trainer.update(theta, ledger, samples=np.arange(0, 1), streams=streams)
    step_s = time.perf_counter() - started
print(json.dumps({
    "loss": loss.item(), "norm": update.double().norm().item(), "size": update.numel(),
    "forward_s": forward_s, "step_s": step_s,
    "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
}))
"""


def count_parameters(name: str) -> int:
    """Count an encoder's parameters without allocating them."""
    with torch.device("meta"):
        return Encoder(get_preset(name)).num_parameters


def test_table_and_names_agree() -> None:
    assert tuple(PRESETS) == PRESET_NAMES
    assert all(name == preset.name for name, preset in PRESETS.items())


@pytest.mark.parametrize(
    ("name", "accounts", "width", "layers"),
    [
        ("quickstart", 64, 32, 2),
        ("small", 128, 64, 2),
        ("tee", 1024, 128, 3),
        ("base", 512, 256, 8),
        ("whitepaper", 1024, 512, 24),
    ],
)
def test_sizes(*, name: str, accounts: int, width: int, layers: int) -> None:
    preset = get_preset(name)
    assert (preset.num_accounts, preset.width, preset.num_layers) == (accounts, width, layers)
    assert preset.num_tokens == 1 + 2 * accounts
    assert preset.vocabulary == 1 + accounts + 256
    assert preset.feed_forward_width == 4 * width
    assert preset.width % preset.num_heads == 0


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_affine_map_cannot_be_inverted_outright(name: str) -> None:
    assert get_preset(name).num_accounts >= 2 * get_preset(name).width


def test_whitepaper_has_its_77_6_million_parameters_and_the_balance_head() -> None:
    block = 12 * 512**2 + 13 * 512
    body = 1281 * 512 + 2049 * 512 + 24 * block + 2 * 512 + 512**2 + 512
    assert body == 77_625_856
    assert count_parameters("whitepaper") == body + 256 * 512 + 256 == 77_757_184


def test_quickstart_is_small() -> None:
    embeddings, blocks = (321 + 129) * 32, 2 * (12 * 32**2 + 13 * 32)
    assert count_parameters("quickstart") == embeddings + blocks + 2 * 32 + 33 * 32 + 33 * 256 == 49_376


def test_unknown_preset_is_refused_by_name() -> None:
    message = (
        "model.preset is 'quikstart', expected one of: base, quickstart, small, tee, whitepaper "
        "(did you mean 'quickstart'?)"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        get_preset("quikstart")


@pytest.mark.slow
def test_whitepaper_takes_a_forward_pass_and_a_private_step_under_8_gb(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("full") / "ledger.h5"
    process = subprocess.run(
        [sys.executable, "-c", FULL_SIZE_STEP, str(path)], capture_output=True, text=True, check=True
    )
    measured = json.loads(process.stdout)
    assert measured["size"] == 77_757_184
    assert 0 < measured["loss"] < float("inf")
    # Noise alone has norm sigma C sqrt(P) = 4409; the clipped gradient adds at most 1.
    assert abs(measured["norm"] - 0.5 * 77_757_184**0.5) < 5
    assert measured["peak_bytes"] < MAX_BYTES
