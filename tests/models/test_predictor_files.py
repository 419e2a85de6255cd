from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nerv_fl.errors import CheckpointError
from nerv_fl.models.consensus import as_feed, open_onnx
from nerv_fl.models.predictor import Predictor
from nerv_fl.models.predictor_files import INT8_BYTES, load_predictor, save_predictor, write_int8, write_onnx
from nerv_fl.rng import torch_stream
from tests.models.races import draw_inputs


@pytest.fixture(scope="module")
def model() -> Predictor:
    predictor = Predictor().eval()
    predictor.reset_parameters(torch_stream(1, "weights"))
    return predictor


def test_weights_come_back_with_their_facts(model: Predictor, tmp_path: Path) -> None:
    save_predictor(tmp_path / "p.safetensors", model, facts={"seed": 3})
    found, facts = load_predictor(tmp_path / "p.safetensors")
    assert facts == {"seed": 3}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, dict(found.named_parameters())[name])


def test_the_same_weights_are_the_same_bytes(model: Predictor, tmp_path: Path) -> None:
    for number in range(6):
        save_predictor(tmp_path / f"{number}.safetensors", model, facts={"seed": 3, "a": 1})
    assert len({(tmp_path / f"{number}.safetensors").read_bytes() for number in range(6)}) == 1


def test_foreign_weights_are_refused(model: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    with pytest.raises(CheckpointError, match=r"p\.safetensors cannot be read as safetensors: "):
        load_predictor(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"holds kind None, expected 'consensus predictor'$"):
        load_predictor(path)
    save_file({"a": torch.zeros(1)}, path, metadata={"kind": "consensus predictor"})
    with pytest.raises(CheckpointError, match=r"holds an unknown tensor a, expected the \d+ of the predictor$"):
        load_predictor(path)
    broken = Predictor()
    broken.reset_parameters(torch_stream(1, "weights"))
    with torch.no_grad():
        broken.valid.bias.fill_(float("nan"))
    save_predictor(path, broken, facts={})
    with pytest.raises(CheckpointError, match=r"holds NaN or infinite numbers in valid\.bias, expected finite ones$"):
        load_predictor(path)


def test_onnx_gives_what_torch_gives(model: Predictor, tmp_path: Path) -> None:
    inputs = draw_inputs()
    write_onnx(model, tmp_path / "p.onnx")
    with torch.no_grad():
        expected = model(inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD)
    for found, tensor in zip(open_onnx(tmp_path / "p.onnx")(as_feed(inputs)), expected, strict=True):
        np.testing.assert_allclose(found, tensor.numpy(), rtol=1e-4, atol=1e-5)


def test_the_int8_file_has_the_size_of_the_protocol_and_nearly_the_same_answers(
    model: Predictor, tmp_path: Path
) -> None:
    inputs = draw_inputs()
    noise = torch_stream(2, "noise")
    with torch.no_grad():  # as after training: equal biases would be stored once
        for parameter in model.parameters():
            parameter.add_(1e-3 * torch.randn(parameter.shape, generator=noise))
    size = write_int8(model, tmp_path / "p.onnx")
    assert size == (tmp_path / "p.onnx").stat().st_size
    assert abs(size - INT8_BYTES) <= 0.02 * INT8_BYTES
    assert [path.name for path in tmp_path.iterdir()] == ["p.onnx"]
    with torch.no_grad():
        expected = model(inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD)
    for found, tensor in zip(open_onnx(tmp_path / "p.onnx")(as_feed(inputs)), expected, strict=True):
        assert np.abs(found - tensor.numpy()).max() < 0.1 * np.abs(tensor.numpy()).max()
