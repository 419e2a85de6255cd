"""The shard-load forecaster: from an hour of a shard's metrics, the next minute's, and whether overload is near.

    z_t     = clip((x_t - mean) / std), clip((log(1 + x_t) - mean') / std')       22 inputs from 11 raw metrics
    h_t     = LSTM(z_1 .. z_t)                                                    two layers of 296 units
    next_t  = sum_k w_k x_{t-k} + change * (W h_t + b)        k = 0..7, sum_k w_k = 1, per metric
    p_t     = sigmoid(slope * (v h_t + c) + intercept)                            overload within 10 minutes

Raw metrics go in and come out: whoever runs the model needs no table of constants. Slope and intercept are Platt's,
fitted last, on windows that no weight has seen.

Sources: Hochreiter and Schmidhuber, "Long short-term memory", 1997; Platt, "Probabilistic outputs for support vector
machines", 1999.

Shapes: B windows, T = 60 steps, S of them judged, D = 11 metrics, H units.
"""

from dataclasses import dataclass, fields
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nerv_fl.data.load_schema import FEATURES
from nerv_fl.privacy.layers import Linear
from nerv_fl.privacy.recurrent import LSTM, RecentAverage
from nerv_fl.types import FloatArray

WINDOW: Final = 60
"""Steps of a window, a minute each."""
WIDTH: Final = 296
NUM_LAYERS: Final = 2
RECENT: Final = 8
LIMIT: Final = 6.0
"""Standard deviations at which inputs are cut off: int8 spreads its 256 steps over what is left."""
METRICS: Final = len(FEATURES)


@dataclass(frozen=True, kw_only=True)
class LoadScale:
    """How the metrics lie on the train shards, float64 [D] each.

    Attributes:
        mean: Mean.
        std: Standard deviation.
        log_mean: Mean of log(1 + x).
        log_std: Standard deviation of log(1 + x).
        change: Root mean square of x_{t+1} - x_t.
    """

    mean: FloatArray
    std: FloatArray
    log_mean: FloatArray
    log_std: FloatArray
    change: FloatArray

    @classmethod
    def unit(cls) -> "LoadScale":
        """Return the scale that changes nothing, to be replaced by a file's."""
        zero, one = np.zeros(METRICS), np.ones(METRICS)
        return cls(mean=zero, std=one, log_mean=zero, log_std=one, change=one)


class EveryStep(NamedTuple):
    """Forecasts at several steps of each window: next metrics (B, S, D) and the logit before calibration (B, S)."""

    next_BSD: Tensor
    logit_BS: Tensor


class Forecaster(nn.Module):
    """The forecaster; its LSTM's parameters are named as those of torch's and of Opacus' LSTM.

    Args:
        scale: Of the metrics; loading weights replaces it.
        width: H.
    """

    def __init__(self, scale: LoadScale, *, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        self.lstm = LSTM(2 * METRICS, width, num_layers=NUM_LAYERS)
        self.recent = RecentAverage(RECENT, METRICS)
        self.metrics_head = Linear(width, METRICS)
        self.overload_head = Linear(width, 1)
        self.mean: Tensor
        self.std: Tensor
        self.log_mean: Tensor
        self.log_std: Tensor
        self.change: Tensor
        self.slope: Tensor
        self.intercept: Tensor
        for item in fields(scale):
            self.register_buffer(item.name, torch.from_numpy(getattr(scale, item.name)).float())
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("intercept", torch.zeros(()))

    @property
    def num_parameters(self) -> int:
        """Number of weights that are learned."""
        return sum(parameter.numel() for parameter in self.parameters())

    def draw_parameters(self, generator: torch.Generator, *, overload_rate: float) -> None:
        """Draw every parameter afresh: the heads start at no change, and at the rate of overload ahead."""
        self.lstm.draw_parameters(generator)
        with torch.no_grad():
            for parameter in (self.recent.weight, self.metrics_head.bias):
                nn.init.zeros_(parameter)
            for head in (self.metrics_head, self.overload_head):
                nn.init.normal_(head.weight, std=0.1 / self.width**0.5, generator=generator)
            nn.init.constant_(self.overload_head.bias, float(np.log(overload_rate / (1.0 - overload_rate))))

    def forward(self, metrics_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Forecast from the end of each window.

        Args:
            metrics_BTD: float32 (B, 60, 11), raw, in the order of `nerv_fl.data.load_schema.FEATURES`.

        Returns:
            The next minute's metrics, float32 (B, 11), at least 0, and the probability of overload within the next 10
            minutes, float32 (B,).
        """
        h_BH = self.lstm(self.inputs(metrics_BTD))[0][:, -1]
        next_BD = self.recent(metrics_BTD[:, -RECENT:])[:, 0] + self.change * self.metrics_head(h_BH)
        logit_B = self.overload_head(h_BH)[:, 0]
        return F.relu(next_BD), torch.sigmoid(self.slope * logit_B + self.intercept)

    def every_step(self, metrics_BTD: Tensor, *, first: int) -> EveryStep:
        """Forecast at each step from ``first`` (at least 7) on, as training does.

        Args:
            metrics_BTD: float32 (B, T, 11), raw.
            first: The first step judged; S = T - first.
        """
        h_BSH = self.lstm(self.inputs(metrics_BTD))[0][:, first:]
        recent_BSD = self.recent(metrics_BTD[:, first + 1 - RECENT :])
        next_BSD = recent_BSD + self.change * self.metrics_head(h_BSH)
        return EveryStep(next_BSD=next_BSD, logit_BS=self.overload_head(h_BSH)[..., 0])

    def inputs(self, metrics_BTD: Tensor) -> Tensor:
        """Return what the LSTM reads of raw metrics, (..., 11) -> (..., 22)."""
        plain = (metrics_BTD - self.mean) / self.std
        logs = (torch.log1p(F.relu(metrics_BTD)) - self.log_mean) / self.log_std
        return torch.cat([plain, logs], dim=-1).clamp(-LIMIT, LIMIT)
