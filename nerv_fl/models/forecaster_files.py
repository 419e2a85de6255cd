"""The forecaster on disk: safetensors to train on from, ONNX in int8 for nodes, TorchScript for programs that read it.

Shapes: B windows, D = 11 metrics.
"""

import json
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidProtobuf, NoSuchFile
from safetensors.torch import save

from nerv_fl.errors import CheckpointError, DataError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.models.export.torchscript import script_bytes
from nerv_fl.models.forecaster import METRICS, WINDOW, Forecaster, LoadScale
from nerv_fl.models.onnx_legacy import write_traced_onnx
from nerv_fl.models.quantize import quantize_onnx
from nerv_fl.models.tensor_files import read_facts, read_tensors, require_tensors

KIND: Final = "shard-load-forecaster"
MAX_WIDTH: Final = 1024
"""What a file may ask for: a model is built before its tensors are compared."""
INPUT: Final = "metrics"
OUTPUTS: Final = ("next_metrics", "overload")
INPUT_SHAPE: Final = ["B", WINDOW, METRICS]
Forecasts = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""The next minute's metrics, float32 (B, 11), and the probability of overload, float32 (B,)."""


def save_forecaster(path: Path, model: Forecaster, *, facts: dict[str, object]) -> None:
    """Write weights, scale and calibration atomically, with what is known of them in the header."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    header = json.dumps({"width": model.width, "facts": facts}, sort_keys=True)
    # One key: safetensors writes several in no fixed order, and the same weights would not give the same bytes.
    write_atomically(path, save(tensors, metadata={KIND: header}))


def load_forecaster(path: Path) -> tuple[Forecaster, dict[str, object]]:
    """Read a forecaster and the facts written with it.

    Raises:
        CheckpointError: If the file is missing, damaged, no forecaster, or holds numbers that are not finite.
    """
    header, tensors = read_tensors(path)
    if KIND not in header:
        raise CheckpointError(f"{path} has the header {sorted(header)}, expected {KIND!r}")
    about = read_facts(path, header[KIND])
    width, facts = about.get("width"), about.get("facts")
    if not isinstance(width, int) or not 1 <= width <= MAX_WIDTH:
        raise CheckpointError(f"{path} names the width {width!r}, expected 1 to {MAX_WIDTH}")
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} holds facts that are a {type(facts).__name__}, expected an object")
    model = Forecaster(LoadScale.unit(), width=width)
    require_tensors(path, tensors, model.state_dict(), what="forecaster")
    model.load_state_dict(tensors)
    return model.eval(), facts


def export_onnx(model: Forecaster, path: Path) -> int:
    """Write the forecaster as ONNX in float32, for any number of windows, and return its size in bytes.

    Raises:
        OSError: If the file cannot be written.
    """
    return write_traced_onnx(
        model,
        (torch.zeros(1, WINDOW, METRICS),),
        path,
        inputs=[INPUT],
        outputs=OUTPUTS,
        free={name: {0: "B"} for name in (INPUT, *OUTPUTS)},
    )


def export_int8(model: Forecaster, path: Path) -> int:
    """Write the forecaster as ONNX with int8 weights, and return its size in bytes.

    Raises:
        DataError: If ONNX Runtime left the LSTM as it was.
        OSError: If the file cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        plain, staged = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        export_onnx(model, plain)
        size = quantize_onnx(plain, staged)
        kinds = [node.op_type for node in onnx.load(staged).graph.node]
        if "LSTM" in kinds or "DynamicQuantizeLSTM" not in kinds:
            raise DataError(f"{path} would hold {sorted(set(kinds))}, expected DynamicQuantizeLSTM and no LSTM")
        staged.replace(path)
    return size


def export_torchscript(model: torch.nn.Module, path: Path) -> int:
    """Write a forecaster, in float32 or as `quantize_torch` makes it, as TorchScript; return its size in bytes.

    Raises:
        OSError: If the file cannot be written.
    """
    content = script_bytes(model, (torch.zeros(2, WINDOW, METRICS),))
    write_atomically(path, content)
    return len(content)


class OnnxForecaster:
    """A forecaster run by ONNX Runtime on one thread.

    Args:
        path: ONNX file.

    Raises:
        DataError: If the file is missing, damaged, or not a forecaster.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except (Fail, InvalidArgument, InvalidProtobuf, NoSuchFile) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path} cannot be run ({reason}), expected a forecaster in ONNX") from error
        shapes = {entry.name: entry.shape for entry in self._session.get_inputs()}
        names = tuple(entry.name for entry in self._session.get_outputs())
        if shapes != {INPUT: INPUT_SHAPE} or names != OUTPUTS:
            raise DataError(f"{path} maps {shapes} to {list(names)}, expected {INPUT_SHAPE} to {list(OUTPUTS)}")

    def __call__(self, metrics_BTD: npt.NDArray[np.float32]) -> Forecasts:
        """Forecast from raw metrics, float32 (B, 60, 11)."""
        next_BD, overload_B = self._session.run(list(OUTPUTS), {INPUT: metrics_BTD})
        return np.asarray(next_BD), np.asarray(overload_B)
