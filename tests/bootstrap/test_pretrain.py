"""Central pretraining on a ledger of 8 accounts: it learns, it keeps the best, and it refuses what it cannot use."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.bootstrap.pretrain import pretrain
from nerv_fl.bootstrap.training import Pretraining
from nerv_fl.data import LedgerFile
from nerv_fl.errors import CheckpointError, ConfigError, DataError
from nerv_fl.models.batch import movement
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.evaluate import EncoderMeasures
from nerv_fl.models.presets import get_preset
from nerv_fl.models.weights import save_encoder
from nerv_fl.privacy.accounting import Mechanism, epsilon_of
from nerv_fl.rng import torch_stream
from tests.bootstrap.tiny import CHAINS, NUM_TRAINED, SETTINGS, load, make_config, measured_again, run, weights

pytestmark = pytest.mark.usefixtures("tiny_preset")


def test_held_out_loss_falls(ledger_path: Path, tmp_path: Path) -> None:
    start = run(ledger_path, tmp_path, replace(SETTINGS, steps=0))
    end = run(ledger_path, tmp_path)
    assert start.best_step == 0
    assert end.best_step > 0
    assert end.measures.loss < 0.98 * start.measures.loss
    assert end.measures.masked_ce < start.measures.masked_ce


def test_weights_on_disk_are_those_that_were_measured(ledger_path: Path, tmp_path: Path) -> None:
    result = run(ledger_path, tmp_path)
    _, facts = load(result.path)
    with LedgerFile(ledger_path) as ledger:
        trained, data_sha256 = ledger.read(np.arange(NUM_TRAINED)), ledger.info.content_sha256
    assert facts == {
        "movement_floor": result.movement_floor,
        "best_step": result.best_step,
        "epsilon": None,
        "stopped": "",
        "data_sha256": data_sha256,
    }
    assert measured_again(result, ledger_path) == result.measures
    assert result.movement_floor == pytest.approx(0.1 * np.median(movement(trained)))
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]


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
    assert [point.step for point in result.curve] == [0, 3, 6, 9]
    assert min(result.curve, key=lambda point: point.measures.loss) is result.curve[0]


def test_output_bias_starts_at_the_log_unigram(ledger_path: Path, tmp_path: Path) -> None:
    encoder, _ = load(run(ledger_path, tmp_path, replace(SETTINGS, steps=0)).path)
    bias_K = encoder.balance_head.bias.detach().double()
    assert bias_K.exp().sum().item() == pytest.approx(1, rel=1e-4)
    assert bias_K.exp().max().item() > 0.01


def test_same_seed_gives_the_same_bits(ledger_path: Path, tmp_path: Path) -> None:
    seven, again, eight = (weights(run(ledger_path, tmp_path, seed=seed).path) for seed in (7, 7, 8))
    assert seven == again
    assert seven != eight


def test_a_training_may_begin_with_weights(ledger_path: Path, tmp_path: Path) -> None:
    first = run(ledger_path, tmp_path)
    none = replace(SETTINGS, steps=0)
    second = pretrain(make_config(none), ledger_path, out=tmp_path / "second.safetensors", start=first.path)
    assert second.measures.loss == pytest.approx(first.measures.loss, rel=1e-5)
    assert weights(second.path) == pytest.approx(weights(first.path), abs=1e-6)


# --- DP ---------------------------------------------------------------------------------------------------------------


def test_private_pretraining_states_its_epsilon(ledger_path: Path, tmp_path: Path) -> None:
    result = run(ledger_path, tmp_path, replace(SETTINGS, steps=4, batch_size=2, evaluate_every=2, dp=True))
    mechanism = Mechanism(sigma=0.5, sampling_rate=2 / NUM_TRAINED)
    assert result.epsilon == epsilon_of(mechanism, 4, delta=1e-5)
    assert result.epsilon > 0
    assert load(result.path)[1]["epsilon"] == result.epsilon
    assert math.isfinite(result.measures.loss)


@pytest.mark.parametrize("micro_batch", [1, 32])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_private_pretraining_survives_empty_batches(
    ledger_path: Path, tmp_path: Path, *, micro_batch: int, checkpointing: bool
) -> None:
    """Poisson batches of expected size 1 are empty every third time."""
    settings = replace(SETTINGS, steps=12, batch_size=1, evaluate_every=12, dp=True)
    result = run(ledger_path, tmp_path, replace(settings, micro_batch=micro_batch, checkpointing=checkpointing))
    assert math.isfinite(result.measures.loss)


def test_private_gradient_is_clipped_and_noisy(
    ledger_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With plain steps in place of AdamW's and no data-free terms, a step moves by noise of std 0.5 / 2."""
    monkeypatch.setattr(torch.optim, "AdamW", plain_steps)
    monkeypatch.setattr(Pretraining, "_measure", last_always_wins)
    config = make_config(
        replace(SETTINGS, batch_size=2, learning_rate=1.0, warmup_steps=0, dp=True, spread_weight=0.0, size_weight=0.0)
    )
    thetas = []
    for steps in (0, 1):
        changed = replace(config, bootstrap=replace(config.bootstrap, steps=steps))
        thetas.append(get_flat(load(pretrain(changed, ledger_path, out=tmp_path / "encoder.safetensors").path)[0]))
    moved_P = (thetas[1] - thetas[0]).double()
    assert moved_P.std().item() == pytest.approx(0.25, rel=0.05)


def plain_steps(parameters: object, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)  # type: ignore[arg-type]


REAL_MEASURE = Pretraining._measure


def last_always_wins(training: Pretraining) -> EncoderMeasures:
    """Measure each time better than the last."""
    earlier = training._standing
    return replace(REAL_MEASURE(training), loss=0.0 if earlier is None else earlier.best.measures.loss - 1)


def test_batch_larger_than_the_data_is_refused_under_dp(ledger_path: Path, tmp_path: Path) -> None:
    message = f"sampling rate is {200 / NUM_TRAINED}, expected a number in (0, 1]"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        run(ledger_path, tmp_path, replace(SETTINGS, batch_size=200, dp=True))
    assert not list(tmp_path.iterdir())


# --- Stops ------------------------------------------------------------------------------------------------------------

WILD = replace(SETTINGS, steps=400, learning_rate=10.0, weight_decay=1.0, warmup_steps=0, evaluate_every=400)
"""AdamW at rate 10 and decay 1 multiplies every weight by -9 at each step."""


def test_loss_that_stops_being_finite_stops_keeps_the_best_and_names_the_step(
    ledger_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(ledger_path, tmp_path, WILD)
    reason = r"the loss was (nan|inf) at step \d+, expected a finite number: lower bootstrap.learning_rate"
    assert re.fullmatch(reason, result.stopped)
    assert load(result.path)[1]["stopped"] == result.stopped
    assert caplog.messages == [f"pretraining stopped: {result.stopped}; the best weights, of step 0, are kept"]
    assert result.best_step == 0
    assert measured_again(result, ledger_path) == result.measures
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]


def test_held_out_loss_that_is_not_finite_stops_a_private_training(ledger_path: Path, tmp_path: Path) -> None:
    result = run(ledger_path, tmp_path, replace(WILD, dp=True, evaluate_every=50))
    reason = r"the held-out loss was (nan|inf) at step \d+, expected a finite number: lower bootstrap.learning_rate"
    assert re.fullmatch(reason, result.stopped)
    assert result.best_step == 0
    assert math.isfinite(result.measures.loss)


def test_patience_ends_a_training_that_gets_no_better(ledger_path: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, learning_rate=3.0, warmup_steps=0, evaluate_every=2, patience=3)
    result = run(ledger_path, tmp_path, settings)
    assert result.stopped == "no better held-out loss in 3 evaluations up to step 6"
    assert [point.step for point in result.curve] == [0, 2, 4, 6]


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


def test_weights_of_another_preset_are_refused(ledger_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    other = Encoder(get_preset("quickstart"))
    other.reset_parameters(torch_stream(1, "weights"))
    save_encoder(path, other, facts={})
    message = f"{path} holds preset 'quickstart', expected 'tiny'"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        pretrain(make_config(), ledger_path, out=tmp_path / "encoder.safetensors", start=path)
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_does_not_exist_is_refused_before_any_step(ledger_path: Path, tmp_path: Path) -> None:
    told: list[object] = []
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*nowhere"):
        pretrain(make_config(), ledger_path, out=tmp_path / "nowhere" / "x", progress=lambda *row: told.append(row))
    assert told == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has such a device")
def test_device_that_is_not_there_is_refused(ledger_path: Path, tmp_path: Path) -> None:
    message = r"^bootstrap\.device is 'cuda', expected 'cpu': torch finds no such device here$"
    with pytest.raises(ConfigError, match=message):
        run(ledger_path, tmp_path, replace(SETTINGS, device="cuda"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": math.nan}, "bootstrap.learning_rate is nan, expected a number in (0, 10]"),
        ({"micro_batch": 0}, "bootstrap.micro_batch is 0, expected a number in [1, 1000000]"),
        ({"patience": -1}, "bootstrap.patience is -1, expected a number in [0, 1000000000]"),
        ({"checkpoint_every": 0}, "bootstrap.checkpoint_every is 0, expected a number in [1, 1000000000]"),
        (
            {"precision": "bfloat61"},
            "bootstrap.precision is 'bfloat61', expected one of: bfloat16, float32 (did you mean 'bfloat16'?)",
        ),
        ({"device": "gpu"}, "bootstrap.device is 'gpu', expected one of: cpu, cuda (did you mean 'cpu'?)"),
        (
            {"precision": "bfloat16", "dp": True},
            "bootstrap.precision is 'bfloat16', expected 'float32' with bootstrap.dp: "
            "per-sample gradients are formed and clipped in float32",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        replace(SETTINGS, **changes)  # type: ignore[arg-type]


def test_weights_to_use_are_none_to_train_on_from(tiny_preset: None, ledger_path: Path, tmp_path: Path) -> None:
    message = r"^bootstrap\.weights is 'mine', expected none: a training has a start$"
    with pytest.raises(ConfigError, match=message):
        run(ledger_path, tmp_path, replace(SETTINGS, weights="mine"))
    assert list(tmp_path.iterdir()) == []
