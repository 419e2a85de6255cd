"""The forecaster behind the protocol's signature: f32 [1, 60, 8] -> 48 f32, 12 x (tps, confidence, queue, cpu).

The protocol's code asks for an hour of 8 metrics and answers for the 12 five-minute marks of the next hour. Which 8 it
means is not known: here they are `RUST_METRICS`, and the model's other three stand at their mean over the train shards.
The model forecasts one minute, so the time to the first mark is played on: each forecast is appended to the window as
if it had been seen. Beyond it the first mark's answer is repeated: played on for the whole hour, the model is worse
than no change from ten minutes on (`benchmarks.forecast_hour`), for it was never trained on its own forecasts.
``confidence`` is the probability of overload within the ten minutes after the mark, which is what the protocol's
threshold of 0.92 is compared with.

Shapes: B = 1 window, T = 60 steps, R = 8 metrics given, D = 11 metrics, H units, G = 4H gates.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nerv_fl.data.load_schema import FEATURES
from nerv_fl.models.forecaster import NUM_LAYERS, RECENT, WINDOW, Forecaster
from nerv_fl.validation import in_range

RUST_METRICS: Final = (
    "tps",
    "queue_size",
    "cpu_percent",
    "mem_percent",
    "cross_shard_ratio",
    "tx_complex_percent",
    "active_accounts",
    "latency_s",
)
MARKS: Final = 12
MINUTES: Final = 5
"""Minutes from one mark to the next."""
ANSWERS: Final = ("tps", "confidence", "queue", "cpu")
State = tuple[Tensor, Tensor]
"""Of one layer: h and c, (B, H) each."""


class RustForecaster(nn.Module):
    """Plays a forecaster on, with every weight once in the graph, whatever the number of steps.

    Args:
        forecaster: In float32.
        marks_played: Marks that are played on to, 1 to 12; the others repeat the last of them.

    Raises:
        ConfigError: If there are not so many marks.
    """

    def __init__(self, forecaster: Forecaster, *, marks_played: int = 1) -> None:
        super().__init__()
        in_range("marks_played", marks_played, low=1, high=MARKS)
        self.marks_played = marks_played
        self.forecaster = forecaster
        lstm = forecaster.lstm
        for layer in range(NUM_LAYERS):
            weights = (getattr(lstm, f"weight_{way}_l{layer}") for way in ("ih", "hh"))
            bias_G = getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")
            for name, value in zip(("ih", "hh"), weights, strict=True):
                self.register_buffer(f"{name}_{layer}", value.detach().T.contiguous())
            self.register_buffer(f"bias_{layer}", bias_G.detach().clone())

    def forward(self, metrics_BTR: Tensor) -> Tensor:
        """Return the answers at the 12 marks, float32 [48].

        Args:
            metrics_BTR: float32 [1, 60, 8], raw, in the order of `RUST_METRICS`.
        """
        model = self.forecaster
        window_BTD = self._all_metrics(metrics_BTR)
        recent = list(window_BTD[:, -RECENT:].unbind(1))
        state, answers = self._read(model.inputs(window_BTD)), []
        shares_KD = model.recent.weight - model.recent.weight.mean(dim=0) + 1.0 / RECENT
        for minute in range(1, self.marks_played * MINUTES + 1):
            average_BD = (torch.stack(recent[: -RECENT - 1 : -1], dim=1) * shares_KD).sum(dim=1)
            next_BD = F.relu(average_BD + model.change * model.metrics_head(state[-1][0]))
            recent.append(next_BD)
            state = self._step(model.inputs(next_BD), state)
            if minute % MINUTES == 0:
                answers.append(self._answer(next_BD, state[-1][0]))
        return torch.cat(answers + answers[-1:] * (MARKS - self.marks_played))

    def _all_metrics(self, metrics_BTR: Tensor) -> Tensor:
        mean_BT = self.forecaster.mean.expand(1, WINDOW, -1)
        given = {name: metrics_BTR[:, :, place] for place, name in enumerate(RUST_METRICS)}
        columns = [given.get(name, mean_BT[:, :, place]) for place, name in enumerate(FEATURES)]
        return torch.stack(columns, dim=2)

    def _read(self, input_BTI: Tensor) -> list[State]:
        """Return the states of all layers after the window."""
        last = []
        for layer in range(NUM_LAYERS):
            drive_BTG = input_BTI @ getattr(self, f"ih_{layer}") + getattr(self, f"bias_{layer}")
            h_BH = c_BH = drive_BTG.new_zeros(1, self.forecaster.width)
            outputs = []
            for drive_BG in drive_BTG.unbind(1):
                h_BH, c_BH = self._cell(drive_BG, (h_BH, c_BH), layer=layer)
                outputs.append(h_BH)
            input_BTI = torch.stack(outputs, dim=1)
            last.append((h_BH, c_BH))
        return last

    def _step(self, input_BI: Tensor, state: list[State]) -> list[State]:
        """Return the states of all layers after one more minute."""
        after = []
        for layer, before in enumerate(state):
            drive_BG = input_BI @ getattr(self, f"ih_{layer}") + getattr(self, f"bias_{layer}")
            after.append(self._cell(drive_BG, before, layer=layer))
            input_BI = after[-1][0]
        return after

    def _cell(self, drive_BG: Tensor, state: State, *, layer: int) -> State:
        h_BH, c_BH = state
        i, f, g, o = (drive_BG + h_BH @ getattr(self, f"hh_{layer}")).chunk(4, dim=1)
        c_BH = f.sigmoid() * c_BH + i.sigmoid() * g.tanh()
        return o.sigmoid() * c_BH.tanh(), c_BH

    def _answer(self, x_BD: Tensor, h_BH: Tensor) -> Tensor:
        model = self.forecaster
        logit_B = model.overload_head(h_BH)[:, 0]
        confidence_B = torch.sigmoid(model.slope * logit_B + model.intercept)
        tps_B, queue_B, cpu_B = (x_BD[:, FEATURES.index(name)] for name in ("tps", "queue_size", "cpu_percent"))
        return torch.cat([tps_B, confidence_B, queue_B, cpu_B])
