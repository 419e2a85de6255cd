"""TorchScript files by torch alone, in a process that has no nerv_fl."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.encoder_graphs import encoder_graph
from nerv_fl.models.export.torchscript import run_torchscript, script_bytes, write_torchscript

PROGRAM = """
import sys
sys.modules["nerv_fl"] = None  # importing it is an error
import torch
from safetensors.torch import load_file, save_file
model, inputs, outputs = sys.argv[1:]
found = torch.jit.load(model)(load_file(inputs)["tokens"])
save_file({"vectors": found[0].contiguous(), "table": found[1].contiguous()}, outputs)
"""


def run_alone(path: Path, tokens_T: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Run a file in a fresh process, in a folder without this project."""
    save_file({"tokens": tokens_T}, folder / "in.safetensors")
    command = [sys.executable, "-c", PROGRAM, str(path), "in.safetensors", "out.safetensors"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, np.ndarray] = load_file(folder / "out.safetensors")
    return found


def test_a_process_without_this_package_computes_what_the_encoder_does(encoder: Encoder, tmp_path: Path) -> None:
    graph = encoder_graph(encoder)
    assert write_torchscript(graph, tmp_path) == ("encoder.pt", "encoder.int8.pt")
    vectors, table = (output.numpy() for output in graph.run(graph.other))
    exact = run_alone(tmp_path / "encoder.pt", graph.other[0].numpy(), tmp_path)
    assert np.abs(exact["vectors"] - vectors).max() < 1e-6
    assert np.array_equal(exact["table"], table)
    near = run_alone(tmp_path / "encoder.int8.pt", graph.other[0].numpy(), tmp_path)
    assert 1e-6 < np.abs(near["vectors"] - vectors).max() < 0.5
    assert np.array_equal(near["table"], table)


def test_a_file_tells_neither_where_nor_how_often_it_was_made(encoder: Encoder, tmp_path: Path) -> None:
    graph = encoder_graph(encoder)
    first = script_bytes(graph.module, graph.example)
    assert script_bytes(graph.module, graph.example) == first
    archive = zipfile.ZipFile(io.BytesIO(first))
    root = str(Path(__file__).parents[3]).encode()
    for name in archive.namelist():
        assert "debug_pkl" not in name
        assert root not in archive.read(name)
        assert b"mangle" not in archive.read(name) + name.encode()


def test_running_does_not_depend_on_the_example(encoder: Encoder, tmp_path: Path) -> None:
    graph = encoder_graph(encoder)
    write_torchscript(graph, tmp_path)
    outputs = [run_torchscript(tmp_path / "encoder.pt", graph, inputs) for inputs in (graph.example, graph.other)]
    assert not np.allclose(np.asarray(outputs[0][0]), np.asarray(outputs[1][0]), atol=0.01)
