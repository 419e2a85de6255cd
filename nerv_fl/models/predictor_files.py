"""The predictor on disk: its weights by name, and the ONNX files that other programs run.

The int8 file is what a node loads. Its inputs and outputs:

    tokens  int64   [races, events]      valid    float32 [races, 4]    logits
    headers float32 [races, 4, 5]        outcome  float32 [races, 5]    logits; the last: none
    deltas  float32 [races, 4, 512]      delta    float32 [races, 512]
    past    float32 [races, 4, 512]
"""

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save

from nerv_fl.errors import CheckpointError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.models.consensus import INPUTS, OUTPUTS
from nerv_fl.models.consensus_inputs import DELTA_WIDTH, HEADER
from nerv_fl.models.onnx_legacy import write_traced_onnx
from nerv_fl.models.predictor import Predictor
from nerv_fl.models.quantize import quantize_onnx
from nerv_fl.models.tensor_files import read_facts, read_tensors, require_tensors, with_sorted_header
from nerv_fl.quorum import MAX_CANDIDATES, PAST

KIND: Final = "consensus predictor"
INT8_BYTES: Final = 1.8e6
"""Size that the protocol gives the int8 file (whitepaper v1.01, section 2.3)."""


def save_predictor(path: Path, model: Predictor, *, facts: dict[str, object]) -> None:
    """Write a predictor's named weights atomically, with `facts` in the header."""
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in model.named_parameters()}
    header = {"kind": KIND, "facts": json.dumps(facts, sort_keys=True)}
    write_atomically(path, with_sorted_header(save(tensors, metadata=header)))


def load_predictor(path: Path) -> tuple[Predictor, dict[str, object]]:
    """Return the predictor of a file, and the facts written with it.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds another model.
    """
    header, tensors = read_tensors(path)
    if header.get("kind") != KIND:
        raise CheckpointError(f"{path} holds kind {header.get('kind')!r}, expected {KIND!r}")
    model = Predictor()
    require_tensors(path, tensors, dict(model.named_parameters()), what="predictor")
    model.load_state_dict(tensors)
    return model, read_facts(path, header.get("facts", "{}"))


def write_onnx(model: Predictor, path: Path) -> int:
    """Write a predictor as ONNX in float32, whole or not at all; return its size in bytes."""
    races, events = 2, 8
    example = (
        torch.zeros(races, events, dtype=torch.int64),
        torch.zeros(races, MAX_CANDIDATES, len(HEADER)),
        torch.zeros(races, MAX_CANDIDATES, DELTA_WIDTH),
        torch.zeros(races, PAST, DELTA_WIDTH),
    )
    free = {name: {0: "races"} for name in (*INPUTS, *OUTPUTS)}
    free["tokens"][1] = "events"
    return write_traced_onnx(model, example, path, inputs=INPUTS, outputs=OUTPUTS, free=free)


def write_int8(model: Predictor, path: Path) -> int:
    """Write the int8 file that nodes load; return its size in bytes."""
    staged = path.with_name(f".{path.name}.float32.onnx")
    try:
        write_onnx(model, staged)
        return quantize_onnx(staged, path)
    finally:
        staged.unlink(missing_ok=True)
