"""TorchScript: traced and frozen, so that any libtorch loads it without this package.

Torch writes into such a file where its code lay on the machine that made it, and class names that count what the
process traced before. Both are left out: the same model gives the same bytes.
"""

import io
import re
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nerv_fl.io.atomic import write_atomically
from nerv_fl.models.export.encoder_graphs import Graph
from nerv_fl.models.onnx_legacy import older_exporters
from nerv_fl.models.quantize import quantize_torch

COUNTED: Final = re.compile(rb"[./]___torch_mangle_\d+")


def write_torchscript(graph: Graph, folder: Path) -> tuple[str, ...]:
    """Write a graph as `NAME.pt` and, if it is to be had, `NAME.int8.pt`.

    Args:
        graph: What to write.
        folder: Where to.

    Returns:
        The names of the files, float32 first.

    Raises:
        OSError: If a file cannot be written.
    """
    path, quantised = folder / f"{graph.name}.pt", folder / f"{graph.name}.int8.pt"
    write_atomically(path, script_bytes(graph.module, graph.example))
    if not graph.int8:
        return (path.name,)
    write_atomically(quantised, script_bytes(quantize_torch(graph.module), graph.example))
    return path.name, quantised.name


def script_bytes(module: nn.Module, example: tuple[Tensor, ...]) -> bytes:
    """Return a module as TorchScript, the same bytes in every process."""
    staged = io.BytesIO()
    with older_exporters(), torch.no_grad():
        traced = torch.jit.trace(module.eval(), example, check_trace=False)
        torch.jit.save(torch.jit.freeze(traced, optimize_numerics=False), staged)
    staged.seek(0)
    return _plain(staged)


def run_torchscript(path: Path, graph: Graph, inputs: tuple[Tensor, ...]) -> tuple[npt.NDArray[np.generic], ...]:
    """Return what TorchScript computes of a file that `write_torchscript` wrote."""
    with older_exporters(), torch.no_grad():
        outputs = torch.jit.load(path)(*inputs)
    return tuple(output.numpy() for output in (outputs if len(graph.outputs) > 1 else (outputs,)))


def _plain(staged: io.BytesIO) -> bytes:
    """Return an archive without what differs from one process, or machine, to the next."""
    reader, plain = torch._C.PyTorchFileReader(staged), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(plain)
    for name in reader.get_all_records():
        if name.endswith(".debug_pkl") or name.startswith(".data/") or name in {"version", "byteorder"}:
            continue
        record = reader.get_record(name)
        if name.startswith("code/") or name.endswith(".pkl"):
            record = COUNTED.sub(b"", record)
        writer.write_record(COUNTED.sub(b"", name.encode()).decode(), record, len(record))
    writer.write_end_of_file()
    return plain.getvalue()
