"""Each file of the forecaster, read by its own runtime, against the module it came from; and every refusal.

Shapes: B windows, T = 60 steps, D = 11 metrics.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nerv_fl.errors import CheckpointError, DataError
from nerv_fl.models.forecaster import METRICS, WINDOW, Forecaster, LoadScale
from nerv_fl.models.forecaster_files import (
    OnnxForecaster,
    export_int8,
    export_onnx,
    export_torchscript,
    load_forecaster,
    save_forecaster,
)
from nerv_fl.models.quantize import quantize_torch
from nerv_fl.rng import stream, torch_stream
from nerv_fl.types import Vector

WIDTH = 16
RUN = """
import sys, warnings
import numpy as np, torch
warnings.filterwarnings("ignore", message="`torch.jit.load` is deprecated")
model = torch.jit.load(sys.argv[1])
found = model(torch.from_numpy(np.load(sys.argv[2])))
np.savez(sys.argv[3], *[each.detach().numpy() for each in found])
"""


def made(width: int = WIDTH) -> Forecaster:
    model = Forecaster(LoadScale.unit(), width=width)
    model.draw_parameters(torch_stream(4, "weights"), overload_rate=0.3)
    with torch.no_grad():
        model.overload_head.weight.mul_(20.0)
        model.metrics_head.weight.mul_(20.0)
    return model.eval()


@pytest.fixture(name="model")
def forecaster() -> Forecaster:
    return made()


@pytest.fixture(name="x_BTD")
def metrics() -> Tensor:
    return torch.from_numpy(stream(4, "metrics").exponential(size=(5, WINDOW, METRICS)).astype(np.float32))


def outputs(model: torch.nn.Module, x_BTD: Tensor) -> list[Vector]:
    with torch.no_grad():
        return [each.numpy() for each in model(x_BTD)]


# --- safetensors ------------------------------------------------------------------------------------------------------


def test_weights_come_back_with_their_facts(model: Forecaster, x_BTD: Tensor, tmp_path: Path) -> None:
    with torch.no_grad():
        model.slope.fill_(0.5)
    save_forecaster(tmp_path / "f.safetensors", model, facts={"best_step": 3})
    again, facts = load_forecaster(tmp_path / "f.safetensors")
    assert facts == {"best_step": 3}
    for found, expected in zip(outputs(again, x_BTD), outputs(model, x_BTD), strict=True):
        np.testing.assert_array_equal(found, expected)


def rewritten(path: Path, model: Forecaster, *, header: dict[str, str], **changes: Tensor) -> Path:
    save_forecaster(path, model, facts={})
    save_file(load_file(path) | changes, path, metadata=header)
    return path


HEADER = {"shard-load-forecaster": json.dumps({"width": WIDTH, "facts": {}})}


@pytest.mark.parametrize(
    ("header", "changes", "message"),
    [
        ({"preset": "small"}, {}, "has the header ['preset'], expected 'shard-load-forecaster'"),
        ({}, {}, "has the header [], expected 'shard-load-forecaster'"),
        (HEADER, {"mean": torch.zeros(10)}, "holds mean of shape (10,), expected (11,)"),
        (HEADER, {"more": torch.zeros(1)}, "holds an unknown tensor more, expected the 20 of the forecaster"),
        (HEADER, {"std": torch.ones(11).double()}, "holds std as torch.float64, expected torch.float32"),
        ({"shard-load-forecaster": '{"width": 300000, "facts": {}}'}, {}, "names the width 300000, expected 1 to 1024"),
        ({"shard-load-forecaster": '{"width": 8}'}, {}, "holds facts that are a NoneType, expected an object"),
        (HEADER, {"std": torch.full((11,), np.nan)}, "holds NaN or infinite numbers in std, expected finite ones"),
    ],
)
def test_weights_of_something_else_are_refused(
    tmp_path: Path, model: Forecaster, *, header: dict[str, str], changes: dict[str, Tensor], message: str
) -> None:
    path = rewritten(tmp_path / "f.safetensors", model, header=header, **changes)
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'{path} {message}')}$"):
        load_forecaster(path)


@pytest.mark.parametrize("content", [None, b"", b"x" * 100])
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "f.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(path))} cannot be read as safetensors: .+"):
        load_forecaster(path)


# --- ONNX -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5])
def test_onnx_gives_the_module_s_forecasts(model: Forecaster, x_BTD: Tensor, tmp_path: Path, *, size: int) -> None:
    export_onnx(model, tmp_path / "f.onnx")
    found = OnnxForecaster(tmp_path / "f.onnx")(x_BTD[:size].numpy())
    for each, expected in zip(found, outputs(model, x_BTD[:size]), strict=True):
        assert each.dtype == np.float32
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 5])
def test_int8_stays_near_them(model: Forecaster, x_BTD: Tensor, tmp_path: Path, *, size: int) -> None:
    export_int8(model, tmp_path / "f.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "f.onnx").graph.node}
    assert "DynamicQuantizeLSTM" in kinds
    assert "LSTM" not in kinds
    next_BD, overload_B = OnnxForecaster(tmp_path / "f.onnx")(x_BTD[:size].numpy())
    expected = outputs(model, x_BTD[:size])
    assert 1e-6 < np.abs(overload_B - expected[1]).max() < 0.03
    assert 1e-5 < np.abs(next_BD - expected[0]).max() < 0.1


def test_the_full_size_is_1_1_million_bytes_in_int8(tmp_path: Path) -> None:
    size = export_int8(made(width=296), tmp_path / "f.onnx")
    assert size == (tmp_path / "f.onnx").stat().st_size
    assert abs(size - 1_100_000) <= 22_000
    assert [path.name for path in tmp_path.iterdir()] == ["f.onnx"]


def test_the_same_weights_give_the_same_bytes(model: Forecaster, tmp_path: Path) -> None:
    for name in ("one.onnx", "two.onnx"):
        export_int8(model, tmp_path / name)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_what_onnx_runtime_cannot_run_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "f.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"^{re.escape(str(path))} cannot be run \(.+\), expected a forecaster in ONNX$"
    ):
        OnnxForecaster(path)


def test_another_model_in_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.onnx"
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "other",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    message = f"{path} maps {{'x': [3]}} to ['y'], expected ['B', 60, 11] to ['next_metrics', 'overload']"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        OnnxForecaster(path)


# --- TorchScript ------------------------------------------------------------------------------------------------------


def in_a_fresh_process(path: Path, x_BTD: Tensor, *, folder: Path) -> list[Vector]:
    np.save(folder / "x.npy", x_BTD.numpy())
    (folder / "run.py").write_text(RUN)
    command = [sys.executable, "-W", "error", "run.py", str(path), "x.npy", "found.npz"]
    subprocess.run(command, cwd=folder, check=True)
    with np.load(folder / "found.npz") as found:
        return [found[name] for name in ("arr_0", "arr_1")]


@pytest.mark.parametrize("quantised", [False, True])
def test_torchscript_gives_the_same_in_a_fresh_process(
    model: Forecaster, x_BTD: Tensor, tmp_path: Path, *, quantised: bool
) -> None:
    source = quantize_torch(model) if quantised else model
    export_torchscript(source, tmp_path / "f.pt")
    found = in_a_fresh_process(tmp_path / "f.pt", x_BTD, folder=tmp_path)
    for each, expected, exact in zip(found, outputs(source, x_BTD), outputs(model, x_BTD), strict=True):
        np.testing.assert_allclose(each, expected, rtol=1e-5, atol=1e-6)
        assert np.abs(each - exact).max() < (0.1 if quantised else 1e-5)
