"""Whole exports: what lies in the folder, what the manifest says, and that a wrong export is refused."""

import hashlib
import json
import math
import re
from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.models.encoder import Encoder, get_flat
from nerv_fl.models.export import write
from nerv_fl.models.export.bincode_reader import read_rust_encoder
from nerv_fl.models.export.encoder_graphs import Graph
from nerv_fl.models.export.export_source import Source
from nerv_fl.models.export.manifest import Differences, require_near
from nerv_fl.models.export.write import FORMATS, write_export
from nerv_fl.models.weights import vector_hash

FILES = {
    "safetensors": ["encoder.safetensors", "encoder.int8.safetensors", "table_32_16.safetensors"],
    "onnx": ["encoder.onnx", "encoder.int8.onnx"],
    "torchscript": ["encoder.pt", "encoder.int8.pt"],
    "bincode": ["encoder.bin"],
}


@pytest.fixture
def source(encoder: Encoder) -> Source:
    return Source(
        kind="encoder",
        preset=encoder.preset.name,
        model=encoder,
        origin={"run": "tiny-1", "round": 3, "model_hash": vector_hash(get_flat(encoder).numpy())},
        facts={"movement_floor": 0.5},
        metrics={
            "round": {
                "masked_ce": {"value": 3.68, "unigram": 3.69, "per_account": 3.1},
                "epsilon": {"max": 5.56, "delta": 1e-5},
            }
        },
        epoch=2,
    )


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_manifest_names_every_file_by_hash_and_size(source: Source, tmp_path: Path, fmt: str) -> None:
    out = tmp_path / "out"
    manifest = write_export(source, out, fmt=fmt)
    assert json.loads((out / "manifest.json").read_text()) == manifest
    assert list(manifest["files"]) == FILES[fmt]
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES[fmt], "README.md", "manifest.json"])
    for name, entry in manifest["files"].items():
        data = (out / name).read_bytes()
        assert (entry["sha256"], entry["size_bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert manifest["licence"] == "Apache-2.0"
    assert isinstance(source.model, Encoder)
    assert manifest["source"]["model_hash"] == vector_hash(get_flat(source.model).numpy())
    assert manifest["versions"].keys() >= {"nerv-fl", "torch", "onnxruntime"}


def test_ports_and_differences_are_those_of_the_runtime(source: Source, tmp_path: Path) -> None:
    manifest = write_export(source, tmp_path / "out", fmt="onnx")
    for name in FILES["onnx"]:
        session = onnxruntime.InferenceSession(tmp_path / "out" / name, providers=["CPUExecutionProvider"])
        entry = manifest["files"][name]
        for way, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            assert [(port["name"], port["shape"]) for port in entry[way]] == [(port.name, port.shape) for port in found]
    exact, near = (manifest["files"][name]["max_abs_difference"] for name in FILES["onnx"])
    assert exact["vectors"] < 1e-5 < near["vectors"] < 0.5
    assert exact["table"] == near["table"] == 0.0


def test_safetensors_list_the_tensors_that_a_reader_finds(source: Source, tmp_path: Path) -> None:
    manifest = write_export(source, tmp_path / "out", fmt="safetensors")
    for name, entry in manifest["files"].items():
        arrays = load_file(tmp_path / "out" / name)
        assert entry["tensors"] == {
            key: {"dtype": str(array.dtype), "shape": list(array.shape)} for key, array in arrays.items()
        }
    assert manifest["files"]["table_32_16.safetensors"]["tensors"] == {"raw": {"dtype": "int64", "shape": [8, 8]}}


def test_bincode_lists_every_tensor(source: Source, tmp_path: Path) -> None:
    manifest = write_export(source, tmp_path / "out", fmt="bincode")
    tensors = manifest["files"]["encoder.bin"]["tensors"]
    assert list(tensors)[:2] == ["token_embedding", "positional_embedding"]
    assert tensors["layers[0].attention.qkv_proj"] == {"dtype": "int8", "shape": [24, 8]}
    assert tensors["layers[0].attn_norm.bias"] == {"dtype": "float32", "shape": [8]}
    sizes = {"int8": 1, "float32": 4}
    held = sum(sizes[entry["dtype"]] * math.prod(entry["shape"]) for entry in tensors.values())
    left = manifest["files"]["encoder.bin"]["size_bytes"] - held
    num_layers, num_tokens = 1, 17
    # config, then lengths, scales and bits of matrices; rows of positions; layers; norms; epoch and hash
    assert left == (48 + 2) + (1 + 4 * num_layers) * 13 + 8 + 8 * num_tokens + 8 + 40 * num_layers + (
        (1 + 2 * num_layers) * (8 + 8 + 4 + 8) + 8 + 32
    )


def test_bincode_says_that_nobody_checked_it_and_what_it_lacks(source: Source, tmp_path: Path) -> None:
    manifest = write_export(source, tmp_path / "out", fmt="bincode")
    rust = read_rust_encoder(tmp_path / "out" / "encoder.bin")
    assert rust.epoch == 2
    assert manifest["files"]["encoder.bin"]["weight_hash"] == rust.weight_hash.hex()
    assert manifest["verified_against_rust"] is False
    assert "never checked against a real Rust build" in manifest["layout"]
    assert manifest["not_held"]["out.weight"] == [8, 8]
    assert manifest["not_held_parameters"] == (24 + 8 + 32 + 8) + (64 + 8) + (256 * 8 + 256)
    words = " ".join(manifest["computed_differently"])
    assert [word for word in ("x + f(LN(x))", "SiLU", "without", "plain mean") if word not in words] == []
    assert "never checked against a real Rust build" in (tmp_path / "out" / "README.md").read_text()


def test_the_card_has_a_head_and_measures_beside_trivial_models(source: Source, tmp_path: Path) -> None:
    write_export(source, tmp_path / "out", fmt="torchscript")
    card = (tmp_path / "out" / "README.md").read_text()
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert head.splitlines()[:3] == [
        "license: apache-2.0",
        "library_name: pytorch",
        "pipeline_tag: feature-extraction",
    ]
    assert head.splitlines()[-1] == ('          - {type: measure, name: "masked cross-entropy, nats", value: 3.68}')
    assert "| masked cross-entropy, nats | 3.68 | unigram 3.69, per account 3.1 |" in body
    assert "epsilon 5.56 at most of any node, at delta 1e-05 per step record, Poisson sampling, sigma 0.5" in body
    for title in ("Intended use", "Data", "Measures", "Files", "How to load it", "Limits"):
        assert f"## {title}\n" in body
    assert 'torch.jit.load("encoder.pt")' in body
    assert "Random weights pass it too" in body


def test_the_same_model_gives_the_same_folder(source: Source, tmp_path: Path) -> None:
    for fmt in FORMATS:
        for name in ("a", "b"):
            write_export(source, tmp_path / fmt / name, fmt=fmt)
        for path in (tmp_path / fmt / "a").iterdir():
            assert path.read_bytes() == (tmp_path / fmt / "b" / path.name).read_bytes(), path


def test_unknown_format_names_the_nearest(source: Source, tmp_path: Path) -> None:
    message = "format is 'onxx', expected one of: bincode, onnx, safetensors, torchscript (did you mean 'onnx'?)"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        write_export(source, tmp_path / "out", fmt="onxx")


def test_bincode_holds_encoders_only(tmp_path: Path) -> None:
    forecaster = Source(kind="forecaster", model=torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match=r"^format 'bincode' holds encoders only, expected another for a forecaster$"):
        write_export(forecaster, tmp_path / "out", fmt="bincode")


def test_a_folder_that_is_not_empty(source: Source, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    message = f"out is {tmp_path}, which holds 1 files, expected a new or empty folder"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        write_export(source, tmp_path, fmt="safetensors")


@pytest.mark.parametrize("fmt", FORMATS)
def test_no_disk_leaves_nothing(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: str) -> None:
    def full(folder: Path, manifest: object) -> None:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(write, "write_card", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_export(source, tmp_path / "out", fmt=fmt)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_computes_something_else_is_refused(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Graph, "run", lambda graph, inputs: tuple(y + 0.01 for y in graph.module(*inputs)))
    message = (
        r"^vectors of encoder\.onnx differs from the model's by .*e-03 of 1 \+ its largest, expected at most 0\.0001$"
    )
    with torch.no_grad(), pytest.raises(DataError, match=message):
        write_export(source, tmp_path / "out", fmt="onnx")


def test_nan_is_no_small_difference() -> None:
    differences = Differences(absolute={"y": float("nan")}, relative={"y": float("nan")})
    with pytest.raises(DataError, match=r"^y of x\.pt differs from the model's by nan of 1 \+ its largest, expected"):
        require_near(Path("x.pt"), differences)
