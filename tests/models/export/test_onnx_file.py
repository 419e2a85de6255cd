"""ONNX files by ONNX Runtime against the model, and what is in them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.encoder_graphs import encoder_graph
from nerv_fl.models.export.onnx_file import run_onnx, write_onnx


def test_float32_computes_what_the_encoder_does(encoder: Encoder, tmp_path: Path) -> None:
    graph = encoder_graph(encoder)
    assert write_onnx(graph, tmp_path) == ("encoder.onnx", "encoder.int8.onnx")
    with torch.no_grad():
        hidden = encoder.hidden(graph.other[0].reshape(1, 1, -1))
        expected = encoder.account_vectors(hidden)[0, 0].numpy()
        table = encoder.table().numpy()
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    vectors, own_table = session.run(["vectors", "table"], {"tokens": graph.other[0].numpy()})
    assert np.abs(vectors - expected).max() < 1e-5
    assert np.abs(vectors - table).max() > 0.01
    assert np.array_equal(own_table, table)


def test_int8_is_smaller_near_and_keeps_the_table_exactly(encoder: Encoder, tmp_path: Path) -> None:
    graph = encoder_graph(encoder)
    write_onnx(graph, tmp_path)
    expected = graph.run(graph.other)
    vectors, table = run_onnx(tmp_path / "encoder.int8.onnx", graph, graph.other)
    assert 1e-6 < np.abs(vectors - expected[0].numpy()).max() < 0.5
    assert np.array_equal(table, expected[1].numpy())
    kinds = {node.op_type for node in onnx.load(tmp_path / "encoder.int8.onnx").graph.node}
    assert "MatMulInteger" in kinds


def test_opset_and_ports_are_as_the_graph_says(encoder: Encoder, tmp_path: Path) -> None:
    graph = encoder_graph(encoder)
    write_onnx(graph, tmp_path)
    model = onnx.load(tmp_path / "encoder.onnx")
    assert [entry.version for entry in model.opset_import] == [17]
    (tokens,) = model.graph.input
    assert (tokens.name, [size.dim_value for size in tokens.type.tensor_type.shape.dim]) == ("tokens", [17])
    assert [entry.name for entry in model.graph.output] == ["vectors", "table"]


def test_the_mean_readout_gives_one_embedding(encoder: Encoder, tmp_path: Path) -> None:
    mean = Encoder(encoder.preset, readout="mean")
    mean.load_state_dict(encoder.state_dict())
    graph = encoder_graph(mean)
    write_onnx(graph, tmp_path)
    with torch.no_grad():
        expected = mean.out(mean.hidden(graph.other[0].reshape(1, 1, -1)).mean(dim=2))[0, 0].numpy()
    embedding, table = run_onnx(tmp_path / "encoder.onnx", graph, graph.other)
    assert np.abs(embedding - expected).max() < 1e-5
    assert np.array_equal(table, mean.embedding.weight.detach().numpy()[1:9])


def test_the_same_encoder_gives_the_same_bytes(encoder: Encoder, tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_onnx(encoder_graph(encoder), tmp_path / name)
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert files[0] == files[1]
    assert len(files[0]) == 2
