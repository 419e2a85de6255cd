"""Per-sample gradients of the LSTM against a loop over samples, and against Opacus' DPLSTM under the same names.

Shapes: B samples, T steps, I inputs, H units.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule
from opacus.layers import DPLSTM
from torch import Tensor, nn

from nerv_fl.config import PrivacyConfig
from nerv_fl.privacy.accounting import private_optimizer
from nerv_fl.privacy.layers import per_sample_gradients
from nerv_fl.privacy.recurrent import LSTM, RecentAverage
from nerv_fl.rng import stream, torch_stream

HOOKS_OF_OPACUS = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
INPUTS, UNITS, SAMPLES, STEPS = 3, 5, 4, 7


@pytest.fixture
def lstm() -> LSTM:
    made = LSTM(INPUTS, UNITS, num_layers=2)
    made.draw_parameters(torch_stream(5, "weights"))
    return made


@pytest.fixture(name="x_BTI")
def inputs() -> Tensor:
    return torch.randn(SAMPLES, STEPS, INPUTS, generator=torch_stream(5, "inputs"))


def loss_of(model: nn.Module, x_BTI: Tensor) -> Tensor:
    """A loss in which every step of every sample has its own part."""
    y_BTH: Tensor = model(x_BTI)[0]
    return (y_BTH * torch.randn(STEPS, UNITS, generator=torch_stream(5, "targets"))).square().sum()


def one_at_a_time(model: nn.Module, x_BTI: Tensor) -> dict[str, Tensor]:
    rows = [
        torch.autograd.grad(loss_of(model, x_BTI[row : row + 1]), list(model.parameters())) for row in range(len(x_BTI))
    ]
    names = [name for name, _ in model.named_parameters()]
    return {name: torch.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def dp_lstm(lstm: LSTM) -> GradSampleModule:
    """Opacus' own layer, with the weights of ours."""
    opacus_lstm = DPLSTM(INPUTS, UNITS, num_layers=2, batch_first=True)
    opacus_lstm.load_state_dict(lstm.state_dict())
    return GradSampleModule(opacus_lstm, loss_reduction="sum")


def test_names_and_shapes_are_those_of_torch_and_of_opacus(lstm: LSTM) -> None:
    ours = {name: tuple(value.shape) for name, value in lstm.state_dict().items()}
    for other in (
        nn.LSTM(INPUTS, UNITS, num_layers=2, batch_first=True),
        DPLSTM(INPUTS, UNITS, num_layers=2, batch_first=True),
    ):
        assert {name: tuple(value.shape) for name, value in other.state_dict().items()} == ours
    assert list(ours)[:4] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]


def test_outputs_are_torch_s_in_either_mode(lstm: LSTM, x_BTI: Tensor) -> None:
    plain = nn.LSTM(INPUTS, UNITS, num_layers=2, batch_first=True)
    plain.load_state_dict(lstm.state_dict())
    expected, (hidden, cell) = plain(x_BTI)
    assert torch.equal(lstm(x_BTI)[0], expected)
    with per_sample_gradients(lstm):
        found, states = lstm(x_BTI)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(states, (hidden, cell))


def test_per_sample_gradients_equal_the_loop(lstm: LSTM, x_BTI: Tensor) -> None:
    expected = one_at_a_time(lstm, x_BTI)
    with per_sample_gradients(lstm):
        loss_of(lstm, x_BTI).backward()
    for name, parameter in lstm.named_parameters():
        torch.testing.assert_close(parameter.grad_sample, expected[name], msg=name)  # type: ignore[attr-defined]
        assert parameter.grad is None


@HOOKS_OF_OPACUS
def test_per_sample_gradients_of_opacus_equal_the_loop(lstm: LSTM, x_BTI: Tensor) -> None:
    reference = dp_lstm(lstm)
    loss_of(reference, x_BTI).backward()
    found = dict(reference._module.named_parameters())
    for name, expected in one_at_a_time(lstm, x_BTI).items():
        torch.testing.assert_close(found[name].grad_sample, expected, msg=name)


def test_inputs_receive_their_gradient(lstm: LSTM, x_BTI: Tensor) -> None:
    plain, private = (x_BTI.clone().requires_grad_() for _ in range(2))
    loss_of(lstm, plain).backward()
    with per_sample_gradients(lstm):
        loss_of(lstm, private).backward()
    torch.testing.assert_close(private.grad, plain.grad)


def private_step(model: nn.Module, x_BTI: Tensor, *, ours: bool) -> None:
    """Take a step; the noise is drawn in the order of the names, which is not that of Opacus' modules."""
    parameters = [parameter for _, parameter in sorted(model.named_parameters())]
    optimizer = private_optimizer(
        model, torch.optim.SGD(parameters, lr=0.1), privacy=PrivacyConfig(), expected_batch=SAMPLES
    )
    optimizer.noise = stream(5, "noise")
    if ours:
        with per_sample_gradients(model):
            loss_of(model, x_BTI).backward()
    else:
        loss_of(model, x_BTI).backward()
    optimizer.step()


@HOOKS_OF_OPACUS
def test_a_private_step_at_sigma_one_half_is_the_same_by_either_layer(lstm: LSTM, x_BTI: Tensor) -> None:
    assert PrivacyConfig().sigma == 0.5
    before = {name: value.clone() for name, value in lstm.state_dict().items()}
    reference = dp_lstm(lstm)
    private_step(reference, x_BTI, ours=False)
    private_step(lstm, x_BTI, ours=True)
    for name, value in reference._module.state_dict().items():
        torch.testing.assert_close(lstm.state_dict()[name], value, msg=name)
        assert not torch.equal(value, before[name])


def test_the_same_stream_draws_the_same_weights(lstm: LSTM) -> None:
    again, other = LSTM(INPUTS, UNITS, num_layers=2), LSTM(INPUTS, UNITS, num_layers=2)
    again.draw_parameters(torch_stream(5, "weights"))
    other.draw_parameters(torch_stream(6, "weights"))
    for name, value in lstm.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    weights = lstm.state_dict()
    assert not torch.equal(other.state_dict()["weight_hh_l1"], weights["weight_hh_l1"])
    assert weights["bias_ih_l1"][UNITS : 2 * UNITS].tolist() == [1.0] * UNITS
    assert float(weights["weight_ih_l0"].abs().max()) <= UNITS**-0.5


# --- The average of recent steps --------------------------------------------------------------------------------------


def average(weight: list[list[float]]) -> RecentAverage:
    made = RecentAverage(len(weight), len(weight[0]))
    with torch.no_grad():
        made.weight.copy_(torch.tensor(weight))
    return made


def test_recent_average_by_hand() -> None:
    """Weights 1/2 + 0.75 of the last step and 1/2 - 0.75 of the one before: they go on with the trend."""
    x_BTD = torch.tensor([[[1.0], [3.0], [7.0]]])
    assert average([[0.75], [-0.75]])(x_BTD).flatten().tolist() == [1.25 * 3 - 0.25 * 1, 1.25 * 7 - 0.25 * 3]


@given(weight=st.lists(st.floats(-3, 3), min_size=1, max_size=8), level=st.floats(-100, 100))
def test_recent_average_of_a_constant_is_that_constant(weight: list[float], level: float) -> None:
    found = average([[each] for each in weight])(torch.full((1, 10, 1), level))
    assert found.shape == (1, 11 - len(weight), 1)
    torch.testing.assert_close(found, torch.full_like(found, level), atol=1e-3, rtol=1e-4)


def test_per_sample_gradients_of_the_average_equal_the_loop(x_BTI: Tensor) -> None:
    layer = average([[0.3, 0.1, -0.2], [0.5, -1.0, 0.4]])
    expected = torch.stack([torch.autograd.grad(layer(x).square().sum(), layer.weight)[0] for x in x_BTI[:, None]])
    with per_sample_gradients(layer):
        layer(x_BTI).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad_sample, expected)  # type: ignore[attr-defined]
    assert layer.weight.grad is None
