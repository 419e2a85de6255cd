"""Central pretraining on a ledger of 8 accounts: it learns, it keeps the best, and it refuses what it cannot use."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.bootstrap import pretrain as pretrain_module
from nerv_fl.bootstrap.pretrain import BootstrapResult, pretrain
from nerv_fl.client.privacy import Mechanism, epsilon_of
from nerv_fl.config import BootstrapConfig, DataConfig, RunConfig
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.models.batch import evaluation_masks, make_batch, movement
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.evaluate import EncoderMeasures, measure_samples, summarise
from nerv_fl.models.presets import Preset
from nerv_fl.models.weights import load_encoder
from nerv_fl.store import LedgerFile

TINY = Preset(name="tiny", num_accounts=8, width=8, num_layers=1, num_heads=2, position_std=0.3, embedding_std=0.05)
CHAINS, STEPS, HELDOUT = 40, 4, 12
NUM_TRAINED = (CHAINS - HELDOUT) * STEPS
SETTINGS = BootstrapConfig(steps=40, batch_size=16, learning_rate=0.01, warmup_steps=5, evaluate_every=10)


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain_module, "get_preset", lambda name: TINY)


@pytest.fixture(scope="module")
def ledger_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("public") / "ledger.h5"
    generate_ledger(
        path, LedgerShape(chains=CHAINS, steps=STEPS, accounts=8, max_transactions=6, profile="genesis", seed=5)
    )
    return path


def make_config(settings: BootstrapConfig = SETTINGS, *, heldout_chains: int = HELDOUT, seed: int = 7) -> RunConfig:
    return RunConfig(seed=seed, bootstrap=settings, data=DataConfig(heldout_chains=heldout_chains))


def run(ledger_path: Path, tmp_path: Path, settings: BootstrapConfig = SETTINGS, *, seed: int = 7) -> BootstrapResult:
    return pretrain(make_config(settings, seed=seed), ledger_path, out=tmp_path / "encoder.safetensors")


def load(result: BootstrapResult) -> tuple[Encoder, dict[str, object]]:
    encoder = Encoder(TINY)
    return encoder, load_encoder(result.path, encoder)


def test_held_out_loss_falls(ledger_path: Path, tmp_path: Path) -> None:
    start = run(ledger_path, tmp_path, replace(SETTINGS, steps=0))
    end = run(ledger_path, tmp_path)
    assert start.best_step == 0
    assert end.best_step > 0
    assert end.measures.loss < 0.98 * start.measures.loss
    assert end.measures.masked_ce < start.measures.masked_ce


def measured_again(result: BootstrapResult, ledger_path: Path) -> EncoderMeasures:
    """Return the measures of the weights on disk, on the held-out samples."""
    encoder, _ = load(result)
    with LedgerFile(ledger_path) as ledger:
        heldout = ledger.read(NUM_TRAINED + np.arange(HELDOUT) * STEPS + np.arange(HELDOUT) % STEPS)
    batch = make_batch(heldout, evaluation_masks(7, heldout))
    return summarise(measure_samples(encoder, batch, movement_floor=result.movement_floor, chunk=32))


def test_weights_on_disk_are_those_that_were_measured(ledger_path: Path, tmp_path: Path) -> None:
    result = run(ledger_path, tmp_path)
    _, facts = load(result)
    assert facts == {"movement_floor": result.movement_floor, "best_step": result.best_step, "epsilon": None}
    assert measured_again(result, ledger_path) == result.measures
    with LedgerFile(ledger_path) as ledger:
        trained = ledger.read(np.arange(NUM_TRAINED))
    assert result.movement_floor == pytest.approx(0.1 * np.median(movement(trained)))


def test_best_weights_are_kept_not_the_last(ledger_path: Path, tmp_path: Path) -> None:
    """Steps far too large after the start: the result is the start, on disk too, and progress never says worse."""
    told: list[tuple[int, int, float]] = []
    settings = replace(SETTINGS, learning_rate=3.0, warmup_steps=0, steps=9, evaluate_every=3)
    result = pretrain(
        make_config(settings), ledger_path, out=tmp_path / "encoder.safetensors", progress=lambda *row: told.append(row)
    )
    on_disk = measured_again(result, ledger_path)
    start = run(ledger_path, tmp_path, replace(SETTINGS, steps=0))
    assert [row[:2] for row in told] == [(3, 9), (6, 9), (9, 9)]
    assert len({row[2] for row in told}) == 1
    assert told[0][2] == pytest.approx(start.measures.loss, rel=1e-2)
    assert result.best_step == 0
    assert on_disk == result.measures == start.measures


def test_output_bias_starts_at_the_log_unigram(ledger_path: Path, tmp_path: Path) -> None:
    encoder, _ = load(run(ledger_path, tmp_path, replace(SETTINGS, steps=0)))
    bias_K = encoder.balance_head.bias.detach().double()
    assert bias_K.exp().sum().item() == pytest.approx(1, rel=1e-4)
    assert bias_K.exp().max().item() > 0.01


def test_same_seed_gives_the_same_bits(ledger_path: Path, tmp_path: Path) -> None:
    thetas = [get_flat(load(run(ledger_path, tmp_path, seed=seed))[0]) for seed in (7, 7, 8)]
    assert torch.equal(thetas[0], thetas[1])
    assert not torch.equal(thetas[0], thetas[2])


def test_schedule_warms_up_and_falls_as_a_cosine() -> None:
    rates = [pretrain_module._cosine(step, SETTINGS) for step in range(41)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1
    assert rates[22] == pytest.approx(0.5 * (1 + math.cos(math.pi * 17 / 35)))
    assert rates[40] == pytest.approx(0)


# --- DP ---------------------------------------------------------------------------------------------------------------


def test_private_pretraining_states_its_epsilon(ledger_path: Path, tmp_path: Path) -> None:
    result = run(ledger_path, tmp_path, replace(SETTINGS, steps=4, batch_size=2, evaluate_every=2, dp=True))
    mechanism = Mechanism(sigma=0.5, sampling_rate=2 / NUM_TRAINED)
    assert result.epsilon == epsilon_of(mechanism, 4, delta=1e-5)
    assert result.epsilon > 0
    assert load(result)[1]["epsilon"] == result.epsilon
    assert math.isfinite(result.measures.loss)


def test_private_pretraining_survives_empty_batches(ledger_path: Path, tmp_path: Path) -> None:
    """Poisson batches of expected size 1 are empty every third time."""
    result = run(ledger_path, tmp_path, replace(SETTINGS, steps=12, batch_size=1, evaluate_every=12, dp=True))
    assert math.isfinite(result.measures.loss)


def test_private_gradient_is_clipped_and_noisy(
    ledger_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With plain steps in place of AdamW's and no data-free terms, a step moves by noise of std 0.5 / 2."""
    monkeypatch.setattr(torch.optim, "AdamW", plain_steps)
    monkeypatch.setattr(pretrain_module, "_evaluate", last_always_wins)
    config = make_config(
        replace(SETTINGS, batch_size=2, learning_rate=1.0, warmup_steps=0, dp=True, spread_weight=0.0, size_weight=0.0)
    )
    thetas = []
    for steps in (0, 1):
        changed = replace(config, bootstrap=replace(config.bootstrap, steps=steps))
        thetas.append(get_flat(load(pretrain(changed, ledger_path, out=tmp_path / "encoder.safetensors"))[0]))
    moved_P = (thetas[1] - thetas[0]).double()
    assert moved_P.std().item() == pytest.approx(0.25, rel=0.05)


def plain_steps(parameters: object, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)  # type: ignore[arg-type]


REAL_EVALUATE = pretrain_module._evaluate


def last_always_wins(*arguments: object, step: int, **named: object) -> object:
    best = REAL_EVALUATE(*arguments, step=step, **named)  # type: ignore[arg-type]
    return replace(best, measures=replace(best.measures, loss=-float(step)))


def test_batch_larger_than_the_data_is_refused_under_dp(ledger_path: Path, tmp_path: Path) -> None:
    message = f"sampling rate is {200 / NUM_TRAINED}, expected a number in (0, 1]"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        run(ledger_path, tmp_path, replace(SETTINGS, batch_size=200, dp=True))
    assert not list(tmp_path.iterdir())


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_ledger_of_other_accounts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.h5"
    generate_ledger(path, LedgerShape(chains=4, steps=2, accounts=9, max_transactions=6, profile="genesis", seed=5))
    message = f"{path} has 9 accounts, expected 8 (the model's)"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        run(path, tmp_path)


@pytest.mark.parametrize("heldout_chains", [CHAINS, CHAINS + 1])
def test_ledger_without_chains_to_train_on_is_refused(ledger_path: Path, tmp_path: Path, heldout_chains: int) -> None:
    message = f"{ledger_path} has 40 chains, expected more than data.heldout_chains = {heldout_chains}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        pretrain(make_config(heldout_chains=heldout_chains), ledger_path, out=tmp_path / "encoder.safetensors")


def test_missing_ledger_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "none.h5"
    with pytest.raises(DataError, match=f"^{re.escape(str(missing))} does not exist, expected a ledger file$"):
        run(missing, tmp_path)


def test_learning_rate_that_is_not_a_number_is_refused() -> None:
    message = r"^bootstrap\.learning_rate is nan, expected a number in \(0, 10\]$"
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, learning_rate=math.nan)


def test_loss_that_stops_being_finite_raises_and_writes_nothing(ledger_path: Path, tmp_path: Path) -> None:
    """AdamW at rate 10 and decay 1 multiplies every weight by -9 at each step."""
    wild = replace(SETTINGS, steps=400, learning_rate=10.0, weight_decay=1.0, warmup_steps=0, evaluate_every=400)
    message = r"^pretraining loss is (nan|inf), expected a finite number: lower bootstrap.learning_rate$"
    with pytest.raises(DataError, match=message):
        run(ledger_path, tmp_path, wild)
    assert not list(tmp_path.iterdir())
