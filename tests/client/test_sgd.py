"""Plain SGD against torch's, to the last bit, and what it does not import."""

import subprocess
import sys

import torch
from torch import nn, optim

from nerv_fl.client.sgd import PlainSGD
from nerv_fl.rng import torch_stream


def draw(*shape: int) -> torch.Tensor:
    return torch.normal(0.0, 1.0, shape, generator=torch_stream(1, "sgd", *shape))


def test_steps_are_those_of_torch() -> None:
    ours, theirs = ([nn.Parameter(draw(5, 7)), nn.Parameter(draw(11)), nn.Parameter(draw(3))] for _ in range(2))
    plain, known = PlainSGD(ours, lr=0.3), optim.SGD(theirs, lr=0.3)
    for _ in range(3):
        for one, other in zip(ours[:2], theirs[:2], strict=True):
            one.grad, other.grad = one.detach().sin(), other.detach().sin()
        plain.step()
        known.step()
        plain.zero_grad()
        known.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert torch.equal(ours[2], draw(3))
    assert ours[0].grad is None


def test_a_node_never_imports_the_compiler() -> None:
    script = (
        "import sys\n"
        "import torch\n"
        "from nerv_fl.client.app import build_client_app\n"
        "from nerv_fl.privacy.accounting import private_optimizer\n"
        "from nerv_fl.client.sgd import PlainSGD\n"
        "from nerv_fl.config import PrivacyConfig\n"
        "layer = torch.nn.Linear(2, 2)\n"
        "plain = PlainSGD(layer.parameters(), lr=0.1)\n"
        "made = private_optimizer(layer, plain, privacy=PrivacyConfig(), expected_batch=4)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
