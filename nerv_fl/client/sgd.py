"""Plain SGD, without torch's compiler.

`torch.optim.SGD` imports `torch._dynamo` when it is made and when it steps, for models that are compiled: a second or
more of CPU time and 100 MB in each process, and a deployed node starts a process for every round. None of it is needed
for theta <- theta - lr g, and the result is the same to the last bit.
"""

from collections.abc import Iterable

import torch
from torch import nn, optim


class PlainSGD(optim.Optimizer):
    """theta <- theta - lr g.

    Args:
        parameters: What to train.
        lr: Learning rate.
    """

    add_param_group = optim.Optimizer.add_param_group.__wrapped__  # type: ignore[attr-defined]
    zero_grad = optim.Optimizer.zero_grad.__wrapped__  # type: ignore[attr-defined]

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 (torch's signature)
        """Take one step; parameters without a gradient stay."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-group["lr"])
