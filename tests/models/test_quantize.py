"""int8 files against arithmetic by hand, and every refusal.

Shapes: B samples, T steps, I inputs, O outputs.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.models.quantize import Feed, quantize_onnx, quantize_torch
from nerv_fl.privacy.layers import Linear
from nerv_fl.rng import stream, torch_stream

Floats = npt.NDArray[np.float32]


def draw(*shape: int) -> Floats:
    return stream(1, "quantize", *shape).standard_normal(shape).astype(np.float32)


def write_linear(path: Path, weight_IO: Floats) -> Path:
    """Write y = x W as ONNX."""
    inputs, outputs = weight_IO.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", outputs])],
        [numpy_helper.from_array(weight_IO, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_lstm(path: Path) -> Path:
    """Write an LSTM of 3 inputs and 4 units as ONNX."""
    weights = {"w": draw(1, 16, 3), "r": draw(1, 16, 4), "b": draw(1, 32)}
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", *weights], ["", "y"], hidden_size=4)],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, "B", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "B", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def outputs_of(path: Path, x: Floats) -> Floats:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0], dtype=np.float32)


def kinds(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def int8_weight(path: Path) -> npt.NDArray[np.int8]:
    (found,) = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2
    ]
    return found


# --- ONNX -------------------------------------------------------------------------------------------------------------


def test_weights_are_rounded_to_64_steps_of_the_largest(tmp_path: Path) -> None:
    """Seven bits: the sum of two products with activations of 0..255 then fits the 16 bits that AVX2 adds them in."""
    weight_IO = np.array([[64, -32.6], [1.4, 0.4], [-64, 49.7]], dtype=np.float32)
    size = quantize_onnx(write_linear(tmp_path / "float.onnx", weight_IO), tmp_path / "int8.onnx")
    assert int8_weight(tmp_path / "int8.onnx").tolist() == [[64, -33], [1, 0], [-64, 50]]
    assert size == (tmp_path / "int8.onnx").stat().st_size


def test_one_scale_for_each_output_keeps_a_small_column(tmp_path: Path) -> None:
    weight_IO = np.array([[64, 0.064], [32, -0.003]], dtype=np.float32)
    source = write_linear(tmp_path / "float.onnx", weight_IO)
    quantize_onnx(source, tmp_path / "one.onnx")
    quantize_onnx(source, tmp_path / "each.onnx", per_channel=True)
    assert int8_weight(tmp_path / "one.onnx").tolist() == [[64, 0], [32, 0]]
    assert int8_weight(tmp_path / "each.onnx").tolist() == [[64, 64], [32, -3]]


def examples(*, scale: float = 1.0) -> list[Feed]:
    return [{"x": scale * draw(16, 8)}]


@pytest.mark.parametrize(("method", "calibration"), [("dynamic", None), ("static", examples())])
def test_outputs_stay_near_the_float_ones(tmp_path: Path, method: str, calibration: list[Feed] | None) -> None:
    weight_IO, x_BI = draw(8, 4), draw(16, 8)
    source = write_linear(tmp_path / "float.onnx", weight_IO)
    quantize_onnx(source, tmp_path / "int8.onnx", method=method, calibration=calibration)
    error = np.abs(outputs_of(tmp_path / "int8.onnx", x_BI) - x_BI @ weight_IO).max()
    assert 1e-4 < error < 0.2


def test_static_scales_come_from_the_examples(tmp_path: Path) -> None:
    """Examples ten times too small cut off what is larger."""
    weight_IO, x_BI = draw(8, 4), draw(16, 8)
    source = write_linear(tmp_path / "float.onnx", weight_IO)
    quantize_onnx(source, tmp_path / "int8.onnx", method="static", calibration=examples(scale=0.1))
    assert np.abs(outputs_of(tmp_path / "int8.onnx", x_BI) - x_BI @ weight_IO).max() > 1


def test_an_lstm_is_quantised_dynamically(tmp_path: Path) -> None:
    source, target = write_lstm(tmp_path / "float.onnx"), tmp_path / "int8.onnx"
    quantize_onnx(source, target)
    assert "DynamicQuantizeLSTM" in kinds(target)
    x_TBI = draw(5, 2, 3)
    assert 1e-5 < np.abs(outputs_of(target, x_TBI) - outputs_of(source, x_TBI)).max() < 0.05


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_lstm(tmp_path / "float.onnx")
    for name in ("one.onnx", "two.onnx"):
        quantize_onnx(source, tmp_path / name)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_quantising_onto_itself_replaces_the_file(tmp_path: Path) -> None:
    path = write_lstm(tmp_path / "model.onnx")
    quantize_onnx(path, path)
    assert "DynamicQuantizeLSTM" in kinds(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


# --- Refusals ---------------------------------------------------------------------------------------------------------

Write = Callable[[Path], Path]


def linear(path: Path) -> Path:
    return write_linear(path, draw(8, 4))


@pytest.mark.parametrize(
    ("write", "method", "calibration", "message"),
    [
        (
            linear,
            "dynamik",
            None,
            "method is 'dynamik', expected one of: dynamic, static (did you mean 'dynamic'?)",
        ),
        (linear, "static", None, "calibration holds no example, expected at least one for method 'static'"),
        (linear, "static", [], "calibration holds no example, expected at least one for method 'static'"),
        (
            linear,
            "dynamic",
            examples(),
            "calibration is given, expected none: method 'dynamic' scales activations at each call",
        ),
        (
            write_lstm,
            "static",
            examples(),
            "method is 'static', expected 'dynamic': {source} holds LSTM, which ONNX Runtime leaves in float32",
        ),
    ],
)
def test_what_a_method_does_not_take_is_refused(
    tmp_path: Path, write: Write, *, method: str, calibration: list[Feed] | None, message: str
) -> None:
    source = write(tmp_path / "float.onnx")
    expected = message.format(source=source)
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        quantize_onnx(source, tmp_path / "int8.onnx", method=method, calibration=calibration)
    assert not (tmp_path / "int8.onnx").exists()


def test_an_example_of_another_model_is_refused(tmp_path: Path) -> None:
    message = r"^calibration example 1 has inputs \['z'\], expected \['x'\]$"
    with pytest.raises(DataError, match=message):
        quantize_onnx(
            linear(tmp_path / "float.onnx"),
            tmp_path / "int8.onnx",
            method="static",
            calibration=[*examples(), {"z": draw(16, 8)}],
        )


@pytest.mark.parametrize("content", [None, b"", b"not a model at all"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "float.onnx"
    if content is not None:
        source.write_bytes(content)
    message = rf"^{re.escape(str(source))} cannot be read \(.+\), expected an ONNX model$"
    with pytest.raises(DataError, match=message):
        quantize_onnx(source, tmp_path / "int8.onnx")


def test_a_missing_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        quantize_onnx(linear(tmp_path / "float.onnx"), tmp_path / "none" / "int8.onnx")


# --- torch ------------------------------------------------------------------------------------------------------------


def test_torch_layers_become_int8_and_the_module_stays_as_it_was() -> None:
    module = nn.Sequential(Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=torch_stream(3, "weights", *parameter.shape))
    x_BI = torch.from_numpy(draw(16, 8))
    before = module(x_BI)
    quantised = quantize_torch(module)
    kept = [type(layer) for layer in quantised.children()]
    assert [kind.__name__ for kind in kept] == ["Linear", "Tanh", "Linear"]
    assert all("quantized.dynamic" in kept[place].__module__ for place in (0, 2))
    assert type(module[0]) is Linear
    assert torch.equal(module(x_BI), before)
    assert 1e-4 < float((quantised(x_BI) - before).detach().abs().max()) < 0.2


def test_torch_warns_of_nothing_but_what_is_known() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantize_torch(nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2)))
    assert [str(entry.message) for entry in caught] == []
