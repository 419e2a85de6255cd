"""The warnings that torch's older exporters are known to give: caught by their text, and no others."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from torch.jit._trace import TracerWarning

KNOWN: Final[tuple[tuple[str, type[Warning]], ...]] = (
    # What replaces them writes files that ONNX Runtime quantises worse, or that only torch reads.
    (r"`torch\.jit\.(trace|trace_method|freeze|save|load|script)` is deprecated", DeprecationWarning),
    (r"You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
    (r"The feature will be removed\. Please remove usage of this function", DeprecationWarning),
    # Three tensors in one: their number is fixed, and so is that of the model's layers.
    (r"Iterating over a tensor might cause the trace to be incorrect", TracerWarning),
    # Said of every LSTM whose batch is free. Its states are made in the graph, as large as the batch.
    (r"Exporting a model to ONNX with a batch_size other than 1", UserWarning),
    # An LSTM checks its input's width, which is fixed.
    (r"Converting a tensor to a Python boolean might cause the trace to be incorrect", TracerWarning),
)


@contextmanager
def older_exporters() -> Iterator[None]:
    """Silence what torch says of its older exporters."""
    with warnings.catch_warnings():
        for message, category in KNOWN:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
