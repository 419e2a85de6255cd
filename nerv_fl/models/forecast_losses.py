"""What the forecaster is trained to do: one number per window.

    loss of a window = mean_s BCE(logit_s + offset(clean_s), ahead_s) + lambda mean_sd |next_sd - x_{s+1,d}| / change_d

change_d is the root mean square of one minute's change. Nothing mixes windows.

Shapes: B windows, W = 61 steps (60 and the next), S judged steps, D metrics.
"""

from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nerv_fl.models.forecaster import Forecaster
from nerv_fl.types import FloatArray

FIRST: Final = 29
"""First step of a window that is judged in training, counted from 0: it has seen half an hour."""
METRICS_WEIGHT: Final = 0.25
"""lambda: both terms then move the weights about alike."""

NO_OFFSETS: Final[FloatArray] = np.zeros(2)


class Windows(NamedTuple):
    """Windows to train on.

    Attributes:
        metrics_BWD: float32 (B, 61, 11), raw: a window, and the minute after it.
        ahead_BS: float32 (B, S), 1 where overload comes within 10 minutes of the step.
        clean_BS: bool (B, S), whether there was none in the hour up to it.
    """

    metrics_BWD: Tensor
    ahead_BS: Tensor
    clean_BS: Tensor

    @property
    def num_samples(self) -> int:
        """B."""
        return len(self.ahead_BS)

    def part(self, start: int, stop: int) -> "Windows":
        """Return some of the windows."""
        return Windows(*(item[start:stop] for item in self))

    def to(self, device: torch.device) -> "Windows":
        """Return the same windows on a device."""
        return Windows(*(item.to(device) for item in self))


class WindowLosses(NamedTuple):
    """Both terms of each window's loss, float32 (B,): overload in nats, and metrics before lambda."""

    overload_B: Tensor
    metrics_B: Tensor

    @property
    def total_B(self) -> Tensor:  # noqa: N802
        """The loss of each window."""
        return self.overload_B + METRICS_WEIGHT * self.metrics_B


def window_losses(model: Forecaster, windows: Windows, *, offsets: FloatArray = NO_OFFSETS) -> WindowLosses:
    """Return both terms of each window's loss.

    Args:
        model: The forecaster, in whichever gradient mode.
        windows: B windows.
        offsets: Added to the logits of steps that are not clean, and of those that are, float64 [2].
    """
    found = model.every_step(windows.metrics_BWD[:, :-1], first=FIRST)
    missed_BSD = (found.next_BSD - windows.metrics_BWD[:, FIRST + 1 :]).abs() / model.change
    return WindowLosses(overload_loss(found.logit_BS, windows, offsets=offsets), missed_BSD.mean(dim=(1, 2)))


def overload_loss(logit_BS: Tensor, windows: Windows, *, offsets: FloatArray = NO_OFFSETS) -> Tensor:
    """Return the cross-entropy of overload, the mean over a window's steps in nats, float32 (B,)."""
    offset_BS = torch.where(windows.clean_BS, offsets[1], offsets[0])
    return F.binary_cross_entropy_with_logits(logit_BS + offset_BS, windows.ahead_BS, reduction="none").mean(dim=1)


def trivial_losses(windows: Windows, *, overload_rate: float, change_D: Tensor) -> WindowLosses:
    """Return the terms of the trivial forecast: overload at its base rate, and no change of any metric."""
    rate = torch.full_like(windows.ahead_BS, overload_rate)
    overload_BS = F.binary_cross_entropy(rate, windows.ahead_BS, reduction="none")
    now_BSD, next_BSD = windows.metrics_BWD[:, FIRST:-1], windows.metrics_BWD[:, FIRST + 1 :]
    return WindowLosses(overload_BS.mean(dim=1), ((next_BSD - now_BSD).abs() / change_D).mean(dim=(1, 2)))
