"""Torch's older exporters, by which all our models leave it: ONNX by tracing, and the warnings they are known to give.

What the newer exporter writes, ONNX Runtime quantises to no smaller a file.
"""

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from nerv_fl.io.atomic import write_atomically

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


OPSET: Final = 17


def write_traced_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]],
) -> int:
    """Write a module as ONNX in float32, opset 17, whole or not at all.

    Args:
        module: What to write; put into evaluation mode.
        example: Inputs to trace it with.
        path: File to write or replace.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        free: By name, the axes whose length is not fixed, and what they are called.

    Returns:
        Size of the file, in bytes.

    Raises:
        OSError: If the file cannot be written.
    """
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,
        older_exporters(),
        torch.no_grad(),
    ):
        staged = Path(folder) / "float32.onnx"
        torch.onnx.export(
            module.eval(),
            example,
            staged,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in free.items() if axes},
            opset_version=OPSET,
            dynamo=False,
        )
        content = staged.read_bytes()
    write_atomically(path, content)
    return len(content)


@contextmanager
def older_exporters() -> Iterator[None]:
    """Silence what torch says of its older exporters."""
    with warnings.catch_warnings():
        for message, category in KNOWN:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
