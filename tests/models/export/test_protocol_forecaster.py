"""The protocol's signature against a slow play-on: the forecaster itself, on a window that grows minute by minute."""

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from nerv_fl.data.load_schema import FEATURES
from nerv_fl.errors import ConfigError
from nerv_fl.models.export.export_source import open_source
from nerv_fl.models.export.forecaster_graphs import forecaster_graphs, rust_adapter
from nerv_fl.models.export.onnx_file import run_onnx, write_onnx
from nerv_fl.models.export.protocol_forecaster import RUST_METRICS, RustForecaster
from nerv_fl.models.export.torchscript import run_torchscript, write_torchscript
from nerv_fl.models.export.write import write_export
from nerv_fl.models.forecaster import METRICS, WINDOW, Forecaster, LoadScale
from nerv_fl.models.forecaster_files import save_forecaster
from nerv_fl.rng import torch_stream


@pytest.fixture(scope="module")
def model() -> Forecaster:
    """A small forecaster with a scale of its own, and weights under which nothing stands still."""
    ramp = np.linspace(1.0, 2.0, METRICS)
    scale = LoadScale(mean=ramp, std=ramp / 2, log_mean=ramp / 3, log_std=ramp / 4, change=ramp / 10)
    made = Forecaster(scale, width=12)
    made.draw_parameters(torch_stream(4, "weights"), overload_rate=0.3)
    with torch.no_grad():
        made.recent.weight.add_(0.1 * torch.randn(made.recent.weight.shape, generator=torch_stream(4, "recent")))
        made.overload_head.weight.mul_(20.0)
        made.metrics_head.weight.mul_(5.0)
        made.slope.fill_(1.5)
        made.intercept.fill_(-0.2)
    return made.eval()


@pytest.fixture(name="given_BTR", scope="module")
def given() -> Tensor:
    return 2.0 * torch.rand(1, WINDOW, len(RUST_METRICS), generator=torch_stream(4, "given"))


def played_on(model: Forecaster, given_BTR: Tensor) -> list[float]:
    """Return the 48 answers by asking the forecaster again from the start for each minute."""
    window = np.repeat(model.mean.numpy()[None], WINDOW, axis=0)
    for place, name in enumerate(RUST_METRICS):
        window[:, FEATURES.index(name)] = given_BTR[0, :, place].numpy()
    answers: list[float] = []
    for minute in range(1, 61):
        with torch.no_grad():
            told = model.every_step(torch.from_numpy(window)[None], first=len(window) - 1)
            window = np.concatenate([window, np.maximum(told.next_BSD[0].numpy(), 0.0)])
            if minute % 5 == 0:
                after = model.every_step(torch.from_numpy(window)[None], first=len(window) - 1)
                logit = model.slope * after.logit_BS[0, 0] + model.intercept
                now = dict(zip(FEATURES, window[-1], strict=True))
                answers += [now["tps"], float(torch.sigmoid(logit)), now["queue_size"], now["cpu_percent"]]
    return answers


def test_the_hour_is_played_on_from_the_models_own_forecasts(model: Forecaster, given_BTR: Tensor) -> None:
    with torch.no_grad():
        found = RustForecaster(model, marks_played=12)(given_BTR)
    assert found.shape == (48,)
    np.testing.assert_allclose(found.numpy(), played_on(model, given_BTR), rtol=1e-4, atol=1e-5)
    assert len({round(float(value), 4) for value in found}) > 24


@pytest.mark.parametrize("marks", [1, 3])
def test_marks_beyond_what_is_played_repeat_the_last(model: Forecaster, given_BTR: Tensor, marks: int) -> None:
    expected = np.reshape(played_on(model, given_BTR), (12, 4))
    expected[marks:] = expected[marks - 1]
    with torch.no_grad():
        found = RustForecaster(model, marks_played=marks)(given_BTR)
    np.testing.assert_allclose(found.numpy().reshape(12, 4), expected, rtol=1e-4, atol=1e-5)


def test_more_marks_than_there_are(model: Forecaster) -> None:
    with pytest.raises(ConfigError, match=r"^marks_played is 13, expected a number in \[1, 12\]$"):
        RustForecaster(model, marks_played=13)


def test_own_signature_in_both_formats(model: Forecaster, tmp_path: Path) -> None:
    (graph,) = forecaster_graphs(model, fmt="torchscript")
    next_BD, overload_B = (output.numpy() for output in graph.run(graph.other))
    assert (next_BD.shape, overload_B.shape) == ((3, METRICS), (3,))
    for write, run in ((write_onnx, run_onnx), (write_torchscript, run_torchscript)):
        exact, near = (run(tmp_path / name, graph, graph.other) for name in write(graph, tmp_path))
        for outputs, limit in ((exact, 1e-5), (near, 0.2)):
            assert np.abs(np.asarray(outputs[0], np.float32) - next_BD).max() < limit
            assert np.abs(np.asarray(outputs[1], np.float32) - overload_B).max() < limit


def test_the_manifest_says_whose_choice_the_metrics_are() -> None:
    (adapter,) = rust_adapter(["forecaster.onnx", "forecaster_rust.onnx"])
    assert adapter["inputs"] == list(RUST_METRICS)
    assert adapter["filled_with_their_mean"] == ["tx_transfer_percent", "network_in_bps", "network_out_bps"]
    outputs = adapter["outputs"]
    assert isinstance(outputs, list)
    assert (len(outputs), outputs[1], outputs[-1]) == (48, "confidence in 5 minutes", "cpu in 60 minutes")
    assert adapter["verified_against_rust"] is False
    assert rust_adapter(["forecaster.pt", "forecaster.int8.pt"]) == []


def test_a_forecasters_own_file_is_exported(model: Forecaster, tmp_path: Path) -> None:
    path = tmp_path / "forecaster.safetensors"
    save_forecaster(path, model, facts={"epsilon": 2.5, "delta": 1e-5})
    source = open_source(path)
    assert (source.kind, source.preset) == ("forecaster", "")
    write_export(source, tmp_path / "weights", fmt="safetensors")
    assert (tmp_path / "weights" / path.name).read_bytes() == path.read_bytes()
    manifest = write_export(source, tmp_path / "script", fmt="torchscript")
    assert list(manifest["files"]) == ["forecaster.pt", "forecaster.int8.pt"]
    card = (tmp_path / "script" / "README.md").read_text()
    assert "epsilon 2.50 at delta 1e-05 per window, Poisson sampling" in card
    assert re.search(r"in `metrics`: float32 \[\"B\", 60, 11\]", card)


@pytest.mark.slow
def test_onnx_runtime_runs_the_protocols_signature(model: Forecaster, given_BTR: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "forecaster.safetensors"
    save_forecaster(path, model, facts={})
    manifest = write_export(open_source(path), tmp_path / "out", fmt="onnx")
    assert list(manifest["files"]) == ["forecaster.onnx", "forecaster.int8.onnx", "forecaster_rust.onnx"]
    session = onnxruntime.InferenceSession(
        tmp_path / "out" / "forecaster_rust.onnx", providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"metrics": given_BTR.numpy()})
    assert found.shape == (48,)
    first = played_on(model, given_BTR)[:4]
    np.testing.assert_allclose(found.reshape(12, 4), np.tile(first, (12, 1)), rtol=1e-4, atol=1e-5)
