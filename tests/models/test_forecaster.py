"""The forecaster against an LSTM written out in NumPy.

Shapes: T steps, D metrics, H units.
"""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nerv_fl.models.forecaster import METRICS, RECENT, WINDOW, Forecaster, LoadScale
from nerv_fl.rng import stream, torch_stream
from nerv_fl.types import FloatArray

WIDTH = 6


def scale() -> LoadScale:
    rng = stream(2, "scale")
    mean, std, log_mean, log_std, change = rng.uniform(0.5, 2.0, size=(5, METRICS))
    return LoadScale(mean=mean, std=std, log_mean=log_mean, log_std=log_std, change=change)


@pytest.fixture(name="model")
def forecaster() -> Forecaster:
    made = Forecaster(scale(), width=WIDTH)
    made.draw_parameters(torch_stream(2, "weights"), overload_rate=0.03)
    with torch.no_grad():
        made.recent.weight.normal_(generator=torch_stream(2, "recent"))
        made.slope.fill_(1.5)
        made.intercept.fill_(-0.25)
    return made


@pytest.fixture(name="x_BTD")
def metrics() -> Tensor:
    return torch.from_numpy(stream(2, "metrics").exponential(size=(3, WINDOW, METRICS)).astype(np.float32))


def sigmoid(x: FloatArray) -> FloatArray:
    return 1.0 / (1.0 + np.exp(-x))


def by_hand(model: Forecaster, x_TD: npt.NDArray[np.float32]) -> tuple[FloatArray, float]:
    """Forecast from one window, a step at a time, in float64."""
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    x = x_TD.astype(np.float64)
    z = np.concatenate([(x - w["mean"]) / w["std"], (np.log1p(x) - w["log_mean"]) / w["log_std"]], axis=1)
    z = np.clip(z, -6, 6)
    for layer in range(2):
        h = c = np.zeros(WIDTH)
        seen = []
        for step in z:
            a = w[f"lstm.weight_ih_l{layer}"] @ step + w[f"lstm.bias_ih_l{layer}"]
            i, f, g, o = np.split(a + w[f"lstm.weight_hh_l{layer}"] @ h + w[f"lstm.bias_hh_l{layer}"], 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            seen.append(h)
        z = np.stack(seen)
    free = w["recent.weight"]
    shares = free - free.mean(axis=0) + 1.0 / RECENT
    recent = sum(shares[back] * x[-1 - back] for back in range(RECENT))
    change = w["metrics_head.weight"] @ z[-1] + w["metrics_head.bias"]
    logit = float((w["overload_head.weight"] @ z[-1] + w["overload_head.bias"])[0])
    return np.maximum(recent + w["change"] * change, 0.0), float(sigmoid(np.array(1.5 * logit - 0.25)))


def test_forecasts_are_those_of_a_loop_over_steps(model: Forecaster, x_BTD: Tensor) -> None:
    with torch.no_grad():
        next_BD, overload_B = model(x_BTD)
    for number, x_TD in enumerate(x_BTD.numpy()):
        expected, probability = by_hand(model, x_TD)
        np.testing.assert_allclose(next_BD[number].numpy(), expected, rtol=1e-4, atol=1e-5)
        assert overload_B[number].item() == pytest.approx(probability, rel=1e-5)


def test_the_last_of_every_step_is_the_forecast(model: Forecaster, x_BTD: Tensor) -> None:
    with torch.no_grad():
        found, (next_BD, overload_B) = model.every_step(x_BTD, first=29), model(x_BTD)
    assert found.next_BSD.shape == (3, WINDOW - 29, METRICS)
    torch.testing.assert_close(found.next_BSD[:, -1].relu(), next_BD)
    torch.testing.assert_close(torch.sigmoid(1.5 * found.logit_BS[:, -1] - 0.25), overload_B)


def test_no_step_sees_what_comes_after_it(model: Forecaster, x_BTD: Tensor) -> None:
    changed = x_BTD.clone()
    changed[:, 40:] += 5.0
    with torch.no_grad():
        before, after = (model.every_step(each, first=29) for each in (x_BTD, changed))
    assert torch.equal(before.logit_BS[:, :11], after.logit_BS[:, :11])
    assert torch.equal(before.next_BSD[:, :11], after.next_BSD[:, :11])
    assert not torch.equal(before.logit_BS[:, 11], after.logit_BS[:, 11])


def test_it_starts_at_the_rate_of_overload_and_the_recent_mean(x_BTD: Tensor) -> None:
    made = Forecaster(scale(), width=64)
    made.draw_parameters(torch_stream(2, "weights"), overload_rate=0.03)
    with torch.no_grad():
        next_BD, overload_B = made(x_BTD)
    torch.testing.assert_close(overload_B, torch.full((3,), 0.03), atol=0.005, rtol=0)
    torch.testing.assert_close(next_BD, x_BTD[:, -RECENT:].mean(dim=1), atol=0.3, rtol=0)


def test_no_input_however_large_makes_a_forecast_that_is_not_a_number(model: Forecaster) -> None:
    for level in (0.0, 1e12, 3e38):
        with torch.no_grad():
            probability = model(torch.full((1, WINDOW, METRICS), level))[1]
        assert 0 <= probability.item() <= 1


def test_the_full_size_has_the_parameters_that_make_1_1_mb() -> None:
    made = Forecaster(LoadScale.unit())
    assert made.num_parameters == 1_085_828
    assert [name for name, _ in made.lstm.named_parameters()][:2] == ["weight_ih_l0", "weight_hh_l0"]
