"""ONNX: opset 17, by torch's older exporter, in float32 and int8, for ONNX Runtime and whatever else reads ONNX."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from torch import Tensor

from nerv_fl.models.export.encoder_graphs import Graph
from nerv_fl.models.onnx_legacy import write_traced_onnx
from nerv_fl.models.quantize import quantize_onnx


def write_onnx(graph: Graph, folder: Path) -> tuple[str, ...]:
    """Write a graph as `NAME.onnx` and, if it is to be had, `NAME.int8.onnx`.

    Args:
        graph: What to write.
        folder: Where to.

    Returns:
        The names of the files, float32 first.

    Raises:
        OSError: If a file cannot be written.
    """
    path = folder / f"{graph.name}.onnx"
    ports = (*graph.inputs, *graph.outputs)
    free = {port.name: {at: size for at, size in enumerate(port.shape) if isinstance(size, str)} for port in ports}
    write_traced_onnx(
        graph.module,
        graph.example,
        path,
        inputs=[port.name for port in graph.inputs],
        outputs=[port.name for port in graph.outputs],
        free=free,
    )
    if not graph.int8:
        return (path.name,)
    quantised = folder / f"{graph.name}.int8.onnx"
    quantize_onnx(path, quantised)
    return path.name, quantised.name


def run_onnx(path: Path, graph: Graph, inputs: tuple[Tensor, ...]) -> tuple[npt.NDArray[np.generic], ...]:
    """Return what ONNX Runtime computes of a file that `write_onnx` wrote, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {port.name: tensor.numpy() for port, tensor in zip(graph.inputs, inputs, strict=True)}
    return tuple(np.asarray(output) for output in session.run([port.name for port in graph.outputs], feed))
