"""What is exported of a forecaster: its own signature, and in ONNX the protocol's beside it.

    forecaster        metrics (B, 60, 11)  -> next_metrics (B, 11), overload (B)
    forecaster_rust   metrics (1, 60, 8)   -> forecast (48)

Shapes: B windows, T = 60 steps, D = 11 metrics.
"""

from collections.abc import Collection
from typing import Final

import torch
from torch import Tensor

from nerv_fl.data.load_schema import FEATURES
from nerv_fl.models.export.encoder_graphs import Graph, Port
from nerv_fl.models.export.protocol_forecaster import ANSWERS, MARKS, RUST_METRICS, RustForecaster
from nerv_fl.models.forecaster import METRICS, WINDOW, Forecaster
from nerv_fl.models.forecaster_files import INPUT, OUTPUTS
from nerv_fl.rng import torch_stream

RUST_FILE: Final = "forecaster_rust.onnx"


def forecaster_graphs(model: Forecaster, *, fmt: str) -> tuple[Graph, ...]:
    """Return what a format holds of a forecaster."""
    own = Graph(
        name="forecaster",
        module=model.eval(),
        inputs=(Port(name=INPUT, shape=("B", WINDOW, METRICS)),),
        outputs=(Port(name=OUTPUTS[0], shape=("B", METRICS)), Port(name=OUTPUTS[1], shape=("B",))),
        example=(_window(model, 1),),
        other=(_window(model, 3),),
    )
    if fmt != "onnx":
        return (own,)
    given = [FEATURES.index(name) for name in RUST_METRICS]
    rust = Graph(
        name="forecaster_rust",
        module=RustForecaster(model).eval(),
        inputs=(Port(name=INPUT, shape=(1, WINDOW, len(RUST_METRICS))),),
        outputs=(Port(name="forecast", shape=(MARKS * len(ANSWERS),)),),
        example=(_window(model, 1)[:, :, given],),
        other=(_window(model, 3)[2:, :, given],),
        int8=False,
    )
    return own, rust


def rust_adapter(names: Collection[str]) -> list[dict[str, object]]:
    """Return what a manifest of these files says of the protocol's signature."""
    if RUST_FILE not in names:
        return []
    return [
        {
            "signature": "f32 [1, 60, 8] -> 48 f32",
            "file": RUST_FILE,
            "verified_against_rust": False,
            "inputs": list(RUST_METRICS),
            "filled_with_their_mean": [name for name in FEATURES if name not in RUST_METRICS],
            "outputs": [f"{name} in {5 * mark} minutes" for mark in range(1, MARKS + 1) for name in ANSWERS],
            "missing": [],
            "notes": [
                "which 8 metrics the protocol means, and in which units, is not known: these are ours",
                "the model forecasts one minute; the first mark is played on from its own forecasts, and the other "
                "eleven repeat it, since played on further it is worse than no change",
                "confidence is the probability of overload within the ten minutes after the mark",
            ],
        }
    ]


def _window(model: Forecaster, num_windows: int) -> Tensor:
    """Return windows that lie about as the metrics of the train shards do, at least 0."""
    generator = torch_stream(0, "export", "forecaster", num_windows)
    noise_BTD = torch.randn(num_windows, WINDOW, METRICS, generator=generator)
    return (model.mean + model.std * noise_BTD).clamp(min=0.0)
