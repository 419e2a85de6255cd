"""The predictor by ONNX Runtime and by torch alone, at any number of races and events."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from nerv_fl.models.export.export_source import open_source
from nerv_fl.models.export.onnx_file import run_onnx, write_onnx
from nerv_fl.models.export.predictor_graphs import predictor_graphs
from nerv_fl.models.export.write import write_export
from nerv_fl.models.predictor import Predictor
from nerv_fl.models.predictor_files import save_predictor
from nerv_fl.rng import torch_stream

PROGRAM = """
import sys
sys.modules["nerv_fl"] = None  # importing it is an error
import torch
from safetensors.torch import load_file, save_file
inputs = load_file("in.safetensors")
found = torch.jit.load(sys.argv[1])(*(inputs[name] for name in ("tokens", "headers", "deltas", "past")))
save_file({name: part.contiguous() for name, part in zip(("valid", "outcome", "delta"), found)}, "out.safetensors")
"""


@pytest.fixture(scope="module")
def model() -> Predictor:
    made = Predictor()
    made.reset_parameters(torch_stream(5, "predictor"))
    return made.eval()


def test_onnx_runtime_gives_the_same_at_any_number_of_races_and_events(model: Predictor, tmp_path: Path) -> None:
    (graph,) = predictor_graphs(model)
    exact, near = write_onnx(graph, tmp_path)
    assert (graph.example[0].shape, graph.other[0].shape) == ((2, 8), (3, 40))
    for inputs in (graph.example, graph.other):
        expected = [output.numpy() for output in graph.run(inputs)]
        for name, limit in ((exact, 1e-4), (near, 1.0)):
            for found, right in zip(run_onnx(tmp_path / name, graph, inputs), expected, strict=True):
                assert found.shape == right.shape
                assert np.abs(np.asarray(found, np.float32) - right).max() < limit
    assert (tmp_path / near).stat().st_size < 0.3 * (tmp_path / exact).stat().st_size


def test_the_manifest_says_what_the_protocols_signature_lacks(model: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "predictor.safetensors"
    save_predictor(path, model, facts={"seed": 7})
    source = open_source(path)
    assert (source.kind, source.facts) == ("predictor", {"seed": 7})
    manifest = write_export(source, tmp_path / "out", fmt="torchscript")
    (adapter,) = manifest["adapters"]
    assert adapter["file"] is None
    assert [
        words for words in ("deltas of the candidates", "headers", "8,192 tokens") if words not in str(adapter)
    ] == []
    assert "forward_ts" in (tmp_path / "out" / "README.md").read_text()
    shapes = [(port["name"], port["shape"]) for port in manifest["files"]["predictor.pt"]["inputs"]]
    assert shapes == [
        ("tokens", ["races", "events"]),
        ("headers", ["races", 4, 5]),
        ("deltas", ["races", 4, 512]),
        ("past", ["races", 4, 512]),
    ]
    (graph,) = predictor_graphs(model)
    save_file(
        {port.name: tensor for port, tensor in zip(graph.inputs, graph.other, strict=True)}, tmp_path / "in.safetensors"
    )
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "out" / "predictor.pt")]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    found = load_file(tmp_path / "out.safetensors")
    for port, right in zip(graph.outputs, graph.run(graph.other), strict=True):
        assert np.abs(found[port.name].numpy() - right.numpy()).max() < 1e-5
