"""What a reader of a model's files has to know of them: what they hold, what they leave out, and what nobody checked.

Every note is of a file that is there: a training's folder, or a single file of weights, holds less than an export.
"""

from collections.abc import Collection, Mapping
from typing import Final

from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.bincode import UNVERIFIED, not_held
from nerv_fl.models.export.export_source import Source
from nerv_fl.models.export.forecaster_graphs import rust_adapter
from nerv_fl.models.export.predictor_graphs import missing_adapter
from nerv_fl.models.export.tensors import TABLE

FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "int8 files hold int8 weights; activations are quantised at each call": ("int8.onnx", "int8.pt"),
    "int8.safetensors: one reciprocal step a matrix, in NAME.scale; w ~ q / scale": ("int8.safetensors",),
    "opset 17, by torch's older exporter": ("onnx", "int8.onnx"),
    "traced and frozen; float32 runs on any libtorch, int8 needs the engine it was made with": ("pt", "int8.pt"),
}
"""What is said of a model's files, and the endings of those of which it is said."""

_TABLE: Final = (
    "the protocol commits to the table V of the float32 weights; every file here that has a table holds that one, int8 "
    "files too"
)
_NO_TABLE: Final = "no file here holds the table V, which the weights determine: `nerv-fl export` writes it"
_BALANCE: Final = "E(S) = sum_i (b_i / T) V_i: a caller needs the table and balances alone, and no transformer"
_MEAN: Final = (
    "read-out 'mean': E(S) is the plain mean of the transformer's states, deltas come from the account embeddings; "
    "no table in 32.16 fixed point, and no exact homomorphism"
)
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


def file_notes(source: Source, names: Collection[str]) -> dict[str, object]:
    """Return what a manifest says of a model's files.

    Args:
        source: The model.
        names: The files that are there.
    """
    if set(names) == {"encoder.bin"}:
        return _rust_notes(source)
    lines = [line for line, ends in FILES.items() if any(f"{source.kind}.{end}" in names for end in ends)]
    if isinstance(source.model, Encoder):
        lines += _readout_notes(source.model, names)
    notes: dict[str, object] = {"notes": lines}
    if source.kind == "forecaster":
        notes["adapters"] = rust_adapter(names)
    if source.kind == "predictor":
        notes["adapters"] = missing_adapter(names)
    return notes


def _readout_notes(encoder: Encoder, names: Collection[str]) -> tuple[str, ...]:
    if encoder.readout == "mean":
        return (_MEAN,)
    has_table = any(name in names for name in (TABLE, "encoder.onnx", "encoder.pt"))
    return _BALANCE, _TABLE if has_table else _NO_TABLE


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
