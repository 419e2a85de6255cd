"""Safetensors: a model's float32 weights by name, and of an encoder its int8 weights and its table in 32.16.

Shapes: A accounts, D width.
"""

from pathlib import Path
from typing import Final

from safetensors.numpy import save

from nerv_fl.io.atomic import write_atomically
from nerv_fl.io.checksums import copy_file
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.export_source import Source
from nerv_fl.models.homomorphism import FRACTION_BITS
from nerv_fl.models.quantize_encoder import fixed_point_table, quantize_encoder, save_int8
from nerv_fl.models.tensor_files import with_sorted_header
from nerv_fl.models.weights import save_encoder

INT8: Final = "encoder.int8.safetensors"
TABLE: Final = "table_32_16.safetensors"


def write_tensors(source: Source, folder: Path) -> tuple[str, ...]:
    """Write a model as safetensors: its own file, byte for byte, where it has one.

    An encoder's `table_32_16.safetensors` holds ``raw``, int64 (A, D), exactly 2^16 V: what the protocol commits to.
    With the read-out "mean" there is no such table.

    Args:
        source: The model.
        folder: Where to.

    Returns:
        The names of the files, the float32 weights first.

    Raises:
        DataError: If a weight or an entry of the table is not finite.
        OSError: If a file cannot be written.
    """
    model, path = source.model, folder / f"{source.kind}.safetensors"
    if source.path is not None:
        copy_file(source.path, path)
    if not isinstance(model, Encoder):
        return (path.name,)
    if source.path is None:
        save_encoder(path, model, facts=dict(source.facts))
    save_int8(folder / INT8, quantize_encoder(model), facts=source.facts)
    if model.readout == "mean":
        return path.name, INT8
    write_atomically(folder / TABLE, table_bytes(model))
    return path.name, INT8, TABLE


def table_bytes(encoder: Encoder) -> bytes:
    """Return the table V in 32.16 fixed point as a safetensors file: ``raw``, int64 (A, D), exactly 2^16 V."""
    header = {"format": "nerv-fl table 32.16", "fraction_bits": str(FRACTION_BITS), "preset": encoder.preset.name}
    return with_sorted_header(save({"raw": fixed_point_table(encoder)}, metadata=header))
