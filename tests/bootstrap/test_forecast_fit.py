"""The forecaster's training: its loss and gradients against loops, determinism, resume, early stop, NaN.

Shapes: B windows, S judged steps, D metrics.
"""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nerv_fl.bootstrap.forecast_data import PoissonWindows, fit_scale
from nerv_fl.bootstrap.forecast_fit import (
    Evaluation,
    ForecastSettings,
    Lesson,
    Progress,
    epsilon,
    evaluate,
    fit,
)
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.models.forecast_losses import FIRST, METRICS_WEIGHT, window_losses
from nerv_fl.models.forecaster import Forecaster
from nerv_fl.privacy.accounting import Mechanism, epsilon_of
from nerv_fl.privacy.layers import per_sample_gradients
from nerv_fl.rng import stream, torch_stream
from tests.bootstrap.forecast_load import one_overload, series_of

SETTINGS = ForecastSettings(
    steps=6, batch_size=8, warmup_steps=2, evaluate_every=2, validation_windows=20, learning_rate=0.01
)
TRAIN, VALIDATION = series_of(one_overload()), series_of(one_overload(start=180))


def lesson(settings: ForecastSettings = SETTINGS) -> Lesson:
    batches, held_out = (
        PoissonWindows.of(series, expected_batch=settings.batch_size) for series in (TRAIN, VALIDATION)
    )
    return Lesson.of(batches, held_out, settings)


def new_model() -> Forecaster:
    model = Forecaster(fit_scale(TRAIN), width=4)
    model.draw_parameters(torch_stream(7, "weights"), overload_rate=0.05)
    return model


def train(settings: ForecastSettings = SETTINGS, *, begun: Progress | None = None) -> tuple[Progress, list[Progress]]:
    kept: list[Progress] = []
    return fit(new_model(), lesson(settings), settings, begun=begun, keep=kept.append), kept


# --- Loss and gradients -----------------------------------------------------------------------------------------------


def test_loss_of_a_window_by_hand() -> None:
    model, windows = new_model(), lesson().batches.draw(stream(7, "batch"))
    offsets = np.array([0.5, 2.0])
    with torch.no_grad():
        overload_B, metrics_B = window_losses(model, windows, offsets=offsets)
        found = model.every_step(windows.metrics_BWD[:, :60], first=FIRST)
    for row in range(len(overload_B)):
        total, missed = 0.0, 0.0
        for step in range(31):
            logit = float(found.logit_BS[row, step]) + offsets[int(windows.clean_BS[row, step])]
            sign = 1.0 if windows.ahead_BS[row, step] else -1.0
            total += math.log1p(math.exp(-sign * logit))
            truth = windows.metrics_BWD[row, FIRST + 1 + step]
            missed += float(((found.next_BSD[row, step] - truth).abs() / model.change).mean())
        assert overload_B[row].item() == pytest.approx(total / 31, rel=1e-4)
        assert metrics_B[row].item() == pytest.approx(missed / 31, rel=1e-4)


def test_per_window_gradients_equal_a_loop_over_windows() -> None:
    model, windows = new_model(), lesson().batches.draw(stream(7, "batch"))
    offsets = np.array([0.5, 2.0])

    def loss(start: int, end: int) -> torch.Tensor:
        overload_B, metrics_B = window_losses(model, windows.part(start, end), offsets=offsets)
        return (overload_B + METRICS_WEIGHT * metrics_B).sum()

    size = len(windows.ahead_BS)
    rows = [torch.autograd.grad(loss(row, row + 1), list(model.parameters())) for row in range(size)]
    with per_sample_gradients(model):
        loss(0, size).backward()
    for (name, parameter), expected in zip(model.named_parameters(), zip(*rows, strict=True), strict=True):
        torch.testing.assert_close(
            parameter.grad_sample,  # type: ignore[attr-defined]
            torch.stack(expected),
            rtol=1e-4,
            atol=1e-6,
            msg=name,
        )
        assert parameter.grad is None


def test_a_private_step_clips_each_window_and_adds_noise_of_half_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """With plain steps of size 1 a step moves the weights by (clipped sum + noise) / 8."""
    monkeypatch.setattr(torch.optim, "AdamW", plain_steps)
    settings = replace(SETTINGS, steps=1, dp=True, learning_rate=1.0, warmup_steps=1)
    model = new_model()
    progress = fit(model, lesson(settings), settings, keep=lambda _: None)
    windows = lesson(settings).batches.draw(stream(7, "forecaster", "batch", 1))
    reference, noise = new_model(), stream(7, "forecaster", "noise", 1)
    sums = [torch.zeros_like(parameter) for parameter in reference.parameters()]
    for row in range(len(windows.ahead_BS)):
        parts = window_losses(reference, windows.part(row, row + 1), offsets=lesson(settings).offsets)
        rows = torch.autograd.grad((parts[0] + METRICS_WEIGHT * parts[1]).sum(), list(reference.parameters()))
        norm = torch.stack([each.norm() for each in rows]).norm()
        sums = [total + each / max(1.0, float(norm)) for total, each in zip(sums, rows, strict=True)]
    for (name, parameter), total in zip(reference.named_parameters(), sums, strict=True):
        drawn = torch.from_numpy(0.5 * noise.standard_normal(tuple(parameter.shape))).float()
        expected = parameter.detach() - (total + drawn) / 8
        torch.testing.assert_close(progress.weights[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def plain_steps(parameters: object, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)  # type: ignore[arg-type]


def test_validation_is_the_mean_over_its_windows() -> None:
    model, about = new_model(), lesson()
    found = evaluate(model, about, step=5)
    with torch.no_grad():
        overload_B, _ = window_losses(model, about.validation, offsets=about.offsets)
        after = about.validation.metrics_BWD[:, FIRST + 1 :]
        guess = model.every_step(about.validation.metrics_BWD[:, :-1], first=FIRST).next_BSD
    missed, changed = (
        (each - after).abs().mean(dim=(0, 1)) for each in (guess, about.validation.metrics_BWD[:, FIRST:-1])
    )
    assert found.step == 5
    assert found.overload == pytest.approx(overload_B.mean().item(), rel=1e-5)
    assert found.metrics == pytest.approx((missed / changed).mean().item(), rel=1e-5)
    assert found.loss == pytest.approx(found.overload + METRICS_WEIGHT * found.metrics)


def test_the_logit_is_that_of_all_windows() -> None:
    """A bias alone learns the rate of overload ahead among all clean windows, though batches hold 20 times as many."""
    batches = PoissonWindows.of(TRAIN, expected_batch=64)
    offset = float(batches.offsets()[1])
    drawn = [batches.draw(stream(7, number)) for number in range(300)]
    ahead = torch.cat([each.ahead_BS[each.clean_BS] for each in drawn])
    rate = TRAIN.ahead[TRAIN.clean].mean()
    assert ahead.mean() > 3 * rate
    logits = torch.linspace(-8, 2, 400)
    losses = torch.stack(
        [F.binary_cross_entropy_with_logits((each + offset).expand_as(ahead), ahead) for each in logits]
    )
    learned = float(torch.sigmoid(logits[losses.argmin()]))
    assert learned == pytest.approx(rate, rel=0.1)


# --- Course -----------------------------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_keeps_the_best() -> None:
    progress, kept = train(replace(SETTINGS, steps=60, evaluate_every=10))
    assert [each.step for each in kept] == [10, 20, 30, 40, 50, 60]
    assert progress.best == min(progress.history, key=lambda each: each.loss)
    assert progress.best.loss < 0.8 * progress.history[0].loss
    model = new_model()
    model.load_state_dict(progress.best_weights)
    assert evaluate(model, lesson(), step=progress.best.step) == progress.best


@pytest.mark.parametrize("dp", [False, True])
def test_the_same_seed_gives_the_same_bits_with_and_without_an_interruption(dp: bool) -> None:
    settings = replace(SETTINGS, dp=dp)
    whole, kept = train(settings)
    again, _ = train(settings, begun=kept[0])
    other, _ = train(replace(settings, seed=8))
    for name, value in whole.weights.items():
        assert torch.equal(again.weights[name], value)
    assert again.history == whole.history
    assert not torch.equal(other.weights["overload_head.weight"], whole.weights["overload_head.weight"])


@pytest.mark.parametrize("dp", [False, True])
def test_training_survives_empty_batches(dp: bool) -> None:
    """Batches of 2 expected windows are empty every seventh time."""
    progress, _ = train(replace(SETTINGS, batch_size=2, steps=20, dp=dp))
    assert progress.step == 20


def test_training_stops_when_validation_has_not_improved_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([5.0, 4.0, 4.5, 4.1, 9.0])

    def scripted(model: Forecaster, about: Lesson, *, step: int) -> Evaluation:
        return Evaluation(step=step, loss=next(losses), overload=0.0, metrics=0.0)

    monkeypatch.setattr("nerv_fl.bootstrap.forecast_fit.evaluate", scripted)
    progress, _ = train(replace(SETTINGS, steps=100, patience=2))
    assert (progress.step, progress.best.step) == (6, 2)


def test_step_sizes_rise_in_a_line_and_fall_in_a_cosine() -> None:
    settings = ForecastSettings(steps=110, warmup_steps=10, learning_rate=0.2)
    assert [settings.rate(step) for step in (1, 5, 10, 60, 110)] == pytest.approx([0.02, 0.1, 0.2, 0.1, 0.0])


def test_epsilon_is_that_of_the_windows_drawn_most_often() -> None:
    about = lesson()
    assert about.batches.near_rate > about.batches.far_rate
    mechanism = Mechanism(sigma=0.5, sampling_rate=about.batches.near_rate)
    assert epsilon(about, SETTINGS, num_steps=6) == epsilon_of(mechanism, 6, delta=1e-5)


@pytest.mark.parametrize("dp", [False, True])
def test_training_that_stops_being_finite_names_its_step(monkeypatch: pytest.MonkeyPatch, dp: bool) -> None:
    """The third step's rate is not a number; plain training sees it in the fourth loss, DP in the weights."""
    monkeypatch.setattr(ForecastSettings, "rate", lambda _, step: math.nan if step == 3 else 0.01)
    message = (
        f"training stopped being finite at step {3 if dp else 4} (loss or weights), expected finite numbers: "
        "lower the learning rate (0.01); the best weights are those of step 2"
    )
    settings = replace(SETTINGS, dp=dp, evaluate_every=2, steps=10)
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        train(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0, expected a number in [1, 10000000]"),
        ({"batch_size": 1}, "batch size is 1, expected a number in [2, 100000]"),
        ({"learning_rate": math.nan}, "learning rate is nan, expected a number in (0, 10]"),
        ({"patience": 0}, "patience is 0, expected a number in [1, 1000000]"),
        ({"seed": -1}, "seed is -1, expected a number in [0, 9223372036854775807]"),
    ],
)
def test_settings_out_of_range_are_refused(*, changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        replace(SETTINGS, **changes)  # type: ignore[arg-type]
