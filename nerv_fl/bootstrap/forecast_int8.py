"""The forecaster's int8 file, its bias corrected: what rounding the weights moves on average is taken off again.

Rounding moves the LSTM's states a little, and always the same way where nothing happens. A metric whose change is
mostly none and rarely huge, as the queue's, magnifies that: its forecast of "no change" is off by a constant.

    bias_d <- bias_d - median_n(int8_nd - float32_nd) / change_d

Shapes: N windows, D metrics.

Source: Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019, section 4.2, here
with the median over validation windows in place of an analytic mean.
"""

import copy
from pathlib import Path
from typing import Final

import numpy as np
import torch

from nerv_fl.bootstrap.forecast_data import LoadSeries
from nerv_fl.bootstrap.forecast_evaluate import forecast, torch_predict
from nerv_fl.bootstrap.forecast_windows import Places
from nerv_fl.models.forecaster import Forecaster
from nerv_fl.models.forecaster_files import OnnxForecaster, export_int8

EVERY: Final = 10
"""One window in so many is compared."""


def export_corrected(model: Forecaster, path: Path, *, series: LoadSeries, places: Places) -> int:
    """Write the forecaster in int8 with corrected biases of the next metrics, and return the file's size in bytes.

    Args:
        model: The forecaster; it is left as it is.
        path: File to write or replace.
        series: Validation shards.
        places: Windows of them, drawn evenly.

    Raises:
        DataError: If ONNX Runtime left the LSTM as it was.
        OSError: If the file cannot be written.
    """
    export_int8(model, path)
    some = Places(shards=places.shards[::EVERY], ends=places.ends[::EVERY])
    rounded_ND, exact_ND = (forecast(each, series, some)[0] for each in (OnnxForecaster(path), torch_predict(model)))
    moved_D = np.median(rounded_ND - exact_ND, axis=0)
    corrected = copy.deepcopy(model)
    with torch.no_grad():
        corrected.metrics_head.bias.sub_(torch.from_numpy(moved_D) / model.change)
    return export_int8(corrected, path)
