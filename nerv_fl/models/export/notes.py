"""What a reader of an export has to know of its format: what it holds, what it leaves out, and what nobody checked."""

from collections.abc import Mapping
from typing import Final

from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.bincode import UNVERIFIED, not_held
from nerv_fl.models.export.forecaster_graphs import rust_adapter
from nerv_fl.models.export.predictor_graphs import missing_adapter
from nerv_fl.models.export.source import Source

INT8: Final = "int8 files hold int8 weights; activations are quantised at each call"

_TABLE: Final = (
    "the protocol commits to the table V of the float32 weights; every file here that has a table holds that one, int8 "
    "files too"
)
_BALANCE: Final = "E(S) = sum_i (b_i / T) V_i: a caller needs the table and balances alone, and no transformer"

FORMATS: Final[Mapping[str, tuple[str, ...]]] = {
    "safetensors": ("encoder.int8.safetensors: one reciprocal step a matrix, in NAME.scale; w ~ q / scale",),
    "onnx": (INT8, "opset 17, by torch's older exporter"),
    "torchscript": (INT8, "traced and frozen; float32 runs on any libtorch, int8 needs the engine it was made with"),
}
ENCODER: Final[Mapping[str, tuple[str, ...]]] = {
    "balance": (_BALANCE, _TABLE),
    "mean": (
        "read-out 'mean': E(S) is the plain mean of the transformer's states, deltas come from the account embeddings; "
        "no table in 32.16 fixed point, and no exact homomorphism",
    ),
}
READOUTS: Final[Mapping[str, str]] = {
    "balance": "a linear layer on each account's state, weighted by balances, and the table V",
    "mean": "a linear layer on the mean of the states",
}
RUST_DIFFERS: Final = (
    "layer norm: here before each part, x + f(LN(x)); there after it, LN(x + f(x))",
    "activation of the feed-forward layers: here GELU, there SiLU",
    "linear layers: here with biases, there without",
    "positions: both are tables of the file; here they were learned, there they are sinusoids",
    "tokens: here 1 + A + 256 of them (CLS, accounts, buckets of a quarter octave); there another vocabulary, whose "
    "meaning the file does not hold",
)


def format_notes(source: Source, fmt: str) -> dict[str, object]:
    """Return what a manifest says of a format.

    Args:
        source: The model.
        fmt: Name of the format.
    """
    if fmt == "bincode":
        return _rust_notes(source)
    lines = FORMATS[fmt] if source.kind == "encoder" or fmt != "safetensors" else ()
    if isinstance(source.model, Encoder):
        lines = (*lines, *ENCODER[source.model.readout])
    notes: dict[str, object] = {"notes": list(lines)}
    if source.kind == "forecaster":
        notes["adapters"] = rust_adapter(fmt)
    if source.kind == "predictor":
        notes["adapters"] = missing_adapter(fmt)
    return notes


def _rust_notes(source: Source) -> dict[str, object]:
    assert isinstance(source.model, Encoder)
    parameters = dict(source.model.named_parameters())
    names = not_held(source.model)
    return {
        "verified_against_rust": False,
        "layout": UNVERIFIED,
        "not_held": {name: list(parameters[name].shape) for name in names},
        "not_held_parameters": sum(parameters[name].numel() for name in names),
        "computed_differently": [
            *RUST_DIFFERS,
            f"read-out: here {READOUTS[source.model.readout]}; there the plain mean of the normed tokens",
        ],
        "notes": [
            "a program that runs these weights by the protocol's formulas computes other numbers than this encoder: "
            "the file carries weights, not the function",
            "weight_hash covers int8 matrices and norms; scales, positions, config and epoch are not in it",
        ],
    }
